//! `hypovisor lab witness`: is a recording complete? Xen's own trace of the same time tells.

use std::io::Write as _;

use anyhow::Context as _;
use hypovisor_engine::recording::{RecordedCall, Recording};
use hypovisor_lab::guests::{MARK_NUMBER, WINDOW_MARKS, mark_number};
use hypovisor_lab::xentrace::Trace;
use hypovisor_lab::xentrace::witness::{self, Agreement};

use crate::FINDINGS;
use crate::cli::WitnessArgs;

pub(crate) fn witness(args: &WitnessArgs) -> anyhow::Result<u8> {
    let bytes =
        std::fs::read(&args.trace).with_context(|| format!("cannot read {}", args.trace.display()))?;
    let trace =
        Trace::parse(&bytes).with_context(|| format!("{} is not Xen's trace", args.trace.display()))?;
    let calls = Recording::open(&args.recording)?.calls()?;
    let recorded: Vec<witness::RecordedCall> =
        calls.map(|call| call.map(|call| as_witnessed(&call))).collect::<Result<_, _>>()?;
    let agreement = witness::compare(&trace, recorded, WINDOW_MARKS)?;
    print(args, &agreement)?;
    Ok(if agreement.is_exact() { 0 } else { FINDINGS })
}

fn as_witnessed(call: &RecordedCall) -> witness::RecordedCall {
    let is_mark = call.registers.number == MARK_NUMBER && call.parent.is_none();
    witness::RecordedCall {
        pcpu: call.id.pcpu,
        number: call.registers.number,
        is_inner: call.parent.is_some(),
        mark: is_mark.then(|| mark_number(call.registers.args[0] as u32)).flatten(),
    }
}

fn print(args: &WitnessArgs, agreement: &Agreement) -> anyhow::Result<()> {
    let Agreement { window_calls, matched, missing, extra, lost_records, .. } = *agreement;
    let mut out = std::io::stdout().lock();
    if args.json {
        let object = serde_json::json!({
            "window_calls": window_calls, "matched": matched, "missing": missing, "extra": extra,
            "lost_records": lost_records, "exact": agreement.is_exact(),
        });
        writeln!(out, "{object}")?;
        return Ok(());
    }
    writeln!(
        out,
        "Xen's own trace agrees on {matched} of {window_calls} calls; {missing} missing, {extra} extra"
    )?;
    if lost_records > 0 {
        writeln!(out, "Xen lost {lost_records} records of its trace: it is no full witness")?;
    }
    if let Some(difference) = &agreement.first_difference {
        writeln!(out, "first difference: {difference:?}")?;
    }
    Ok(())
}
