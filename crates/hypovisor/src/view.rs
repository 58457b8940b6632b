//! Looking at recordings: `trace`, `stats`, `report`.

mod alerts;

use std::io::{BufWriter, Write};

use anyhow::{Context as _, bail};
use hypovisor_abi::decode;
use hypovisor_abi::text::Detail;
use hypovisor_abi::xen::XEN;
use hypovisor_engine::call::Call;
use hypovisor_engine::recording::{Manifest, RecordedCall, Recording};
use hypovisor_engine::stats::{Stats, table};
use hypovisor_engine::{event_json, event_line, report as html_report};

use crate::FINDINGS;
use crate::cli::{ReportArgs, StatsArgs, TraceArgs};

pub(crate) use alerts::AlertArgs;

pub(crate) fn trace(args: &TraceArgs) -> anyhow::Result<u8> {
    let filter = Filter::new(args)?;
    if args.alerts.are_wanted() {
        return alerts::trace(args, &filter);
    }
    let recording = Recording::open(&args.recording)?;
    let calls = if args.follow { recording.follow()? } else { recording.calls()? };
    let mut printer = Printer {
        out: BufWriter::new(std::io::stdout().lock()),
        json: args.json,
        detail: if args.full { Detail::Full } else { Detail::Line },
        line: String::new(),
    };
    let mut names = Names { recording: recording.manifest().clone(), args };
    for call in calls {
        let call = call?;
        if filter.passes(&call.as_call()) {
            printer.print(&call, names.of(call.caller.domain))?;
            if args.follow {
                printer.out.flush()?;
            }
        }
    }
    printer.out.flush()?;
    Ok(0)
}

/// Which calls are wanted.
struct Filter<'a> {
    domains: &'a [u16],
    hypercalls: &'a [String],
    failed: bool,
}

impl<'a> Filter<'a> {
    fn new(args: &'a TraceArgs) -> anyhow::Result<Self> {
        if let Some(unknown) = args.hypercall.iter().find(|name| !is_known(name)) {
            bail!(
                "no hypercall or sub-op is called {unknown:?}; names are those of Xen's headers, or a number"
            );
        }
        Ok(Self { domains: &args.domain, hypercalls: &args.hypercall, failed: args.failed })
    }

    fn passes(&self, call: &Call<'_>) -> bool {
        self.concerns(call) && (!self.failed || call.outcome.failed())
    }

    /// Whether it is one of the domains and calls asked for, however it ends.
    fn concerns(&self, call: &Call<'_>) -> bool {
        let domain = self.domains.is_empty() || self.domains.contains(&call.caller.domain);
        domain && (self.hypercalls.is_empty() || self.is_named(call))
    }

    fn is_named(&self, call: &Call<'_>) -> bool {
        let identity = decode::identify(&XEN, &call.captured());
        let names = [identity.call.map(|call| call.name), identity.sub_op.map(|sub_op| sub_op.name)];
        let number = call.registers.number;
        self.hypercalls.iter().any(|name| {
            names.contains(&Some(name.as_str()))
                || name.parse() == Ok(number)
                || name.strip_prefix("hypercall_").is_some_and(|name| name.parse() == Ok(number))
        })
    }
}

fn is_known(name: &str) -> bool {
    let sub_op = |name: &str| {
        let all = XEN.calls.iter().flatten().filter_map(|call| call.sub_ops);
        all.flat_map(|sub_ops| sub_ops.ops).any(|op| op.name == name)
    };
    name.parse::<u64>().is_ok() || XEN.call_named(name).is_some() || sub_op(name)
}

/// Names of domains, read again when a recording that grows brings a new one.
struct Names<'a> {
    recording: Manifest,
    args: &'a TraceArgs,
}

impl Names<'_> {
    fn of(&mut self, domain: u16) -> Option<&str> {
        if self.args.follow
            && self.recording.domain(domain).is_none()
            && let Ok(newer) = Recording::open(&self.args.recording)
        {
            self.recording = newer.manifest().clone();
        }
        self.recording.domain(domain).map(|domain| domain.name.as_str())
    }
}

struct Printer<W> {
    out: W,
    json: bool,
    detail: Detail,
    line: String,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, call: &RecordedCall, domain_name: Option<&str>) -> anyhow::Result<()> {
        self.line.clear();
        if self.json {
            event_json::write_line(&mut self.line, &call.as_call(), domain_name);
        } else {
            event_line::write_line(&mut self.line, &call.as_call(), self.detail);
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())?;
        Ok(())
    }
}

pub(crate) fn stats(args: &StatsArgs) -> anyhow::Result<u8> {
    let recording = Recording::open(&args.recording)?;
    let summary = Stats::from_calls(recording.calls()?)?.summary(recording.manifest());
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?;
    } else {
        write!(out, "{}", table(&summary))?;
    }
    Ok(if summary.dropped > 0 { FINDINGS } else { 0 })
}

pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<u8> {
    let recording = Recording::open(&args.recording)?;
    let stats = Stats::from_calls(recording.calls()?)?;
    let html = html_report::html(recording.manifest(), &stats);
    // Written beside its place and renamed: a full disk leaves no half a report.
    let unfinished = args.output.with_extension("html.tmp");
    let written = std::fs::write(&unfinished, html).and_then(|()| std::fs::rename(&unfinished, &args.output));
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    written.with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(0)
}
