//! A machine that QEMU itself has stopped looks like one that makes no hypercalls: whoever watches is told which it is.

use std::path::Path;
use std::time::{Duration, Instant};

use hypovisor_engine::qmp::{Qmp, QmpError};
use hypovisor_engine::session::Session;

/// An idle Xen makes hypercalls more often than this.
const SILENCE: Duration = Duration::from_secs(10);
/// How long QEMU's monitor may take; somebody else may be using it.
const PATIENCE: Duration = Duration::from_millis(500);
/// The states in which QEMU stops a machine without being asked to (`RunState`, QEMU qapi/run-state.json).
const BY_ITSELF: [&str; 5] = ["internal-error", "io-error", "guest-panicked", "debug", "watchdog"];

/// Looks at a machine from which nothing comes.
#[derive(Debug)]
pub(crate) struct Standstill {
    events: u64,
    /// When events were last seen, or QEMU was last asked.
    since: Instant,
    told: bool,
}

impl Standstill {
    pub(crate) fn new() -> Self {
        Self { events: 0, since: Instant::now(), told: false }
    }

    /// To be called often. Gives what to tell, once for each standstill.
    pub(crate) fn tick(&mut self, session: &Session, events: u64) -> Option<String> {
        if self.events != events {
            *self = Self { events, ..Self::new() };
        }
        if self.told || self.since.elapsed() < SILENCE {
            return None;
        }
        self.since = Instant::now();
        // Who watches needs no monitor: without one, there is nothing to tell.
        let state = state(session.monitor()?).ok()?;
        self.told = BY_ITSELF.contains(&state.as_str());
        self.told.then(|| format!("QEMU itself has stopped the machine ({state}); it makes no hypercalls"))
    }
}

fn state(monitor: &Path) -> Result<String, QmpError> {
    Qmp::connect_within(monitor, PATIENCE)?.status()
}
