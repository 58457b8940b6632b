//! What the sensor has noticed and this thread is to look at now.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hypovisor_integrity::FirstBytes;
use hypovisor_machine::{Gpa, Gva};

/// How often the thread looks whether it is to end.
const STOP_PERIOD: Duration = Duration::from_millis(20);

/// One thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// A page that is watched is written to.
    Written(Gpa),
    /// L1's own VMRUN at `rip` has run this control block.
    Used { vmcb: Gpa, rip: Gva },
    /// Code was executed that is not what it was, or not L1's.
    Executed(ExecutedCode),
    /// L1 begins anew.
    Reset,
}

impl Noticed {
    /// The page that is written to.
    pub(super) const fn page(&self) -> Option<Gpa> {
        match self {
            Self::Written(page) => Some(*page),
            _ => None,
        }
    }

    /// The control block that was used, and where.
    pub(super) const fn vmcb(&self) -> Option<(Gpa, Gva)> {
        match self {
            Self::Used { vmcb, rip } => Some((*vmcb, *rip)),
            _ => None,
        }
    }

    /// The code that was executed.
    pub(super) const fn code(&self) -> Option<&ExecutedCode> {
        match self {
            Self::Executed(code) => Some(code),
            _ => None,
        }
    }
}

/// Code that was executed and should not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutedCode {
    /// Where.
    pub rip: Gva,
    /// The first bytes of the instruction that stood there; `None` where none of L1's is to be.
    pub genuine: Option<FirstBytes>,
    /// Those that were executed.
    pub executed: FirstBytes,
}

/// Things as they come.
pub(super) struct Notices<'a> {
    receiver: &'a Receiver<Noticed>,
    stop: &'a AtomicBool,
    /// Taken out while something else was looked for.
    kept: RefCell<Vec<Noticed>>,
}

impl<'a> Notices<'a> {
    pub(super) const fn new(receiver: &'a Receiver<Noticed>, stop: &'a AtomicBool) -> Self {
        Self { receiver, stop, kept: RefCell::new(Vec::new()) }
    }

    /// Waits, but no longer than until something is noticed. What was; `None` if the watch is to end.
    pub(super) fn wait(&self, period: Duration) -> Option<Vec<Noticed>> {
        let start = Instant::now();
        let mut noticed = self.kept.take();
        loop {
            let left =
                if noticed.is_empty() { period.saturating_sub(start.elapsed()) } else { Duration::ZERO };
            let next = self.receiver.recv_timeout(left.min(STOP_PERIOD));
            if self.stop.load(Ordering::Relaxed) || next == Err(RecvTimeoutError::Disconnected) {
                return None;
            }
            noticed.extend(next.into_iter().chain(self.receiver.try_iter()));
            if !noticed.is_empty() || left.is_zero() {
                return Some(noticed);
            }
        }
    }

    /// Whether L1 begins anew, as far as anybody knows within this time. What else is noticed meanwhile is not lost.
    pub(super) fn has_reset(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        let mut kept = self.kept.borrow_mut();
        while !kept.contains(&Noticed::Reset) {
            match self.receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(noticed) => kept.push(noticed),
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_is_lost_while_a_reset_is_looked_for() {
        let (sender, receiver) = channel();
        let stop = AtomicBool::new(false);
        let notices = Notices::new(&receiver, &stop);
        sender.send(Noticed::Written(Gpa(0x1000))).unwrap();
        assert!(!notices.has_reset(PERIOD));
        sender.send(Noticed::Reset).unwrap();
        sender.send(Noticed::Written(Gpa(0x2000))).unwrap();
        assert!(notices.has_reset(PERIOD));
        let all = [Noticed::Written(Gpa(0x1000)), Noticed::Reset, Noticed::Written(Gpa(0x2000))];
        assert_eq!(notices.wait(PERIOD), Some(all.to_vec()));
        assert_eq!(notices.wait(PERIOD), Some(Vec::new()));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(notices.wait(PERIOD), None);
    }
}
