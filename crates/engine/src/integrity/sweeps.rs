//! What is looked at when, and what of it is new.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hypovisor_integrity::{
    Baseline, Finding, LivePatches, Reference, Report, Structures, Target, changed_code, check,
    check_domains, check_state, foreign_code,
};
use hypovisor_machine::{Gpa, Gva};

use super::notices::Noticed;
use super::owners::Owners;
use super::told::{Known, key};
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
/// For so long, a change that was found explains that its page was written to, or executed: the sensor's word of it comes some looks later.
const CHANGED_PERIOD: Duration = Duration::from_secs(5);

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
    /// Pages in which a change was found, and when last.
    changed: HashMap<Gva, Instant>,
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
            changed: HashMap::new(),
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
        let changes = self.compare(target);
        let now = Instant::now();
        self.changed.retain(|_, seen| now.duration_since(*seen) < CHANGED_PERIOD);
        let pages = changes.iter().filter_map(|finding| finding.address).map(Gva::page);
        self.changed.extend(pages.map(|page| (page, now)));
        let mut fresh = self.put_back(target, noticed);
        fresh.extend(self.executed(target, noticed));
        fresh.extend(self.told_of_baseline.fresh(changes));
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
    fn compare(&self, target: &Target<'_, Memory<'_>>) -> Vec<Finding> {
        let look = || self.baseline.compare(target, &LivePatches::read(target, self.structures));
        let mut findings = look();
        if findings.iter().any(|finding| !self.told_of_baseline.has(finding)) {
            std::thread::sleep(SECOND_LOOK);
            let second = look();
            for finding in &mut findings {
                if let Some(same) = second.iter().find(|same| key(same) == key(finding)) {
                    finding.clone_from(same);
                }
            }
        }
        findings
    }

    /// Pages that were written to and are as they were, without a change of theirs having been seen lately.
    fn put_back(&mut self, target: &Target<'_, Memory<'_>>, noticed: &[Noticed]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for page in noticed.iter().filter_map(Noticed::page) {
            let Some(finding) = self.baseline.put_back(target, page) else { continue };
            if !self.is_explained(&finding) && is_news(&mut self.put_back, page) {
                findings.push(finding);
            }
        }
        findings
    }

    /// Code that was executed and should not have been, unless it was changed and that was seen lately.
    fn executed(&mut self, target: &Target<'_, Memory<'_>>, noticed: &[Noticed]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for code in noticed.iter().filter_map(Noticed::code) {
            let finding = match &code.genuine {
                Some(genuine) => Some(changed_code(target, code.rip, genuine, &code.executed)),
                None => {
                    let patches = LivePatches::read(target, self.structures);
                    foreign_code(target, &patches, code.rip, &code.executed)
                }
            };
            let Some(finding) = finding else { continue };
            if !self.is_explained(&finding) && is_news(&mut self.executed, code.rip) {
                findings.push(finding);
            }
        }
        findings
    }

    /// Whether a change in its page was found lately, and judged.
    fn is_explained(&self, finding: &Finding) -> bool {
        self.changed.contains_key(&finding.address.unwrap_or_default().page())
    }

    fn state_of(&self, target: &Target<'_, Memory<'_>>) -> Vec<Finding> {
        let mut report = Report::default();
        check_state(target, &LivePatches::read(target, self.structures), &mut report);
        check_domains(target, self.structures, &[], &mut report);
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
