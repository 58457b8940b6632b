//! Watches L1 itself while it runs: a thread looks at its memory and its registers again and again.
//!
//! ```text
//!   at once        writes to code and constants (KVM), or changed code that is executed (TCG), as the sensor tells of it
//!   every 100 ms   what may never change, against a copy made when L1 had booted: code, constants, gates, entry code
//!                  VMRUNs of control blocks that the sensor does not know (KVM), against L1's lists of domains
//!   every second   page tables, registers, L1's lists of domains
//!   every 30 s     all of memory, for domains that are in no list
//! ```
//!
//! The thread has a mapping of its own and talks to QEMU's monitor by itself; the session is not held up. What has been told
//! is told again only after it was gone meanwhile. When L1 is reset, all begins anew once it has booted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hypovisor_integrity::{Baseline, Finding, NoBorder, Reference, Report, Structures, Target, check};
use hypovisor_l1::{DwarfError, SymbolFile, SymbolFileError};
use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory};

use crate::inspect::{InspectError, RunningMachine};

use self::notices::{Noticed, Notices};
use self::sweeps::Sweeps;

mod judgement;
mod notices;
mod owners;
mod pages;
mod sweeps;
mod told;

pub use judgement::judge;
pub use notices::ExecutedCode;
pub use told::Repeats;

/// Between two looks at what may never change.
const BASELINE_PERIOD: Duration = Duration::from_millis(100);
/// Between two looks whether L1 has booted.
const BOOT_PERIOD: Duration = Duration::from_millis(100);
/// How long an L1 that has booted may take to set all its protections.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// From a reset until the sensor's word of it has come, at most: the session hands it on every few milliseconds.
const RESET_WORD: Duration = Duration::from_millis(20);
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
    /// L1 begins anew; it is watched again once it has booted.
    Reset,
    /// Something is not as it should be.
    Finding {
        /// When it was seen, in nanoseconds since the Unix epoch.
        time_ns: i64,
        /// What.
        finding: Box<Finding>,
        /// The machine was stopped for it.
        stopped: bool,
    },
    /// The machine could not be stopped for tampering.
    NotStopped(InspectError),
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
            let notices = Notices::new(&notices, &stopped);
            let watcher = Watcher { sender: &sender, notices, options: &options };
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
        self.notice(Noticed::Written(page));
    }

    /// Code was executed that is not what it was, or not L1's.
    pub fn executed(&self, code: ExecutedCode) {
        self.notice(Noticed::Executed(code));
    }

    /// L1's own VMRUN at `rip` has run this control block.
    pub fn used(&self, vmcb: Gpa, rip: Gva) {
        self.notice(Noticed::Used { vmcb, rip });
    }

    /// L1 begins anew.
    pub fn was_reset(&self) {
        self.notice(Noticed::Reset);
    }

    fn notice(&self, noticed: Noticed) {
        // A thread that has ended has said why.
        let _ = self.noticed.send(noticed);
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

struct Watcher<'a> {
    sender: &'a Sender<Told>,
    notices: Notices<'a>,
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
        while let Some(first) = self.booted(&machine, &reference, &structures)
            && self.watch(&machine, &reference, &structures, first) == End::Reset
        {
            self.tell(Told::Reset);
        }
        Ok(())
    }

    /// Watches an L1 that has booted until it begins anew, or nobody wants to know any more.
    fn watch<'a>(
        &self,
        machine: &'a RunningMachine,
        reference: &'a Reference<'a>,
        structures: &Structures,
        first: Target<'a, Memory<'a>>,
    ) -> End {
        let baseline = Baseline::take(&first);
        let mut sweeps = Sweeps::new(machine, reference, &baseline, structures);
        let (report, findings) = sweeps.first(&first);
        self.tell(Told::Watching { report: Box::new(report), bytes: baseline.bytes() });
        self.report(machine, findings);
        self.tell(Told::WatchWrites(baseline.never_written()));
        let mut target = first;
        while let Some(noticed) = self.notices.wait(BASELINE_PERIOD) {
            if noticed.contains(&Noticed::Reset) {
                return End::Reset;
            }
            if sweeps.is_state_due() {
                // Somebody else may have the monitor, or QEMU may be ending: what was known of the registers stays.
                target = sweeps.found().unwrap_or(target);
            }
            let mut findings = sweeps.look(&target, &noticed);
            findings.extend(sweeps.owners.look(&target, structures, &noticed));
            if !findings.is_empty() && self.has_reset(machine) {
                continue;
            }
            self.report(machine, findings);
            let written: Vec<_> = noticed.iter().filter_map(Noticed::page).collect();
            if !written.is_empty() {
                self.tell(Told::WatchWrites(written.into_iter().map(|page| (page, PAGE_SIZE)).collect()));
            }
        }
        End::NobodyAsks
    }

    /// Whether what was found is due to a reset, of which the sensor's word is under way.
    fn has_reset(&self, machine: &RunningMachine) -> bool {
        // QEMU answers when a reset that it is amid is over. If it does not answer, nothing is known of one.
        let _ = machine.is_running();
        self.notices.has_reset(RESET_WORD)
    }

    /// L1 as soon as it has booted; `None` if nobody wants to know any more.
    ///
    /// When it has thrown away what only its boot needs, it has not made all read-only yet that is to be. So what is wrong then is
    /// believed only after a while.
    fn booted<'a>(
        &self,
        machine: &'a RunningMachine,
        reference: &'a Reference<'a>,
        structures: &Structures,
    ) -> Option<Target<'a, Memory<'a>>> {
        let mut booted = None;
        loop {
            let cpus = machine.registers().unwrap_or_default();
            let target = Target::find(machine.memory(), reference, &cpus, []).filter(Target::is_booted);
            if let Some(target) = target {
                let since = *booted.get_or_insert_with(Instant::now);
                if since.elapsed() >= SETTLE_TIME || !check(&target, structures, &[]).is_tampered() {
                    return Some(target);
                }
            } else {
                booted = None;
            }
            self.notices.wait(BOOT_PERIOD)?;
        }
    }

    /// Stops the machine if that is wished for, and tells, whether it could be stopped or not.
    fn report(&self, machine: &RunningMachine, findings: Vec<Finding>) {
        let is_to_stop = self.options.pause && findings.iter().any(Finding::is_tampering);
        let end = is_to_stop.then(|| machine.stop());
        let stopped = matches!(end, Some(Ok(())));
        for finding in findings {
            let (time_ns, finding) = (now_ns(), Box::new(finding));
            self.tell(Told::Finding { time_ns, finding, stopped });
        }
        if let Some(Err(error)) = end {
            self.tell(Told::NotStopped(error));
        }
    }

    fn tell(&self, told: Told) {
        // If nobody listens any more, nobody wants to know.
        let _ = self.sender.send(told);
    }
}

/// Why L1 is no longer watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It begins anew.
    Reset,
    /// The watch is to end.
    NobodyAsks,
}

/// The time of day, in nanoseconds since the Unix epoch.
#[must_use]
pub fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}
