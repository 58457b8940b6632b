//! The numbers of hypercalls and sub-ops, from the headers' `#define` lines.

use std::fs;

use crate::exceptions;
use crate::trees::Tree;

/// The sub-ops of one call.
pub(crate) struct Family {
    /// The call, as the table has it.
    pub(crate) call: &'static str,
    /// Where they are defined, below `xen/`.
    pub(crate) header: &'static str,
    /// What their names begin with.
    pub(crate) prefix: &'static str,
    /// Whether a lower-case letter must follow; names in capitals are something else there.
    pub(crate) lower_case: bool,
    /// Prefixes of further names that are something else.
    pub(crate) except: &'static [&'static str],
    /// The first and the last number that the call must have: a call that has a successor got no new ones.
    pub(crate) numbers: (u64, u64),
}

const fn family(call: &'static str, header: &'static str, prefix: &'static str) -> Family {
    Family { call, header, prefix, lower_case: false, except: &[], numbers: (0, u64::MAX) }
}

impl Family {
    const fn lower_case(mut self) -> Self {
        self.lower_case = true;
        self
    }

    const fn numbers(mut self, first: u64, last: u64) -> Self {
        self.numbers = (first, last);
        self
    }

    /// Whether the call must have the sub-op of this number.
    pub(crate) const fn requires(&self, number: u64) -> bool {
        self.numbers.0 <= number && number <= self.numbers.1
    }

    const fn except(mut self, prefixes: &'static [&'static str]) -> Self {
        self.except = prefixes;
        self
    }
}

/// Every call with sub-ops.
pub(crate) const FAMILIES: &[Family] = &[
    family("memory_op", "memory.h", "XENMEM_").lower_case().except(&[
        "XENMEM_paging_op_",
        "XENMEM_access_op_",
        "XENMEM_sharing_op_",
        "XENMEM_resource_",
    ]),
    family("event_channel_op", "event_channel.h", "EVTCHNOP_"),
    family("event_channel_op_compat", "event_channel.h", "EVTCHNOP_").numbers(0, 9),
    family("xen_version", "version.h", "XENVER_"),
    family("console_io", "xen.h", "CONSOLEIO_"),
    family("vm_assist", "xen.h", "VMASST_CMD_"),
    family("grant_table_op", "grant_table.h", "GNTTABOP_"),
    family("vcpu_op", "vcpu.h", "VCPUOP_"),
    family("sched_op", "sched.h", "SCHEDOP_"),
    family("sched_op_compat", "sched.h", "SCHEDOP_").numbers(0, 2),
    family("nmi_op", "nmi.h", "XENNMI_"),
    family("callback_op", "callback.h", "CALLBACKOP_"),
    family("physdev_op", "physdev.h", "PHYSDEVOP_").except(&["PHYSDEVOP_DBGP_"]),
    family("physdev_op_compat", "physdev.h", "PHYSDEVOP_").except(&["PHYSDEVOP_DBGP_"]).numbers(5, 11),
    family("hvm_op", "hvm/hvm_op.h", "HVMOP_").lower_case().except(&["HVMOP_altp2m_"]),
    family("sysctl", "sysctl.h", "XEN_SYSCTL_").lower_case().except(&[
        "XEN_SYSCTL_cpu_featureset_",
        "XEN_SYSCTL_cpu_policy_",
        "XEN_SYSCTL_pm_op_",
    ]),
    family("domctl", "domctl.h", "XEN_DOMCTL_").lower_case().except(&[
        "XEN_DOMCTL_vmtrace_disable",
        "XEN_DOMCTL_vmtrace_enable",
        "XEN_DOMCTL_vmtrace_get_option",
        "XEN_DOMCTL_vmtrace_output_position",
        "XEN_DOMCTL_vmtrace_reset_and_enable",
        "XEN_DOMCTL_vmtrace_set_option",
    ]),
    family("platform_op", "platform.h", "XENPF_").lower_case(),
    family("kexec_op", "kexec.h", "KEXEC_CMD_"),
    family("argo_op", "argo.h", "XEN_ARGO_OP_").lower_case(),
    family("xenpmu_op", "pmu.h", "XENPMU_").lower_case(),
    family("dm_op", "hvm/dm_op.h", "XEN_DMOP_").lower_case(),
    family("hypfs_op", "hypfs.h", "XEN_HYPFS_OP_").lower_case(),
    family("xenoprof_op", "xenoprof.h", "XENOPROF_").lower_case(),
    family("xsm_op", "xsm/flask_op.h", "FLASK_"),
    family("mca", "arch-x86/xen-mca.h", "XEN_MC_").lower_case(),
];

/// Lists of values and flags that the tables must have in full: header below `xen/`, prefix of the names.
pub(crate) const LISTS: &[(&str, &str)] = &[
    ("xen.h", "VIRQ_"),
    ("xen.h", "MMU_"),
    ("xen.h", "MMUEXT_"),
    ("xen.h", "UVMF_"),
    ("xen.h", "VMASST_TYPE_"),
    ("arch-x86/xen.h", "VGCF_"),
    ("arch-x86/xen-x86_64.h", "SEGBASE_"),
    ("memory.h", "XENMEMF_"),
    ("memory.h", "XENMAPSPACE_"),
    ("memory.h", "XENMEM_paging_op_"),
    ("memory.h", "XENMEM_access_op_"),
    ("memory.h", "XENMEM_sharing_op_"),
    ("memory.h", "XENMEM_resource_"),
    ("memory.h", "XENMEM_FORK_"),
    ("memory.h", "XENMEM_RDM_"),
    ("grant_table.h", "GNTST_"),
    ("grant_table.h", "GNTMAP_"),
    ("grant_table.h", "GNTCOPY_"),
    ("grant_table.h", "GNTTAB_CACHE_"),
    ("event_channel.h", "EVTCHNSTAT_"),
    ("event_channel.h", "BIND_PIRQ__"),
    ("sched.h", "SHUTDOWN_"),
    ("vcpu.h", "RUNSTATE_"),
    ("vcpu.h", "VCPU_SSHOTTMR_"),
    ("callback.h", "CALLBACKTYPE_"),
    ("callback.h", "CALLBACKF_"),
    ("features.h", "XENFEAT_"),
    ("domctl.h", "XEN_DOMCTL_CDF_"),
    ("domctl.h", "XEN_DOMCTL_IOMMU_"),
    ("domctl.h", "XEN_DOMCTL_ALTP2M_"),
    ("domctl.h", "XEN_DOMINF_"),
    ("domctl.h", "XEN_DOMCTL_PFINFO_"),
    ("domctl.h", "XEN_DOMCTL_SHADOW_"),
    ("domctl.h", "XEN_SCHEDULER_"),
    ("domctl.h", "XEN_DOMCTL_SCHEDOP_"),
    ("domctl.h", "XEN_DOMCTL_SCHEDRT_"),
    ("domctl.h", "XEN_VCPUAFFINITY_"),
    ("domctl.h", "XEN_DOMCTL_GSI_"),
    ("domctl.h", "XEN_DOMCTL_SENDTRIGGER_"),
    ("domctl.h", "XEN_DOMCTL_DEV_"),
    ("domctl.h", "XEN_DOMCTL_VMSI_"),
    ("domctl.h", "DPCI_"),
    ("domctl.h", "XEN_DOMCTL_DEBUG_OP_"),
    ("domctl.h", "XEN_VM_EVENT_"),
    ("domctl.h", "XEN_DOMCTL_VM_EVENT_OP_"),
    ("domctl.h", "XEN_DOMCTL_MEM_SHARING_"),
    ("domctl.h", "XEN_DOMCTL_PSR_"),
    ("domctl.h", "XEN_DOMCTL_MONITOR_"),
    ("domctl.h", "XEN_DOMCTL_VUART_"),
    ("domctl.h", "XEN_DOMCTL_vmtrace_"),
    ("arch-x86/xen.h", "XEN_X86_"),
    ("hvm/hvm_op.h", "HVMOP_altp2m_"),
    ("hvm/hvm_op.h", "HVM_IOREQSRV_"),
    ("hvm/params.h", "HVM_PARAM_"),
    ("hvm/params.h", "HVMPV_"),
    ("hvm/params.h", "HVMPTM_"),
    ("hvm/params.h", "XEN_ALTP2M_"),
    ("hvm/params.h", "XEN_HVM_MCA_CAP_"),
    ("hvm/dm_op.h", "XEN_DMOP_IOREQ_"),
    ("hvm/dm_op.h", "XEN_DMOP_MEM_"),
    ("hvm/dm_op.h", "XEN_DMOP_DELETE_"),
];

/// Names that a list must have: constants, not macros with arguments, and not masks.
pub(crate) fn of_list(tree: &Tree, header: &str, prefix: &str) -> Vec<String> {
    let text = read(tree, header);
    let names = text.lines().filter_map(|line| {
        let mut words = line.trim_start().strip_prefix("#define")?.split_whitespace();
        let name = words.next().filter(|name| name.starts_with(prefix))?;
        words.next()?;
        Some(name.to_owned())
    });
    let wanted = |name: &String| {
        !name.contains('(')
            && !name.to_lowercase().ends_with("mask")
            && !exceptions::NOT_IN_LISTS.iter().any(|(other, _)| other == name)
    };
    names.filter(wanted).collect()
}

fn read(tree: &Tree, header: &str) -> String {
    let path = tree.include.join("xen").join(header);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `__HYPERVISOR_*` with a number, without the prefix.
pub(crate) fn hypercalls(tree: &Tree) -> Vec<(String, u64)> {
    numbered(tree, "xen.h", "__HYPERVISOR_")
        .into_iter()
        .map(|(name, number)| {
            let name = name.trim_start_matches("__HYPERVISOR_");
            let renamed = exceptions::RENAMED.iter().find(|(old, ..)| *old == name);
            (renamed.map_or(name, |(_, new, _)| new).to_owned(), number)
        })
        .collect()
}

/// Names and numbers of a family's sub-ops.
pub(crate) fn of_family(tree: &Tree, family: &Family) -> Vec<(String, u64)> {
    let mut found = numbered(tree, family.header, family.prefix);
    found.retain(|(name, _)| {
        let rest = &name[family.prefix.len()..];
        let other_case = family.lower_case && !rest.starts_with(|c: char| c.is_ascii_lowercase());
        !other_case
            && !family.except.iter().any(|prefix| name.starts_with(prefix))
            && !exceptions::NOT_SUB_OPS.iter().any(|(other, _)| other == name)
    });
    found
}

/// `#define <prefix>… <number>` lines of a header.
fn numbered(tree: &Tree, header: &str, prefix: &str) -> Vec<(String, u64)> {
    read(tree, header)
        .lines()
        .filter_map(|line| {
            let mut words = line.trim_start().strip_prefix("#define")?.split_whitespace();
            let name = words.next().filter(|name| name.starts_with(prefix))?;
            Some((name.to_owned(), number(words.next()?)?))
        })
        .collect()
}

fn number(word: &str) -> Option<u64> {
    let word = word.trim_matches(['(', ')']).trim_end_matches(['u', 'U', 'l', 'L']);
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}
