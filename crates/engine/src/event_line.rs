//! A call on one line, in the manner of strace:
//!
//! ```text
//! 22:45:45.123456 dom3.v0  cpu1  memory_op(cmd=XENMEM_exchange, arg={…}) = -EPERM <14.2us>
//! ```
//!
//! An inner call is indented under its multicall. What guests wrote reaches the line escaped.

use std::fmt::Write as _;

use hypovisor_abi::text::{self, Detail};
use hypovisor_abi::xen;

use crate::call::{Call, Outcome};
use crate::utc;

/// Appends `call` as one line, without its end.
pub fn write_line(out: &mut String, call: &Call<'_>, detail: Detail) {
    utc::write_clock(out, call.time_ns);
    let caller = format!("dom{}.v{}", call.caller.domain, call.caller.vcpu);
    let pcpu = format!("cpu{}", call.id.pcpu);
    let _ = write!(out, " {caller:<8} {pcpu:<5} ");
    write_call(out, call, detail);
}

/// Appends only what was called and how it ended.
pub fn write_call(out: &mut String, call: &Call<'_>, detail: Detail) {
    if call.parent.is_some() {
        out.push_str("  ");
    }
    if let Some(continued) = call.continues {
        let _ = write!(out, "[continues {}:{}] ", continued.pcpu, continued.sequence);
    }
    if call.intervention.injected {
        out.push_str("[injected] ");
    }
    let captured = call.captured();
    text::write_call(out, &xen::XEN, &captured, detail);
    out.push_str(" = ");
    match call.outcome {
        Outcome::Returned(result) => text::write_result(out, &xen::XEN, &captured, result),
        Outcome::Resumed => out.push_str("? (resumed elsewhere)"),
        Outcome::Preempted => out.push_str("? (preempted)"),
        Outcome::Unfinished => out.push_str("? (unfinished)"),
    }
    if let Some(duration) = call.duration_ns {
        write_duration(out, duration);
    }
    if let Some(verdict) = call.intervention.verdict {
        let _ = write!(out, " [{}]", verdict.name());
    }
}

fn write_duration(out: &mut String, duration_ns: u64) {
    let duration = duration_ns as f64;
    let _ = match duration_ns {
        0..1_000 => write!(out, " <{duration_ns}ns>"),
        1_000..1_000_000 => write!(out, " <{:.1}us>", duration / 1e3),
        1_000_000..1_000_000_000 => write!(out, " <{:.1}ms>", duration / 1e6),
        _ => write!(out, " <{:.1}s>", duration / 1e9),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CallId;
    use crate::testing::call;

    fn line(call: &Call<'_>) -> String {
        let mut out = String::new();
        write_line(&mut out, call, Detail::Line);
        out
    }

    #[test]
    fn a_line_says_when_who_where_what_and_how() {
        let sched_yield = call(29, [0; 6], Outcome::Returned(0));
        assert_eq!(
            line(&sched_yield),
            "22:13:20.000123 dom3.v0  cpu1  sched_op(cmd=SCHEDOP_yield) = 0 <14.2us>"
        );
        let failed = Call { outcome: Outcome::Returned(-1), duration_ns: Some(999), ..sched_yield };
        assert!(line(&failed).ends_with(" = -EPERM <999ns>"), "{}", line(&failed));
    }

    #[test]
    fn inner_continued_and_unfinished_calls_are_marked() {
        let parent = Some(CallId { pcpu: 1, sequence: 6 });
        let inner = Call { parent, ..call(4711, [1, 2, 3, 4, 5, 6], Outcome::Unfinished) };
        let shown = line(&Call { duration_ns: None, ..inner });
        assert!(shown.contains("cpu1    hypercall_4711(arg1=0x1, arg2=0x2"), "{shown}");
        assert!(shown.ends_with(") = ? (unfinished)"), "{shown}");
        let continues = Some(CallId { pcpu: 0, sequence: 1234 });
        let continued = Call { continues, ..call(29, [0; 6], Outcome::Preempted) };
        let shown = line(&continued);
        assert!(shown.contains("cpu1  [continues 0:1234] sched_op("), "{shown}");
        assert!(shown.ends_with(" = ? (preempted) <14.2us>"), "{shown}");
    }
}
