//! Whose the control blocks are that L1's own VMRUN runs: of a vCPU that L1 lists, or of nobody.

use std::collections::{HashMap, HashSet};

use hypovisor_integrity::{Finding, Item, Structures, Target, domains};
use hypovisor_machine::{Gpa, Gva, PhysicalMemory};

use super::{MAX_TOLD, Noticed};

/// Control blocks that belonged to nobody when they were looked for, and whether that was told.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<Gpa, bool>);

impl Owners {
    /// Looks for the owners of those that were used. One that has none is told when it is used once more: its guest may
    /// just have ended.
    pub(super) fn look<M: PhysicalMemory>(
        &mut self,
        target: &Target<'_, M>,
        structures: &Structures,
        noticed: &[Noticed],
    ) -> Vec<Finding> {
        let used: Vec<(Gpa, Gva)> = noticed.iter().filter_map(Noticed::vmcb).collect();
        if used.is_empty() {
            return Vec::new();
        }
        // L1's lists only: a domain that is in none of them is hidden, and so is what it runs.
        let Ok(domains) = domains::find(target, structures, &[]) else { return Vec::new() };
        let listed = domains.iter().filter(|domain| !domain.is_hidden());
        let owned: HashSet<Gpa> =
            listed.flat_map(|domain| &domain.vcpus).filter_map(|vcpu| vcpu.vmcb).map(Gpa).collect();
        self.judge(&used, &owned)
    }

    fn judge(&mut self, used: &[(Gpa, Gva)], owned: &HashSet<Gpa>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (vmcb, rip) in used {
            if owned.contains(vmcb) {
                self.0.remove(vmcb);
                continue;
            }
            if self.0.len() >= MAX_TOLD {
                self.0.clear();
            }
            match self.0.get_mut(vmcb) {
                None => {
                    self.0.insert(*vmcb, false);
                }
                Some(told) if !*told => {
                    *told = true;
                    findings.push(foreign(*vmcb, *rip));
                }
                Some(_) => {}
            }
        }
        findings
    }
}

fn foreign(vmcb: Gpa, rip: Gva) -> Finding {
    let message = format!(
        "VMRUN at {rip:#x} runs the control block at {:#x}, which belongs to no vCPU that L1 lists",
        vmcb.0
    );
    Finding::tampering(Item::Vmrun, "VMCB", message).at(rip, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_an_owner_is_told_once_when_it_is_used_again() {
        let (mut owners, nobody) = (Owners::default(), HashSet::new());
        let used = [(Gpa(0x5000), Gva(0x1000))];
        assert!(owners.judge(&used, &nobody).is_empty(), "its guest may just have ended");
        assert_eq!(owners.judge(&used, &nobody).len(), 1);
        assert!(owners.judge(&used, &nobody).is_empty());
    }

    #[test]
    fn one_that_has_an_owner_is_not_told() {
        let mut owners = Owners::default();
        let (used, owned) = ([(Gpa(0x5000), Gva(0x1000))], HashSet::from([Gpa(0x5000)]));
        assert!(owners.judge(&used, &HashSet::new()).is_empty(), "its guest was being made");
        assert!(owners.judge(&used, &owned).is_empty());
        assert!(owners.judge(&used, &HashSet::new()).is_empty(), "what was before is forgotten");
    }
}
