//! Page tables of PV guests: `mmu_update`, `mmuext_op`, `update_va_mapping` (Xen public/xen.h).

use super::prelude::*;

const COMMAND_BITS: u64 = 3;

/// The low bits of a page table entry's address say what to do with it.
const PTR: FlagSet = FlagSet {
    name: "machine address of an entry, and MMU_*",
    bits: &[
        (COMMAND_BITS, 0, "MMU_NORMAL_PT_UPDATE"),
        (COMMAND_BITS, 1, "MMU_MACHPHYS_UPDATE"),
        (COMMAND_BITS, 2, "MMU_PT_UPDATE_PRESERVE_AD"),
        (COMMAND_BITS, 3, "MMU_PT_UPDATE_NO_TRANSLATE"),
    ],
    parts: &[],
};

structure!(MMU_UPDATE_ENTRY = "struct mmu_update" {
    field("ptr", Type::flags(Int::U64, &PTR)),
    field("val", Type::HEX64),
});

const PREEMPTED: u64 = 1 << 31;

/// Xen sets the topmost bit itself when it goes on with a call that it interrupted.
const COUNT: FlagSet = FlagSet {
    name: "number of requests",
    bits: &[(PREEMPTED, PREEMPTED, "MMU_UPDATE_PREEMPTED")],
    parts: &[(PREEMPTED - 1, "")],
};

/// How many requests there are, from argument 1.
const REQUESTS: Count = Count::Arg { index: 1, mask: PREEMPTED - 1 };

const LOW_HALF: u64 = 0xffff;

/// The owner of data pages, and in the upper half that of page tables.
const FOREIGN_DOMAINS: FlagSet = FlagSet {
    name: "whose pages (FD), and whose page tables (PFD)",
    bits: &[
        (LOW_HALF, 0x7ff0, "DOMID_SELF"),
        (LOW_HALF, 0x7ff1, "DOMID_IO"),
        (LOW_HALF, 0x7ff2, "DOMID_XEN"),
        (LOW_HALF, 0x7ff3, "DOMID_COW"),
        (LOW_HALF, 0x7ff4, "DOMID_INVALID"),
        (LOW_HALF, 0x7fff, "DOMID_IDLE"),
    ],
    parts: &[(LOW_HALF, ""), (0xffff_0000, "pfd_plus_1")],
};

pub(super) const MMU_UPDATE: Hypercall = Hypercall {
    number: 1,
    name: "mmu_update",
    args: &[
        arg("ureqs", handle!(In, Type::Struct(&MMU_UPDATE_ENTRY), REQUESTS)),
        arg("count", Type::flags(Int::U32, &COUNT)),
        arg("pdone", handle!(Out, Type::U32, Count::One)),
        arg("foreigndom", Type::flags(Int::U32, &FOREIGN_DOMAINS)),
    ],
    returns: Show::Errno,
    sub_ops: None,
};

enumeration!(MMUEXT = "enum mmuext_cmd" {
    0 => "MMUEXT_PIN_L1_TABLE", 1 => "MMUEXT_PIN_L2_TABLE", 2 => "MMUEXT_PIN_L3_TABLE",
    3 => "MMUEXT_PIN_L4_TABLE", 4 => "MMUEXT_UNPIN_TABLE", 5 => "MMUEXT_NEW_BASEPTR",
    6 => "MMUEXT_TLB_FLUSH_LOCAL", 7 => "MMUEXT_INVLPG_LOCAL", 8 => "MMUEXT_TLB_FLUSH_MULTI",
    9 => "MMUEXT_INVLPG_MULTI", 10 => "MMUEXT_TLB_FLUSH_ALL", 11 => "MMUEXT_INVLPG_ALL",
    12 => "MMUEXT_FLUSH_CACHE", 13 => "MMUEXT_SET_LDT", 15 => "MMUEXT_NEW_USER_BASEPTR",
    16 => "MMUEXT_CLEAR_PAGE", 17 => "MMUEXT_COPY_PAGE", 18 => "MMUEXT_FLUSH_CACHE_GLOBAL",
    19 => "MMUEXT_MARK_SUPER", 20 => "MMUEXT_UNMARK_SUPER",
});

// The mask has a bit per vCPU of the domain. Nothing in the call tells how many there are: its first word is shown.
structure!(MMUEXT_ENTRY = "struct mmuext_op" {
    field("cmd", Type::enumeration(Int::U32, &MMUEXT)),
    field("arg1", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[0, 1, 2, 3, 4, 5, 15, 16, 17, 19, 20], "mfn", Type::PFN),
        case(&[7, 9, 11, 13], "linear_addr", Type::ADDRESS),
    ] })),
    field("arg2", Type::Union(&Union { tag: Tag::Field("cmd"), min_size: 0, cases: &[
        case(&[13], "nr_ents", Type::U32),
        case(&[8, 9], "vcpumask", handle!(In, Type::HEXLONG, Count::One)),
        case(&[17], "src_mfn", Type::PFN),
    ] })),
});

pub(super) const MMUEXT_OP: Hypercall = Hypercall {
    number: 26,
    name: "mmuext_op",
    args: &[
        arg("uops", handle!(In, Type::Struct(&MMUEXT_ENTRY), REQUESTS)),
        arg("count", Type::flags(Int::U32, &COUNT)),
        arg("pdone", handle!(Out, Type::U32, Count::One)),
        arg("foreigndom", Type::DOMID),
    ],
    returns: Show::Errno,
    sub_ops: None,
};

const FLUSH_TYPE: u64 = 3;

/// With `UVMF_MULTI`, which is 0, the other bits are a pointer to a bitmap of vCPUs; null is `UVMF_LOCAL`.
const UVMF: FlagSet = FlagSet {
    name: "enum uvm_flags",
    bits: &[
        (FLUSH_TYPE, 0, "UVMF_NONE"),
        (FLUSH_TYPE, 1, "UVMF_TLB_FLUSH"),
        (FLUSH_TYPE, 2, "UVMF_INVLPG"),
        (4, 4, "UVMF_ALL"),
    ],
    parts: &[],
};

const VA: Arg = arg("va", Type::ADDRESS);
const VAL: Arg = arg("val", Type::HEX64);
const FLAGS: Arg = arg("flags", Type::flags(Int::Ulong, &UVMF));

pub(super) const UPDATE_VA_MAPPING: Hypercall = Hypercall {
    number: 14,
    name: "update_va_mapping",
    args: &[VA, VAL, FLAGS],
    returns: Show::Errno,
    sub_ops: None,
};

pub(super) const UPDATE_VA_MAPPING_OTHERDOMAIN: Hypercall = Hypercall {
    number: 22,
    name: "update_va_mapping_otherdomain",
    args: &[VA, VAL, FLAGS, arg("domid", Type::DOMID)],
    returns: Show::Errno,
    sub_ops: None,
};
