//! Watches L1 itself while it runs: a thread looks at its memory and its registers again and again.
//!
//! ```text
//!   at once        writes to code and constants, where the sensor tells of them (KVM)
//!   every 100 ms   what may never change, against a copy made when L1 had booted: code, constants, gates, entry code
//!                  VMRUNs of control blocks that the sensor does not know (KVM), against L1's lists of domains
//!   every second   page tables, registers, L1's lists of domains
//!   every 30 s     all of memory, for domains that are in no list
//! ```
//!
//! The thread has a mapping of its own and talks to QEMU's monitor by itself; the session is not held up. What has been told
//! is told again only after it was gone meanwhile.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_integrity::{
    Baseline, Finding, Item, LivePatches, NoBorder, Reference, Report, Structures, Target, check,
    check_domains, check_state,
};
use hypovisor_l1::{DwarfError, SymbolFile, SymbolFileError};
use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory};

use crate::inspect::{InspectError, RunningMachine};

use self::owners::Owners;

mod owners;

/// Between two looks at what may never change.
const BASELINE_PERIOD: Duration = Duration::from_millis(100);
/// Between two looks at what L1 changes as it runs.
const STATE_PERIOD: Duration = Duration::from_secs(1);
/// Between two searches of all memory.
const SEARCH_PERIOD: Duration = Duration::from_secs(30);
/// Between two looks whether L1 has booted.
const BOOT_PERIOD: Duration = Duration::from_millis(100);
/// Until a second look, as long as L1 may take for what it does in several steps, such as applying a live patch.
const SECOND_LOOK: Duration = Duration::from_millis(20);
/// Between two reports that the same page was written to and put back.
const WRITE_PERIOD: Duration = Duration::from_secs(1);
/// For so long, a change that was found explains that its page was written to: the sensor's word of it comes some looks later.
const CHANGED_PERIOD: Duration = Duration::from_secs(5);
/// Before the sensor's word is passed on again.
const REPEAT_PERIOD: Duration = Duration::from_secs(10);
/// The most findings that are remembered as told.
const MAX_TOLD: usize = 4096;

/// Why L1 cannot be watched for tampering.
#[derive(Debug, thiserror::Error)]
pub enum IntegrityError {
    /// The machine cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The symbols file cannot be read.
    #[error("cannot read symbol file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is none.
    #[error(transparent)]
    Symbols(#[from] SymbolFileError),
    /// Its debug information is broken.
    #[error(transparent)]
    Dwarf(#[from] DwarfError),
    /// It lacks what is needed.
    #[error(transparent)]
    NoBorder(#[from] NoBorder),
}

/// What the thread has to tell.
#[derive(Debug)]
pub enum Told {
    /// L1 has booted and was looked at in full; from now on it is watched.
    Watching {
        /// What was looked at. Findings follow one by one.
        report: Box<Report>,
        /// Bytes that are compared every time.
        bytes: u64,
    },
    /// Writes to these pages are to be told to [`IntegrityWatch::written`]: first address and bytes of runs of them.
    WatchWrites(Vec<(Gpa, u64)>),
    /// Something is not as it should be.
    Finding {
        /// When it was seen, in nanoseconds since the Unix epoch.
        time_ns: i64,
        /// What.
        finding: Box<Finding>,
    },
    /// L1 is no longer watched.
    Ended(IntegrityError),
}

/// How to watch.
#[derive(Clone, Debug)]
pub struct IntegrityOptions {
    /// QEMU's monitor.
    pub monitor: PathBuf,
    /// What L1 was made with.
    pub symbols: PathBuf,
    /// Stop the machine when there is tampering.
    pub pause: bool,
}

/// The thread, and what it tells.
#[derive(Debug)]
pub struct IntegrityWatch {
    told: Receiver<Told>,
    noticed: Sender<Noticed>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl IntegrityWatch {
    /// Starts looking.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(options: IntegrityOptions) -> std::io::Result<Self> {
        let (sender, told) = channel();
        let (noticed, notices) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            let watcher = Watcher { sender: &sender, notices: &notices, stop: &stopped, options: &options };
            if let Err(error) = watcher.run() {
                // If nobody listens any more, nobody wants to know.
                let _ = sender.send(Told::Ended(error));
            }
        };
        let thread = std::thread::Builder::new().name("integrity".into()).spawn(work)?;
        Ok(Self { told, noticed, stop, thread: Some(thread) })
    }

    /// A page that was to be watched is written to.
    pub fn written(&self, page: Gpa) {
        // A thread that has ended has said why.
        let _ = self.noticed.send(Noticed::Written(page));
    }

    /// L1's own VMRUN at `rip` has run this control block.
    pub fn used(&self, vmcb: Gpa, rip: Gva) {
        // As above.
        let _ = self.noticed.send(Noticed::Used { vmcb, rip });
    }

    /// What has been told since the last time.
    pub fn take(&self) -> impl Iterator<Item = Told> + '_ {
        self.told.try_iter()
    }
}

impl Drop for IntegrityWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the sensor has noticed, to be looked at now.
#[derive(Clone, Copy, Debug)]
enum Noticed {
    Written(Gpa),
    Used { vmcb: Gpa, rip: Gva },
}

struct Watcher<'a> {
    sender: &'a Sender<Told>,
    notices: &'a Receiver<Noticed>,
    stop: &'a AtomicBool,
    options: &'a IntegrityOptions,
}

type Memory<'a> = &'a (dyn PhysicalMemory + Send);

impl Watcher<'_> {
    fn run(&self) -> Result<(), IntegrityError> {
        let path = &self.options.symbols;
        let contents =
            std::fs::read(path).map_err(|source| IntegrityError::Read { path: path.clone(), source })?;
        let file = SymbolFile::parse(&contents)?;
        let structures = Structures::read(&file)?;
        let reference = Reference::new(&file)?;
        let machine = RunningMachine::open(&self.options.monitor)?;
        let Some(first) = self.booted(&machine, &reference)? else { return Ok(()) };
        let baseline = Baseline::take(&first);
        let mut sweeps = Sweeps::new(&machine, &reference, &baseline, &structures);
        let (report, findings) = sweeps.first(&first);
        self.tell(Told::Watching { report: Box::new(report), bytes: baseline.bytes() });
        self.report(&machine, findings)?;
        self.tell(Told::WatchWrites(baseline.never_written()));
        let mut target = first;
        while let Some(noticed) = self.wait(BASELINE_PERIOD) {
            let written: Vec<Gpa> = noticed.iter().filter_map(Noticed::page).collect();
            if sweeps.is_state_due() {
                // Somebody else may have the monitor, or QEMU may be ending: what was known of the registers stays.
                target = sweeps.found().unwrap_or(target);
            }
            let mut findings = sweeps.look(&target, &written);
            findings.extend(sweeps.owners.look(&target, &structures, &noticed));
            self.report(&machine, findings)?;
            if !written.is_empty() {
                self.tell(Told::WatchWrites(written.into_iter().map(|page| (page, PAGE_SIZE)).collect()));
            }
        }
        Ok(())
    }

    /// L1 as soon as it has booted; `None` if nobody wants to know any more.
    fn booted<'a>(
        &self,
        machine: &'a RunningMachine,
        reference: &'a Reference<'a>,
    ) -> Result<Option<Target<'a, Memory<'a>>>, IntegrityError> {
        loop {
            let cpus = machine.registers().unwrap_or_default();
            if let Some(target) =
                Target::find(machine.memory(), reference, &cpus, []).filter(Target::is_booted)
            {
                return Ok(Some(target));
            }
            if self.wait(BOOT_PERIOD).is_none() {
                return Ok(None);
            }
        }
    }

    /// Tells, and stops the machine if that is wished for.
    fn report(&self, machine: &RunningMachine, findings: Vec<Finding>) -> Result<(), IntegrityError> {
        if self.options.pause && findings.iter().any(Finding::is_tampering) {
            machine.stop()?;
        }
        for finding in findings {
            self.tell(Told::Finding { time_ns: now_ns(), finding: Box::new(finding) });
        }
        Ok(())
    }

    fn tell(&self, told: Told) {
        // As above.
        let _ = self.sender.send(told);
    }

    /// Waits, but no longer than until something is noticed. What was; `None` if the watch is to end.
    fn wait(&self, period: Duration) -> Option<Vec<Noticed>> {
        let start = Instant::now();
        loop {
            let left = period.saturating_sub(start.elapsed());
            let noticed = self.notices.recv_timeout(left.min(Duration::from_millis(20)));
            if self.stop.load(Ordering::Relaxed) || matches!(noticed, Err(RecvTimeoutError::Disconnected)) {
                return None;
            }
            if let Ok(first) = noticed {
                return Some(std::iter::once(first).chain(self.notices.try_iter()).collect());
            }
            if left.is_zero() {
                return Some(Vec::new());
            }
        }
    }
}

impl Noticed {
    const fn page(&self) -> Option<Gpa> {
        match self {
            Self::Written(page) => Some(*page),
            Self::Used { .. } => None,
        }
    }
}

/// What is looked at when, and what was told of it.
struct Sweeps<'a> {
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
    /// Whose the control blocks are that L1 runs.
    owners: Owners,
}

impl<'a> Sweeps<'a> {
    fn new(
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
            owners: Owners::default(),
        }
    }

    /// L1 with its registers of this moment.
    fn found(&self) -> Option<Target<'a, Memory<'a>>> {
        let cpus = self.machine.registers().ok()?;
        Target::find(self.machine.memory(), self.reference, &cpus, [])
    }

    fn is_state_due(&self) -> bool {
        self.state.elapsed() >= STATE_PERIOD
    }

    /// Everything, once; what is found counts as told.
    fn first(&mut self, target: &Target<'_, Memory<'_>>) -> (Report, Vec<Finding>) {
        let report = check(target, self.structures, self.machine.runs());
        let again =
            |target: &Target<'_, Memory<'_>>| check(target, self.structures, self.machine.runs()).findings;
        let findings = self.confirmed(report.findings.clone(), again);
        (report, self.told_of_state.fresh(findings))
    }

    /// Looks at what is due; gives what is new. These pages were written to.
    fn look(&mut self, target: &Target<'_, Memory<'_>>, written: &[Gpa]) -> Vec<Finding> {
        let changes = self.compare(target);
        let now = Instant::now();
        self.changed.retain(|_, seen| now.duration_since(*seen) < CHANGED_PERIOD);
        let pages = changes.iter().filter_map(|finding| finding.address).map(Gva::page);
        self.changed.extend(pages.map(|page| (page, now)));
        let mut fresh = self.put_back(target, written);
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
    fn put_back(&mut self, target: &Target<'_, Memory<'_>>, written: &[Gpa]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for page in written {
            let is_new = self.put_back.get(page).is_none_or(|told| told.elapsed() >= WRITE_PERIOD);
            let Some(finding) = self.baseline.put_back(target, *page).filter(|_| is_new) else { continue };
            if !self.changed.contains_key(&finding.address.unwrap_or_default().page()) {
                self.put_back.insert(*page, Instant::now());
                findings.push(finding);
            }
        }
        findings
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

fn key(finding: &Finding) -> (Item, &str, &str) {
    (finding.item, &finding.place, &finding.message)
}

/// What was there at the last look.
#[derive(Debug, Default)]
struct Known(HashSet<(Item, String, String)>);

impl Known {
    fn has(&self, finding: &Finding) -> bool {
        self.0.contains(&(finding.item, finding.place.clone(), finding.message.clone()))
    }

    /// Those that were not there the last time.
    fn fresh(&mut self, findings: Vec<Finding>) -> Vec<Finding> {
        let owned = |finding: &Finding| (finding.item, finding.place.clone(), finding.message.clone());
        let now = findings.iter().take(MAX_TOLD).map(owned).collect();
        let fresh = findings.into_iter().filter(|finding| !self.has(finding)).collect();
        self.0 = now;
        fresh
    }
}

/// What the sensor has told a short time ago: code that switches a protection off and on does so a thousand times a second.
#[derive(Debug, Default)]
pub struct Repeats(HashMap<String, Instant>);

impl Repeats {
    /// Whether this was not told within the last ten seconds; it is now.
    pub fn is_news(&mut self, finding: &Finding, now: Instant) -> bool {
        self.0.retain(|_, told| now.duration_since(*told) < REPEAT_PERIOD);
        if self.0.len() >= MAX_TOLD || self.0.contains_key(&finding.message) {
            return false;
        }
        self.0.insert(finding.message.clone(), now);
        true
    }
}

/// What to think of a register that L1 set otherwise than while it booted.
#[must_use]
pub fn judge(change: &SystemChange) -> Finding {
    let SystemChange { register, before, now, rip } = change;
    let name = register.name();
    if *register == SystemRegister::Vmcb {
        let own = match before {
            0 => "L1 has none there".to_owned(),
            own => format!("that of the vCPU which L1 says it runs is at {own:#x}"),
        };
        let message = format!("VMRUN at {rip:#x} runs the control block at {now:#x}; {own}");
        return Finding::tampering(Item::Vmrun, name, message).at(*rip, 0);
    }
    match register {
        SystemRegister::GuestFrame => return judge_call(change),
        SystemRegister::UsedVmcb => {
            let message = format!("VMRUN at {rip:#x} runs the control block at {now:#x}");
            let settle = "whether it belongs to a vCPU that L1 lists";
            return Finding::unknown(Item::Vmrun, name, message, settle).at(*rip, 0);
        }
        SystemRegister::Syscalls | SystemRegister::Vmmcalls => return judge_missing(change),
        _ => {}
    }
    let by = if rip.0 == 0 { String::new() } else { format!(" by the code at {rip:#x}") };
    let message = format!("{name} was set to {now:#x}{by}; while L1 booted it was {before:#x}");
    Finding::tampering(Item::Registers, name, message).at(*rip, 0)
}

/// What to think of a call of a handler that does not come from where guests' calls do.
fn judge_call(change: &SystemChange) -> Finding {
    let SystemChange { register, before, now, rip } = change;
    let caller = format!("a handler of hypercalls was called by the code before {rip:#x}");
    if before == now {
        let message = format!("{caller}, in the name of the guest that runs");
        let settle = "what that code is: L1's own way from a guest to the handler, or somebody else's";
        return Finding::unknown(Item::Hypercalls, register.name(), message, settle).at(*rip, 0);
    }
    let message = format!("{caller}, with registers at {now:#x}; guests have theirs at {before:#x}");
    Finding::tampering(Item::Hypercalls, register.name(), message).at(*rip, 0)
}

/// What to think of calls that guests made and that reached no hook.
fn judge_missing(change: &SystemChange) -> Finding {
    let SystemChange { register, before, now, .. } = change;
    let name = register.name();
    let message = format!("{now} times, {name} of a guest reached no hook: those hypercalls were not seen");
    if *register == SystemRegister::Syscalls && *before != 0 {
        let settle = "whether a guest with hardware virtualisation executes SYSCALL in its kernel, which is no hypercall";
        return Finding::unknown(Item::Hypercalls, name, message, settle);
    }
    Finding::tampering(Item::Hypercalls, name, message)
}

/// The time of day, in nanoseconds since the Unix epoch.
#[must_use]
pub fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sensors_word_is_not_repeated_at_once() {
        let finding = Finding::tampering(Item::Registers, "CR0", "it was set");
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert!(repeats.is_news(&finding, start));
        assert!(!repeats.is_news(&finding, start + REPEAT_PERIOD / 2));
        assert!(repeats.is_news(&finding, start + REPEAT_PERIOD));
    }

    #[test]
    fn what_was_gone_meanwhile_is_told_again() {
        let finding = || vec![Finding::tampering(Item::Text, "here", "changed")];
        let mut told = Known::default();
        assert_eq!(told.fresh(finding()).len(), 1);
        assert!(told.fresh(finding()).is_empty());
        assert!(told.fresh(Vec::new()).is_empty());
        assert_eq!(told.fresh(finding()).len(), 1);
    }
}
