//! The numbers of hypercalls and sub-ops, from the headers' `#define` lines.

use std::fs;

use crate::exceptions;
use crate::trees::Tree;

/// The sub-ops of one call.
pub struct Family {
    /// The call, as the table has it.
    pub call: &'static str,
    /// Where they are defined, below `xen/`.
    pub header: &'static str,
    /// What their names begin with.
    pub prefix: &'static str,
    /// Whether a lower-case letter must follow; names in capitals are something else there.
    pub lower_case: bool,
    /// Prefixes of further names that are something else.
    pub except: &'static [&'static str],
}

const fn family(call: &'static str, header: &'static str, prefix: &'static str) -> Family {
    Family { call, header, prefix, lower_case: false, except: &[] }
}

impl Family {
    const fn lower_case(mut self) -> Self {
        self.lower_case = true;
        self
    }

    const fn except(mut self, prefixes: &'static [&'static str]) -> Self {
        self.except = prefixes;
        self
    }
}

/// Every call with sub-ops.
pub const FAMILIES: &[Family] = &[
    family("memory_op", "memory.h", "XENMEM_").lower_case().except(&[
        "XENMEM_paging_op_",
        "XENMEM_access_op_",
        "XENMEM_sharing_op_",
        "XENMEM_resource_",
    ]),
    family("event_channel_op", "event_channel.h", "EVTCHNOP_"),
    family("event_channel_op_compat", "event_channel.h", "EVTCHNOP_").except(&[
        // Newer than the compat call.
        "EVTCHNOP_reset",
        "EVTCHNOP_init_control",
        "EVTCHNOP_expand_array",
        "EVTCHNOP_set_priority",
    ]),
    family("xen_version", "version.h", "XENVER_"),
    family("console_io", "xen.h", "CONSOLEIO_"),
    family("vm_assist", "xen.h", "VMASST_CMD_"),
    family("grant_table_op", "grant_table.h", "GNTTABOP_"),
    family("vcpu_op", "vcpu.h", "VCPUOP_"),
    family("sched_op", "sched.h", "SCHEDOP_"),
    family("nmi_op", "nmi.h", "XENNMI_"),
    family("callback_op", "callback.h", "CALLBACKOP_"),
    family("physdev_op", "physdev.h", "PHYSDEVOP_").except(&["PHYSDEVOP_DBGP_"]),
    family("hvm_op", "hvm/hvm_op.h", "HVMOP_").lower_case(),
    family("sysctl", "sysctl.h", "XEN_SYSCTL_").lower_case(),
    family("domctl", "domctl.h", "XEN_DOMCTL_").lower_case(),
    family("platform_op", "platform.h", "XENPF_").lower_case(),
    family("kexec_op", "kexec.h", "KEXEC_CMD_"),
    family("argo_op", "argo.h", "XEN_ARGO_OP_").lower_case(),
    family("xenpmu_op", "pmu.h", "XENPMU_").lower_case(),
    family("dm_op", "hvm/dm_op.h", "XEN_DMOP_").lower_case(),
    family("hypfs_op", "hypfs.h", "XEN_HYPFS_OP_").lower_case(),
    family("xenoprof_op", "xenoprof.h", "XENOPROF_").lower_case(),
    family("xsm_op", "xsm/flask_op.h", "FLASK_"),
    family("arch_0", "arch-x86/xen-mca.h", "XEN_MC_").lower_case(),
];

/// `__HYPERVISOR_*` with a number, without the prefix.
pub fn hypercalls(tree: &Tree) -> Vec<(String, u64)> {
    numbered(tree, "xen.h", "__HYPERVISOR_")
        .into_iter()
        .map(|(name, number)| (name.trim_start_matches("__HYPERVISOR_").to_owned(), number))
        .collect()
}

/// Names and numbers of a family's sub-ops.
pub fn of_family(tree: &Tree, family: &Family) -> Vec<(String, u64)> {
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
    let path = tree.include.join("xen").join(header);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
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
