//! `sched_op` and its predecessor (Xen public/sched.h).

use super::prelude::*;

enumeration!(pub(super) SHUTDOWN = "enum sched_shutdown_reason" {
    0 => "SHUTDOWN_poweroff", 1 => "SHUTDOWN_reboot", 2 => "SHUTDOWN_suspend", 3 => "SHUTDOWN_crash",
    4 => "SHUTDOWN_watchdog", 5 => "SHUTDOWN_soft_reset",
});

structure!(SHUTDOWN_ARG = "struct sched_shutdown" {
    field("reason", Type::enumeration(Int::U32, &SHUTDOWN)),
});

structure!(POLL = "struct sched_poll" {
    field("ports", handle!(In, Type::PORT, Count::Field("nr_ports"))),
    field("nr_ports", Type::U32),
    field("timeout", Type::NANOSECONDS),
});

structure!(REMOTE_SHUTDOWN = "struct sched_remote_shutdown" {
    field("domain_id", Type::DOMID),
    field("reason", Type::enumeration(Int::U32, &SHUTDOWN)),
});

// The timeout is in seconds.
structure!(WATCHDOG = "struct sched_watchdog" {
    field("id", Type::U32),
    field("timeout", Type::U32),
});

structure!(PIN_OVERRIDE = "struct sched_pin_override" { field("pcpu", Type::S32) });

const CMD: Arg = arg("cmd", Type::S32);
const BY_CMD: SubOpFrom = SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 };

macro_rules! sched {
    ($number:literal, $name:literal, $structure:ident) => {
        op($number, $name, &[CMD, arg("arg", handle!(In, Type::Struct(&$structure), Count::One))])
    };
}

// A PV guest that suspends has the frame of its start info in the third register too. The tools look for it
// there, not this call, and all other guests leave something else in it: it is not shown.
pub(super) const SCHED_OP: Hypercall = Hypercall {
    number: 29,
    name: "sched_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: BY_CMD,
        ops: &[
            op(0, "SCHEDOP_yield", &[CMD]),
            op(1, "SCHEDOP_block", &[CMD]),
            sched!(2, "SCHEDOP_shutdown", SHUTDOWN_ARG),
            sched!(3, "SCHEDOP_poll", POLL),
            sched!(4, "SCHEDOP_remote_shutdown", REMOTE_SHUTDOWN),
            sched!(5, "SCHEDOP_shutdown_code", SHUTDOWN_ARG),
            // A new watchdog's id is returned.
            sched!(6, "SCHEDOP_watchdog", WATCHDOG).returning(Show::Dec),
            sched!(7, "SCHEDOP_pin_override", PIN_OVERRIDE),
        ],
    }),
};

pub(super) const SCHED_OP_COMPAT: Hypercall = Hypercall {
    number: 6,
    name: "sched_op_compat",
    args: &[CMD, arg("arg", Type::HEXLONG)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: BY_CMD,
        ops: &[
            op(0, "SCHEDOP_yield", &[CMD]),
            op(1, "SCHEDOP_block", &[CMD]),
            op(2, "SCHEDOP_shutdown", &[CMD, arg("reason", Type::enumeration(Int::Ulong, &SHUTDOWN))]),
        ],
    }),
};
