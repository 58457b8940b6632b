//! Says what is in a file of xentrace's, plain or compressed by gzip:
//!
//! ```text
//!     cargo run -p hypovisor-lab --example xentrace -- FILE [--calls]
//! ```
//!
//! For each pCPU: how many calls and losses there are in all and between the marks of `window.sh`, and how many of each
//! number; with `--calls`, every one of them in order. Where a guest `known` has run on one pCPU from its first mark to its
//! last, it says that its calls are there, exactly as its table has them.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufWriter, Write, stdout};

use hypovisor_lab::guests::{GuestKind, MARK_NUMBER, WINDOW_MARKS, match_known};
use hypovisor_lab::xentrace::{PcpuTrace, Trace, TracedCall, Via};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let file = args.next().ok_or("usage: xentrace FILE [--calls]")?;
    let every = args.next().is_some_and(|arg| arg == "--calls");
    let trace = Trace::parse(&std::fs::read(file)?)?;
    let mut out = BufWriter::new(stdout());
    writeln!(out, "{} records, {} lost", trace.records, trace.lost_records())?;
    for (pcpu, traced) in &trace.pcpus {
        summary(&mut out, *pcpu, traced)?;
        known(&mut out, traced)?;
        for call in traced.calls.iter().filter(|_| every) {
            writeln!(out, "  {call:?}")?;
        }
    }
    Ok(())
}

fn summary(out: &mut impl Write, pcpu: u32, traced: &PcpuTrace) -> std::io::Result<()> {
    let position = |mark| traced.calls.iter().position(|call| call.mark() == Some(mark));
    let calls = traced.calls.len();
    writeln!(out, "pCPU {pcpu}: {calls} calls, {} losses", traced.losses.len())?;
    let (Some(begin), Some(end)) = (position(WINDOW_MARKS.0), position(WINDOW_MARKS.1)) else {
        return writeln!(out, "  no window");
    };
    writeln!(out, "  window: {} calls", end.saturating_sub(begin + 1))?;
    let window = traced.calls.get(begin + 1..end).unwrap_or(&[]);
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for TracedCall { via, number, vcpu, .. } in window {
        *counts.entry((vcpu.map(|vcpu| vcpu.domain), format!("{via:?}"), *number)).or_default() += 1;
    }
    for ((domain, via, number), count) in counts {
        let domain = domain.map_or("?".to_owned(), |domain| format!("{domain:#x}"));
        writeln!(out, "  domain {domain:6} {via:9} {number:3}: {count}")?;
    }
    Ok(())
}

/// Looks for the calls of `known` among those of each domain, between two marks.
fn known(out: &mut impl Write, traced: &PcpuTrace) -> Result<(), Box<dyn Error>> {
    let mut domains: BTreeMap<u16, Vec<(u64, bool)>> = BTreeMap::new();
    for call in &traced.calls {
        let Some(vcpu) = call.vcpu else { continue };
        domains.entry(vcpu.domain).or_default().push((call.number.into(), call.via == Via::Multicall));
    }
    for (domain, calls) in &domains {
        for (at, kind) in (0..calls.len()).flat_map(|at| GuestKind::ALL.map(|kind| (at, kind))) {
            let Some((&(MARK_NUMBER, false), rest)) = calls[at..].split_first() else { continue };
            let Ok(length) = match_known(kind, rest) else { continue };
            if rest.get(length) == Some(&(MARK_NUMBER, false)) {
                writeln!(out, "  domain {domain:#x} is known-{}: exactly its {length} calls", kind.name())?;
            }
        }
    }
    Ok(())
}
