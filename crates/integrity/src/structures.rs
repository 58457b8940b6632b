//! Where Xen's structures have the fields that the checks read, from the symbols file's DWARF.

use std::collections::HashMap;

use hypovisor_l1::{DwarfError, SymbolFile};

const WANTED: &[(&str, &[&str])] = &[
    ("payload", &["list", "text_addr", "text_size", "funcs", "nfuncs", "state", "name"]),
    ("livepatch_func", &["new_addr", "old_addr", "new_size", "old_size"]),
    (
        "domain",
        &[
            "domain_id",
            "vcpu",
            "max_vcpus",
            "options",
            "is_dying",
            "next_in_list",
            "next_in_hashbucket",
            "arch.emulation_flags",
        ],
    ),
    ("vcpu", &["vcpu_id", "domain", "processor", "is_running", "arch.hvm.svm.vmcb_pa"]),
    ("cpu_info", &["guest_cpu_user_regs", "current_vcpu", "processor_id"]),
];

/// Offsets in bytes.
#[derive(Clone, Debug, Default)]
pub struct Structures(HashMap<(&'static str, &'static str), u32>);

impl Structures {
    /// Reads them; empty if the file has no DWARF.
    ///
    /// # Errors
    /// When there is DWARF, but it is broken.
    pub fn read(file: &SymbolFile<'_>) -> Result<Self, DwarfError> {
        file.offsets(WANTED).map(Self)
    }

    /// Of a made-up L1.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn made_up(offsets: &[(&'static str, &'static str, u32)]) -> Self {
        let offsets = offsets.iter().map(|(structure, member, offset)| ((*structure, *member), *offset));
        Self(offsets.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn offset(&self, structure: &'static str, member: &'static str) -> Option<u64> {
        self.0.get(&(structure, member)).copied().map(u64::from)
    }

    /// In bytes.
    pub(crate) fn size(&self, structure: &'static str) -> Option<u64> {
        self.offset(structure, "")
    }
}
