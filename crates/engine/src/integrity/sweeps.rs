//! What is looked at when, and what of it is new.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hypovisor_integrity::{
    Baseline, Changes, Finding, LivePatches, Reference, Report, Structures, Target, changed_code, check,
    check_domains, check_state, foreign_code, holds,
};
use hypovisor_machine::{Gpa, Gva};

use super::notices::{ExecutedCode, Noticed};
use super::owners::Owners;
use super::pages::ChangedPages;
use super::told::{Known, key, subject};
use super::{MAX_TOLD, Memory};
use crate::inspect::RunningMachine;

/// Between two looks at what L1 changes as it runs.
const STATE_PERIOD: Duration = Duration::from_secs(1);
/// Between two searches of all memory.
const SEARCH_PERIOD: Duration = Duration::from_secs(30);
/// Until a second look, as long as L1 may take for what it does in several steps, such as applying a live patch.
const SECOND_LOOK: Duration = Duration::from_millis(20);
/// Between two reports that the same page was written to, or code at the same place was executed, and put back.
const WRITE_PERIOD: Duration = Duration::from_secs(1);

/// What is looked at when, and what was told of it.
pub(super) struct Sweeps<'a> {
    machine: &'a RunningMachine,
    reference: &'a Reference<'a>,
    baseline: &'a Baseline,
    structures: &'a Structures,
    state: Instant,
    search: Instant,
    told_of_baseline: Known,
    told_of_state: Known,
    told_of_domains: Known,
    changed: ChangedPages,
    /// When a page was told to be written to and put back.
    put_back: HashMap<Gpa, Instant>,
    /// When code at a place was told to be executed and put back.
    executed: HashMap<Gva, Instant>,
    /// Whose the control blocks are that L1 runs.
    pub(super) owners: Owners,
}

impl<'a> Sweeps<'a> {
    pub(super) fn new(
        machine: &'a RunningMachine,
        reference: &'a Reference<'a>,
        baseline: &'a Baseline,
        structures: &'a Structures,
    ) -> Self {
        let (state, search) = (Instant::now(), Instant::now());
        let [told_of_baseline, told_of_state, told_of_domains] = Default::default();
        Self {
            machine,
            reference,
            baseline,
            structures,
            state,
            search,
            told_of_baseline,
            told_of_state,
            told_of_domains,
            changed: ChangedPages::default(),
            put_back: HashMap::new(),
            executed: HashMap::new(),
            owners: Owners::default(),
        }
    }

    /// L1 with its registers of this moment.
    pub(super) fn found(&self) -> Option<Target<'a, Memory<'a>>> {
        let cpus = self.machine.registers().ok()?;
        Target::find(self.machine.memory(), self.reference, &cpus, [])
    }

    pub(super) fn is_state_due(&self) -> bool {
        self.state.elapsed() >= STATE_PERIOD
    }

    /// Everything, once; what is found counts as told.
    pub(super) fn first(&mut self, target: &Target<'_, Memory<'_>>) -> (Report, Vec<Finding>) {
        let report = check(target, self.structures, self.machine.runs());
        let again =
            |target: &Target<'_, Memory<'_>>| check(target, self.structures, self.machine.runs()).findings;
        let findings = self.confirmed(report.findings.clone(), again);
        (report, self.told_of_state.fresh(findings))
    }

    /// Looks at what is due; gives what is new. This was noticed.
    pub(super) fn look(&mut self, target: &Target<'_, Memory<'_>>, noticed: &[Noticed]) -> Vec<Finding> {
        let mut changes = self.compare(target);
        self.changed.note(&changes.pages, Instant::now());
        if noticed.iter().any(|noticed| noticed.page().is_some() || noticed.code().is_some()) {
            // Who writes is told of before it has written.
            std::thread::sleep(SECOND_LOOK);
            changes = self.compare(target).with_those_of(changes);
            self.changed.note(&changes.pages, Instant::now());
        }
        let mut fresh = self.put_back(target, noticed);
        fresh.extend(self.executed(target, noticed));
        fresh.extend(self.told_of_baseline.fresh(changes.findings));
        if !self.is_state_due() {
            return fresh;
        }
        self.state = Instant::now();
        let found = self.look_at(target, &self.told_of_state, |target| self.state_of(target));
        fresh.extend(self.told_of_state.fresh(found));
        if self.search.elapsed() >= SEARCH_PERIOD {
            self.search = Instant::now();
            let found = self.look_at(target, &self.told_of_domains, |target| {
                self.domains_of(target, self.machine.runs())
            });
            fresh.extend(self.told_of_domains.fresh(found));
        }
        fresh
    }

    /// What has changed is told even if it is gone at the second look; that one says what to think of it.
    fn compare(&self, target: &Target<'_, Memory<'_>>) -> Changes {
        let look = || self.baseline.compare(target, &LivePatches::read(target, self.structures));
        let mut changes = look();
        if changes.findings.iter().any(|finding| !self.told_of_baseline.has(finding)) {
            std::thread::sleep(SECOND_LOOK);
            let second = look().findings;
            for finding in &mut changes.findings {
                if let Some(same) = second.iter().find(|same| subject(same) == subject(finding)) {
                    finding.clone_from(same);
                }
            }
        }
        changes
    }

    /// Pages that were written to and are as they were, without a change of theirs having been seen lately.
    fn put_back(&mut self, target: &Target<'_, Memory<'_>>, noticed: &[Noticed]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for page in noticed.iter().filter_map(Noticed::page) {
            let Some(finding) = self.baseline.put_back(target, page) else { continue };
            if !self.has_changed(&finding) && is_news(&mut self.put_back, page) {
                findings.push(finding);
            }
        }
        findings
    }

    /// Code that was executed and should not have been, unless it was changed and that was seen. A change of the image's code says
    /// nothing of what other memory held.
    fn executed(&mut self, target: &Target<'_, Memory<'_>>, noticed: &[Noticed]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for code in noticed.iter().filter_map(Noticed::code) {
            let Some(finding) = self.judge_executed(target, code) else { continue };
            let is_told = code.genuine.is_some() && self.has_changed(&finding);
            if !is_told && is_news(&mut self.executed, code.rip) {
                findings.push(finding);
            }
        }
        findings
    }

    fn judge_executed(&self, target: &Target<'_, Memory<'_>>, code: &ExecutedCode) -> Option<Finding> {
        let ExecutedCode { rip, genuine, executed } = code;
        let Some(genuine) = genuine else {
            let patches = LivePatches::read(target, self.structures);
            return foreign_code(target, self.baseline, &patches, *rip, executed);
        };
        // What still stands there is told as a change.
        (!holds(target, *rip, genuine, executed)).then(|| changed_code(target, *rip, genuine, executed))
    }

    /// Whether its page has changed lately, which was told.
    fn has_changed(&self, finding: &Finding) -> bool {
        self.changed.has_changed(finding.address.unwrap_or_default().page(), Instant::now())
    }

    fn state_of(&self, target: &Target<'_, Memory<'_>>) -> Vec<Finding> {
        let mut report = Report::default();
        check_state(target, self.structures, &LivePatches::read(target, self.structures), &mut report);
        check_domains(target, self.structures, &[], &mut report);
        report.findings.extend(self.baseline.remapped(target));
        report.findings
    }

    fn domains_of(&self, target: &Target<'_, Memory<'_>>, ram: &[(Gpa, u64)]) -> Vec<Finding> {
        let mut report = Report::default();
        check_domains(target, self.structures, ram, &mut report);
        report.findings
    }

    /// What is seen now; a second time before anything new is believed.
    fn look_at(
        &self,
        target: &Target<'_, Memory<'_>>,
        told: &Known,
        look: impl Fn(&Target<'_, Memory<'_>>) -> Vec<Finding>,
    ) -> Vec<Finding> {
        let findings = look(target);
        if findings.iter().all(|finding| told.has(finding)) {
            findings
        } else {
            self.confirmed(findings, look)
        }
    }

    /// What a second look confirms, with the machine stopped for its few milliseconds: QEMU tells a running processor's
    /// registers as they change, and L1 may have been amid something.
    fn confirmed(
        &self,
        findings: Vec<Finding>,
        look: impl Fn(&Target<'_, Memory<'_>>) -> Vec<Finding>,
    ) -> Vec<Finding> {
        if findings.is_empty() {
            return findings;
        }
        std::thread::sleep(SECOND_LOOK);
        let second = self.machine.while_stopped(|| self.found().map(|target| look(&target)));
        let Ok(Some(second)) = second else { return Vec::new() };
        findings.into_iter().filter(|finding| second.iter().any(|same| key(same) == key(finding))).collect()
    }
}

/// Whether this was not told within the last second; it is now.
fn is_news<T: Eq + std::hash::Hash>(told: &mut HashMap<T, Instant>, what: T) -> bool {
    told.retain(|_, told| told.elapsed() < WRITE_PERIOD);
    told.len() < MAX_TOLD && told.insert(what, Instant::now()).is_none()
}
