//! `event_channel_op` (Xen public/event_channel.h).

use super::prelude::*;

enumeration!(STATUS = "state of a port" {
    0 => "EVTCHNSTAT_closed", 1 => "EVTCHNSTAT_unbound", 2 => "EVTCHNSTAT_interdomain",
    3 => "EVTCHNSTAT_pirq", 4 => "EVTCHNSTAT_virq", 5 => "EVTCHNSTAT_ipi",
});

enumeration!(pub(super) VIRQ = "virtual interrupts (public/xen.h)" {
    0 => "VIRQ_TIMER", 1 => "VIRQ_DEBUG", 2 => "VIRQ_CONSOLE", 3 => "VIRQ_DOM_EXC",
    4 => "VIRQ_TBUF", 6 => "VIRQ_DEBUGGER", 7 => "VIRQ_XENOPROF", 8 => "VIRQ_CON_RING",
    9 => "VIRQ_PCPU_STATE", 10 => "VIRQ_MEM_EVENT", 11 => "VIRQ_ARGO", 12 => "VIRQ_ENOMEM",
    13 => "VIRQ_XENPMU", 16 => "VIRQ_MCA", 17 => "VIRQ_ARCH_1", 18 => "VIRQ_ARCH_2",
    19 => "VIRQ_ARCH_3", 20 => "VIRQ_ARCH_4", 21 => "VIRQ_ARCH_5", 22 => "VIRQ_ARCH_6", 23 => "VIRQ_ARCH_7",
});

const VIRQ_NUMBER: Type = Type::enumeration(Int::U32, &VIRQ);

structure!(ALLOC_UNBOUND = "struct evtchn_alloc_unbound" {
    field("dom", Type::DOMID),
    field("remote_dom", Type::DOMID),
    field("port", Type::PORT).out(),
});
structure!(BIND_INTERDOMAIN = "struct evtchn_bind_interdomain" {
    field("remote_dom", Type::DOMID),
    field("remote_port", Type::PORT),
    field("local_port", Type::PORT).out(),
});
structure!(BIND_VIRQ = "struct evtchn_bind_virq" {
    field("virq", VIRQ_NUMBER),
    field("vcpu", Type::VCPU),
    field("port", Type::PORT).out(),
});
flag_set!(PIRQ_FLAGS = "BIND_PIRQ__*" { 1 => "BIND_PIRQ__WILL_SHARE" });
structure!(BIND_PIRQ = "struct evtchn_bind_pirq" {
    field("pirq", Type::U32),
    field("flags", Type::flags(Int::U32, &PIRQ_FLAGS)),
    field("port", Type::PORT).out(),
});
structure!(BIND_IPI = "struct evtchn_bind_ipi" {
    field("vcpu", Type::VCPU),
    field("port", Type::PORT).out(),
});
structure!(CLOSE = "struct evtchn_close" { field("port", Type::PORT) });
structure!(SEND = "struct evtchn_send" { field("port", Type::PORT) });
structure!(STATUS_UNBOUND = "evtchn_status_t.u.unbound" { field("dom", Type::DOMID).out() });
structure!(STATUS_INTERDOMAIN = "evtchn_status_t.u.interdomain" {
    field("dom", Type::DOMID).out(),
    field("port", Type::PORT).out(),
});
structure!(STATUS_OP = "struct evtchn_status" {
    field("dom", Type::DOMID),
    field("port", Type::PORT),
    field("status", Type::enumeration(Int::U32, &STATUS)).out(),
    field("vcpu", Type::VCPU).out(),
    field("u", Type::Union(&Union { tag: Tag::Field("status"), min_size: 0, cases: &[
        case(&[1], "unbound", Type::Struct(&STATUS_UNBOUND)),
        case(&[2], "interdomain", Type::Struct(&STATUS_INTERDOMAIN)),
        case(&[3], "pirq", Type::U32),
        case(&[4], "virq", VIRQ_NUMBER),
    ] })).out(),
});
structure!(BIND_VCPU = "struct evtchn_bind_vcpu" {
    field("port", Type::PORT),
    field("vcpu", Type::VCPU),
});
structure!(UNMASK = "struct evtchn_unmask" { field("port", Type::PORT) });
structure!(RESET = "struct evtchn_reset" { field("dom", Type::DOMID) });
structure!(INIT_CONTROL = "struct evtchn_init_control" {
    field("control_gfn", Type::FRAME64),
    field("offset", Type::U32),
    field("vcpu", Type::VCPU),
    field("link_bits", Type::U8).out(),
    field("_pad", Type::Bytes(7)),
});
structure!(EXPAND_ARRAY = "struct evtchn_expand_array" { field("array_gfn", Type::FRAME64) });
structure!(SET_PRIORITY = "struct evtchn_set_priority" {
    field("port", Type::PORT),
    field("priority", Type::U32),
});

const CMD: Arg = arg("cmd", Type::S32);

macro_rules! evtchn {
    ($number:literal, $name:literal, $direction:ident $structure:ident) => {
        op($number, $name, &[CMD, arg("arg", handle!($direction, Type::Struct(&$structure), Count::One))])
    };
}

pub(super) const EVENT_CHANNEL_OP: Hypercall = Hypercall {
    number: 32,
    name: "event_channel_op",
    args: &[CMD, arg("arg", Type::ADDRESS)],
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Arg { index: 0, mask: u32::MAX as u64 },
        ops: &[
            evtchn!(0, "EVTCHNOP_bind_interdomain", InOut BIND_INTERDOMAIN),
            evtchn!(1, "EVTCHNOP_bind_virq", InOut BIND_VIRQ),
            evtchn!(2, "EVTCHNOP_bind_pirq", InOut BIND_PIRQ),
            evtchn!(3, "EVTCHNOP_close", In CLOSE),
            evtchn!(4, "EVTCHNOP_send", In SEND),
            evtchn!(5, "EVTCHNOP_status", InOut STATUS_OP),
            evtchn!(6, "EVTCHNOP_alloc_unbound", InOut ALLOC_UNBOUND),
            evtchn!(7, "EVTCHNOP_bind_ipi", InOut BIND_IPI),
            evtchn!(8, "EVTCHNOP_bind_vcpu", In BIND_VCPU),
            evtchn!(9, "EVTCHNOP_unmask", In UNMASK),
            evtchn!(10, "EVTCHNOP_reset", In RESET),
            evtchn!(11, "EVTCHNOP_init_control", InOut INIT_CONTROL),
            evtchn!(12, "EVTCHNOP_expand_array", In EXPAND_ARRAY),
            evtchn!(13, "EVTCHNOP_set_priority", In SET_PRIORITY),
            // Only Xen itself calls it so, when it goes on with a reset that it interrupted.
            evtchn!(14, "EVTCHNOP_reset_cont", In RESET),
        ],
    }),
};

enumeration!(OPS = "EVTCHNOP_* of the compat call" {
    0 => "EVTCHNOP_bind_interdomain", 1 => "EVTCHNOP_bind_virq", 2 => "EVTCHNOP_bind_pirq",
    3 => "EVTCHNOP_close", 4 => "EVTCHNOP_send", 5 => "EVTCHNOP_status", 6 => "EVTCHNOP_alloc_unbound",
    7 => "EVTCHNOP_bind_ipi", 8 => "EVTCHNOP_bind_vcpu", 9 => "EVTCHNOP_unmask",
});

structure!(COMPAT_OP = "struct evtchn_op" {
    field("cmd", Type::enumeration(Int::U32, &OPS)),
    field("u", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0], "bind_interdomain", Type::Struct(&BIND_INTERDOMAIN)),
        case(&[1], "bind_virq", Type::Struct(&BIND_VIRQ)),
        case(&[2], "bind_pirq", Type::Struct(&BIND_PIRQ)),
        case(&[3], "close", Type::Struct(&CLOSE)),
        case(&[4], "send", Type::Struct(&SEND)),
        case(&[5], "status", Type::Struct(&STATUS_OP)),
        case(&[6], "alloc_unbound", Type::Struct(&ALLOC_UNBOUND)),
        case(&[7], "bind_ipi", Type::Struct(&BIND_IPI)),
        case(&[8], "bind_vcpu", Type::Struct(&BIND_VCPU)),
        case(&[9], "unmask", Type::Struct(&UNMASK)),
    ] })),
});

const COMPAT_ARGS: &[Arg] = &[arg("uop", handle!(InOut, Type::Struct(&COMPAT_OP), Count::One))];

pub(super) const EVENT_CHANNEL_OP_COMPAT: Hypercall = Hypercall {
    number: 16,
    name: "event_channel_op_compat",
    args: COMPAT_ARGS,
    returns: Show::Errno,
    sub_ops: Some(SubOps {
        from: SubOpFrom::Memory { index: 0 },
        ops: &[
            op(0, "EVTCHNOP_bind_interdomain", COMPAT_ARGS),
            op(1, "EVTCHNOP_bind_virq", COMPAT_ARGS),
            op(2, "EVTCHNOP_bind_pirq", COMPAT_ARGS),
            op(3, "EVTCHNOP_close", COMPAT_ARGS),
            op(4, "EVTCHNOP_send", COMPAT_ARGS),
            op(5, "EVTCHNOP_status", COMPAT_ARGS),
            op(6, "EVTCHNOP_alloc_unbound", COMPAT_ARGS),
            op(7, "EVTCHNOP_bind_ipi", COMPAT_ARGS),
            op(8, "EVTCHNOP_bind_vcpu", COMPAT_ARGS),
            op(9, "EVTCHNOP_unmask", COMPAT_ARGS),
        ],
    }),
};
