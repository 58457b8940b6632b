//! Calls that are not injected: what they do to the borrowed vCPU or its domain cannot be undone.

use crate::call::CallSpec;

/// Hypercalls by number (Xen public/xen.h), and why not.
const CALLS: [(u64, &str); 7] = [
    (0, "it replaces the guest's trap table"),
    (2, "it replaces the guest's descriptor table"),
    (3, "it moves the guest's kernel stack"),
    (4, "it replaces the guest's entry points"),
    (23, "it does not return to its caller"),
    (25, "it changes the guest's segment bases"),
    (28, "it replaces the guest's NMI handler"),
];

/// Sub-operations by hypercall and name, and why not.
const SUB_OPS: [(&str, &str, &str); 13] = [
    ("sched_op", "SCHEDOP_block", "the borrowed vCPU would sleep"),
    ("sched_op", "SCHEDOP_poll", "the borrowed vCPU could sleep"),
    ("sched_op", "SCHEDOP_shutdown", "it ends the domain"),
    ("event_channel_op", "EVTCHNOP_reset", "it closes all of the domain's event channels"),
    ("vcpu_op", "VCPUOP_initialise", "it replaces a vCPU's registers"),
    ("vcpu_op", "VCPUOP_down", "it stops a vCPU"),
    ("callback_op", "CALLBACKOP_register", "it replaces the guest's entry points"),
    ("callback_op", "CALLBACKOP_unregister", "it removes the guest's entry points"),
    ("domctl", "XEN_DOMCTL_destroydomain", "it destroys a domain"),
    ("domctl", "XEN_DOMCTL_setvcpucontext", "it replaces a vCPU's registers"),
    ("platform_op", "XENPF_enter_acpi_sleep", "it puts the machine to sleep"),
    ("kexec_op", "KEXEC_CMD_kexec", "it starts another kernel on the machine"),
    ("platform_op", "XENPF_cpu_offline", "it takes a CPU away"),
];

/// Why this call is not injected, if it is one that could not be undone. What Xen would refuse for its arguments is no
/// hazard: it is the nature of the call that counts, so a campaign that knows better says `force: true`.
#[must_use]
pub fn hazard(call: &CallSpec) -> Option<&'static str> {
    if let Some(why) = call.inner.iter().find_map(hazard) {
        return Some(why);
    }
    if let Some((_, why)) = CALLS.iter().find(|(number, _)| *number == call.number) {
        return Some(why);
    }
    let (hypercall, sub_op) = (call.hypercall()?, call.sub_op()?);
    let found = SUB_OPS.iter().find(|(call, name, _)| *call == hypercall.name && *name == sub_op.name);
    found.map(|(.., why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_name_in_the_list_exists_and_is_refused() {
        for (call, sub_op, why) in SUB_OPS {
            let spec = CallSpec::named(&format!("{call}/{sub_op}"), Value::Null).unwrap();
            assert_eq!(hazard(&spec), Some(why));
        }
        for (number, why) in CALLS {
            let spec = CallSpec::named(&number.to_string(), Value::Null).unwrap();
            assert!(spec.hypercall().is_some(), "{number}");
            assert_eq!(hazard(&CallSpec::multicall(vec![spec])), Some(why));
        }
        assert_eq!(hazard(&CallSpec::named("xen_version/XENVER_version", Value::Null).unwrap()), None);
    }
}
