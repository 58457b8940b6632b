//! A call as one JSON object on one line: the form that `docs/events.md` defines.
//!
//! All keys are always there, in the same order. Registers are hex strings, because JSON's readers keep only 53 bits
//! of a number.

use std::fmt::Write as _;

use hypovisor_abi::{decode, json, xen};

use crate::call::{Call, CallId};
use crate::recording::{call_name, errno_name, mode_name, outcome_name};
use crate::utc;

/// Version of the form. It grows when a key changes its meaning or goes away, not when one is added.
pub const VERSION: u32 = 1;

/// Appends `call` as one line, without its end. `domain_name` is the name of the caller's domain, if it is known.
pub fn write_line(out: &mut String, call: &Call<'_>, domain_name: Option<&str>) {
    let _ = write!(out, "{{\"version\":{VERSION},\"time\":\"");
    utc::write_rfc3339(out, call.time_ns);
    let _ = write!(out, "\",\"time_ns\":{}", call.time_ns);
    let _ = write!(out, ",\"pcpu\":{},\"sequence\":{}", call.id.pcpu, call.id.sequence);
    write_relatives(out, call);
    write_caller(out, call, domain_name);
    write_what(out, call);
    write_outcome(out, call);
    out.push('}');
}

fn write_relatives(out: &mut String, call: &Call<'_>) {
    let relatives = [("parent", call.parent), ("continues", call.continues)];
    for (key, relative) in relatives {
        let _ = match relative {
            Some(CallId { pcpu, sequence }) => {
                write!(out, ",\"{key}\":{{\"pcpu\":{pcpu},\"sequence\":{sequence}}}")
            }
            None => write!(out, ",\"{key}\":null"),
        };
    }
}

fn write_caller(out: &mut String, call: &Call<'_>, domain_name: Option<&str>) {
    let caller = &call.caller;
    let name = serde_json::to_string(&domain_name).unwrap_or_default();
    let _ = write!(out, ",\"domain\":{},\"domain_name\":{name},\"vcpu\":{}", caller.domain, caller.vcpu);
    let _ = write!(out, ",\"mode\":\"{}\",\"cpl\":{}", mode_name(caller.mode), caller.cpl);
    let _ = write!(
        out,
        ",\"cs\":\"{:#x}\",\"rip\":\"{:#x}\",\"rsp\":\"{:#x}\"",
        caller.cs, caller.rip, caller.rsp
    );
}

fn write_what(out: &mut String, call: &Call<'_>) {
    let captured = call.captured();
    let identity = decode::identify(&xen::XEN, &captured);
    let number = call.registers.number;
    let _ = write!(out, ",\"hypercall\":\"{}\",\"number\":{number}", call_name(number));
    write_optional(out, "sub_op_number", identity.sub_op_number);
    match identity.sub_op {
        Some(sub_op) => {
            let _ = write!(out, ",\"sub_op\":\"{}\"", sub_op.name);
        }
        None => out.push_str(",\"sub_op\":null"),
    }
    out.push_str(",\"args\":");
    json::write_arguments(out, &xen::XEN, &captured);
    let mut separator = ",\"raw_args\":[";
    for arg in call.registers.args {
        let _ = write!(out, "{separator}\"{arg:#x}\"");
        separator = ",";
    }
    out.push(']');
}

fn write_outcome(out: &mut String, call: &Call<'_>) {
    let _ = write!(out, ",\"outcome\":\"{}\"", outcome_name(call.outcome));
    let result = call.outcome.result();
    write_optional(out, "result", result);
    match result.filter(|_| call.outcome.failed()) {
        Some(error) => {
            let _ = write!(out, ",\"errno\":\"{}\"", errno_name(-error));
        }
        None => out.push_str(",\"errno\":null"),
    }
    write_optional(out, "duration_ns", call.duration_ns);
    let _ = write!(out, ",\"cut\":{},\"injected\":{}", call.cut, call.intervention.injected);
    let verdict = call.intervention.verdict.map(|verdict| format!("\"{}\"", verdict.name()));
    write_optional(out, "verdict", verdict);
}

fn write_optional(out: &mut String, key: &str, value: Option<impl std::fmt::Display>) {
    let _ = match value {
        Some(value) => write!(out, ",\"{key}\":{value}"),
        None => write!(out, ",\"{key}\":null"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Outcome;
    use crate::testing::call;

    #[test]
    fn a_line_is_one_object_with_all_keys() {
        let failed = call(29, [0, 0, 0, 0, 0, u64::MAX], Outcome::Returned(-1));
        let mut out = String::new();
        write_line(&mut out, &failed, Some("a\"\n\u{1b}b"));
        assert!(!out.contains('\n'));
        let object: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["time"], "2023-11-14T22:13:20.000123456Z");
        assert_eq!(object["domain_name"], "a\"\n\u{1b}b");
        assert_eq!((&object["hypercall"], &object["sub_op"]), (&"sched_op".into(), &"SCHEDOP_yield".into()));
        assert_eq!((&object["result"], &object["errno"]), (&(-1).into(), &"EPERM".into()));
        assert_eq!(object["raw_args"][5], "0xffffffffffffffff");
        assert_eq!(object["parent"], serde_json::Value::Null);
        assert_eq!(object.as_object().unwrap().len(), 28);
    }

    #[test]
    fn unknown_calls_and_missing_ends_are_values_too() {
        let continues = Some(CallId { pcpu: 1, sequence: 2 });
        let strange = Call { continues, duration_ns: None, ..call(4711, [7; 6], Outcome::Unfinished) };
        let mut out = String::new();
        write_line(&mut out, &strange, None);
        let object: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["hypercall"], "hypercall_4711");
        assert_eq!(object["continues"]["sequence"], 2);
        let nulls = ["sub_op", "sub_op_number", "result", "errno", "duration_ns", "domain_name"];
        assert!(nulls.iter().all(|key| object[*key].is_null()));
    }
}
