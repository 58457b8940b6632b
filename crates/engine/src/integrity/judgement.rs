//! What to think of what the sensor tells.

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_integrity::{Finding, Item};

/// What to think of a register that L1 set otherwise than while it booted.
#[must_use]
pub fn judge(change: &SystemChange) -> Finding {
    let SystemChange { register, before, now, rip } = change;
    let name = register.name();
    if *register == SystemRegister::Vmcb {
        let own = match before {
            0 => "L1 has none there".to_owned(),
            own => format!("that of the vCPU which L1 says it runs is at {own:#x}"),
        };
        let message = format!("VMRUN at {rip:#x} runs the control block at {now:#x}; {own}");
        return Finding::tampering(Item::Vmrun, name, message).at(*rip, 0);
    }
    match register {
        SystemRegister::GuestFrame => return judge_call(change),
        SystemRegister::GuestStack => return judge_stack(change),
        SystemRegister::Untold => return untold(*now),
        SystemRegister::WritesUnseen => {
            let message = "writes to the hypervisor's code are no longer told: it is only looked at, ten times a second";
            let settle = "the line that QEMU's sensor printed, which says why";
            return Finding::unknown(Item::Watch, name, message, settle);
        }
        SystemRegister::UsedVmcb => {
            let message = format!("VMRUN at {rip:#x} runs the control block at {now:#x}");
            let settle = "whether it belongs to a vCPU that L1 lists";
            return Finding::unknown(Item::Vmrun, name, message, settle).at(*rip, 0);
        }
        SystemRegister::Syscalls | SystemRegister::Vmmcalls => return judge_missing(change),
        SystemRegister::Code | SystemRegister::ForeignCode => {
            let message = format!("code was executed at {rip:#x} that was not there when L1 had booted");
            return Finding::unknown(Item::Text, name, message, "what L1's memory holds there").at(*rip, 0);
        }
        SystemRegister::GuestExit => return judge_exit(change),
        _ => {}
    }
    let by = if rip.0 == 0 { String::new() } else { format!(" by the code at {rip:#x}") };
    let message = format!("{name} was set to {now:#x}{by}; while L1 booted it was {before:#x}");
    Finding::tampering(Item::Registers, name, message).at(*rip, 0)
}

/// What to think of a call of a handler that does not come from where guests' calls do.
fn judge_call(change: &SystemChange) -> Finding {
    let SystemChange { register, before, now, rip } = change;
    let caller = format!("a handler of hypercalls was called by the code before {rip:#x}");
    if before == now {
        let message = format!("{caller}, in the name of the guest that runs");
        let settle = "what that code is: L1's own way from a guest to the handler, or somebody else's";
        return Finding::unknown(Item::Hypercalls, register.name(), message, settle).at(*rip, 0);
    }
    let message = format!("{caller}, with registers at {now:#x}; guests have theirs at {before:#x}");
    Finding::tampering(Item::Hypercalls, register.name(), message).at(*rip, 0)
}

/// What to think of a processor that has another stack.
fn judge_stack(change: &SystemChange) -> Finding {
    let SystemChange { register, before, now, rip } = change;
    let message =
        format!("a guest's call has its registers at {now:#x}; those of that processor were at {before:#x}");
    let settle = "whether L1 took the processor offline meanwhile, or the machine was set back by loadvm";
    Finding::unknown(Item::Hypercalls, register.name(), message, settle).at(*rip, 0)
}

/// There was more than can be told.
fn untold(count: u64) -> Finding {
    let message = "more was noticed at once than can be told";
    let settle = "what was told at that time";
    Finding::unknown(Item::Watch, SystemRegister::Untold.name(), message, settle)
        .compared(Vec::new(), vec![format!("{count} changes were not told")])
}

/// What to think of guests that did not leave to the instruction behind VMRUN.
fn judge_exit(change: &SystemChange) -> Finding {
    let SystemChange { register, before, now, rip } = change;
    let message = match (before, now) {
        (0, ..=1) => {
            let message = format!("a guest did not leave to the instruction behind the VMRUN at {rip:#x}");
            let settle = "whether the machine was set back to an earlier state just then, such as by loadvm";
            return Finding::unknown(Item::Vmrun, register.name(), message, settle).at(*rip, 0);
        }
        (0, _) => {
            format!("two guests in a row did not leave to the instruction behind the VMRUN at {rip:#x}")
        }
        (elsewhere, _) => format!("a guest left to {elsewhere:#x}, not to the instruction behind its VMRUN"),
    };
    Finding::tampering(Item::Vmrun, register.name(), message).at(*rip, 0)
}

/// What to think of calls that guests made and that reached no hook.
fn judge_missing(change: &SystemChange) -> Finding {
    let SystemChange { register, now, .. } = change;
    let name = register.name();
    let message = format!("{now} times, {name} of a guest reached no hook: those hypercalls were not seen");
    if *register == SystemRegister::Syscalls {
        let settle = "whether a guest has programs execute SYSCALL in its kernel's half, or is hardware-virtualised and does so itself: those \
                      are no hypercalls; what else is told meanwhile";
        return Finding::unknown(Item::Hypercalls, name, message, settle);
    }
    Finding::tampering(Item::Hypercalls, name, message)
}
