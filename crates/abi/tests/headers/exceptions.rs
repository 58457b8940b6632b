//! Where the tables differ from the headers on purpose, each with the reason.

/// Structs that the headers do not name.
pub(crate) const STRUCTS: &[(&str, &str)] =
    &[("e820entry", "memory.h refers to the BIOS's format and does not declare it")];

/// Members that C cannot be asked about: `(struct, member, reason)`.
pub(crate) const MEMBERS: &[(&str, &str, &str)] = &[];

/// Members that another version has elsewhere, where the tables follow 4.20: `(struct, member, reason)`.
pub(crate) const CHANGED_MEMBERS: &[(&str, &str, &str)] = &[
    (
        "struct xen_get_cpufreq_para",
        "u",
        "in 4.17 the name of what is u.s.u in 4.20, at the same offset; both call themselves sysctl interface 0x15",
    ),
    (
        "struct xen_domctl",
        "u.createdomain",
        "a union in the table: interface version 0x17 made the struct longer. Both forms are compared by themselves",
    ),
];

/// Hypercalls that a second header gives a better name: `(name in xen.h, name in the table, reason)`.
pub(crate) const RENAMED: &[(&str, &str, &str)] =
    &[("arch_0", "mca", "arch-x86/xen-mca.h calls it __HYPERVISOR_mca")];

/// Names of values and sub-ops that the headers have only in comments, or not at all.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("MMU_UPDATE_PREEMPTED", "only Xen itself sets it: it is defined in xen/arch/x86/mm.c"),
    ("XENFEAT_grant_map_identity", "deprecated: the define stands in a comment"),
    ("XEN_DOMCTL_SHADOW_OP_ENABLE_TRANSLATE", "no longer supported: the define stands in a comment"),
    ("XEN_DOMCTL_soft_reset_cont", "only Xen itself calls it so: defined for __XEN__"),
    ("LAPIC_REGS", SAVE_TYPE),
    ("PCI_IRQ", SAVE_TYPE),
    ("ISA_IRQ", SAVE_TYPE),
    ("PCI_LINK", SAVE_TYPE),
    ("VIRIDIAN_DOMAIN", SAVE_TYPE),
    ("VIRIDIAN_VCPU", SAVE_TYPE),
    ("VMCE_VCPU", SAVE_TYPE),
    ("TSC_ADJUST", SAVE_TYPE),
];

const SAVE_TYPE: &str = "an argument of DECLARE_HVM_SAVE_TYPE, not a constant";

/// Constants whose value differs between versions, where the tables have that of 4.20.
pub(crate) const CHANGED: &[(&str, &str)] =
    &[("XENMEM_access_default", "10 in 4.17, which has no XENMEM_access_r_pw")];

/// Constants that begin like a sub-op and are none.
pub(crate) const NOT_SUB_OPS: &[(&str, &str)] =
    &[("XENOPROF_last_op", "a bound"), ("XEN_DMOP_no_gfns", "a flag of XEN_DMOP_get_ioreq_server_info")];

/// Constants that begin like the names of a list, and are not among its values.
pub(crate) const NOT_IN_LISTS: &[(&str, &str)] = &[
    ("VIRQ_ARCH_0", "VIRQ_MCA on x86"),
    ("VGCF_I387_VALID", "the older name of VGCF_i387_valid"),
    ("VGCF_IN_KERNEL", "the older name of VGCF_in_kernel"),
    ("UVMF_MULTI", "is 0: what remains is a pointer"),
    ("UVMF_LOCAL", "is 0: what remains is a null pointer"),
    ("SHUTDOWN_MAX", "a bound"),
    ("XENFEAT_NR_SUBMAPS", "a bound"),
    ("XEN_DOMCTL_CDF_MAX", "a bound"),
    ("XEN_DOMCTL_IOMMU_MAX", "a bound"),
    ("XEN_X86_MISC_FLAGS_MAX", "a bound"),
    ("XEN_X86_EMU_ALL", "all of them"),
    ("XEN_DOMINF_shutdownshift", "where a number stands"),
    ("XEN_DOMCTL_PFINFO_LTAB_SHIFT", "where a number stands"),
    ("XEN_DOMCTL_PFINFO_NOTAB", "is 0: what remains is a number"),
    ("HVM_PARAM_CALLBACK_TYPE_GSI", "a part of a value"),
    ("HVM_PARAM_CALLBACK_TYPE_PCI_INTX", "a part of a value"),
    ("HVM_PARAM_CALLBACK_TYPE_VECTOR", "a part of a value"),
    ("HVM_PARAM_CALLBACK_TYPE_PPI", "for Arm"),
    ("HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_LOW_LEVEL", "for Arm"),
];
