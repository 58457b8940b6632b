//! A recording, handed on the way the session was: each call when it entered and again when it ended.
//!
//! A recording has its calls in the order in which they ended; those of one CPU are in the order they entered. When a
//! call entered is its time, which [`Pairing`](crate::pairing::Pairing) gives out strictly rising. When it ended is its
//! time plus its duration; inner calls end with their multicall, and one that never returned ended when its CPU took
//! the next one up.
//!
//! ```text
//!   recording ─▶ window of calls ─┬─▶ by time of entry ─┐
//!                                 └─▶ as they stand ────┴─▶ whichever comes first ─▶ sink
//! ```
//!
//! To know which entry comes first, calls are read ahead: until the last one read entered [`AHEAD_NS`] after the next
//! to be handed on, at most [`AHEAD_CALLS`] and [`AHEAD_BYTES`]. A call that lasted longer than that is announced late, right before it
//! ends.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use crate::call::{Call, CallSink, Outcome};
use crate::recording::{RecordedCall, RecordingError};

/// How far the reading is ahead, in the time of the calls.
const AHEAD_NS: i64 = 1_000_000_000;
/// How far at most, in calls.
const AHEAD_CALLS: usize = 65_536;
/// How far at most, in bytes of captured memory.
const AHEAD_BYTES: usize = 64 << 20;
/// How many calls without a known end are passed over in search of one with.
const UNKNOWN_ENDS: usize = 256;

/// Hands the calls of a recording to `sink` as [`CallSink::entered`] and [`CallSink::call`], in the order in which the
/// session had them.
///
/// # Errors
/// When the recording cannot be read, or what the sink returns.
pub fn replay<S: CallSink>(
    calls: impl IntoIterator<Item = Result<RecordedCall, RecordingError>>,
    sink: &mut S,
) -> Result<(), S::Error>
where
    S::Error: From<RecordingError>,
{
    let mut window = Window::over(calls.into_iter());
    loop {
        window.fill()?;
        let Some(step) = window.next() else { return Ok(()) };
        match step {
            Step::Entered(number) => {
                if let Some(call) = window.call(number) {
                    sink.entered(&entering(&call.as_call()))?;
                }
            }
            Step::Ended(call) => sink.call(&call.as_call())?,
        }
    }
}

/// The call as it was known when it entered.
fn entering<'a>(call: &Call<'a>) -> Call<'a> {
    Call { duration_ns: None, exit_segments: &[], outcome: Outcome::Unfinished, ..*call }
}

/// What comes next.
enum Step {
    /// The call of this number has entered.
    Entered(u64),
    /// This one has ended.
    Ended(Box<RecordedCall>),
}

/// A call in the window.
struct Waiting {
    call: RecordedCall,
    entered: bool,
    /// When it ended, if that is known.
    end_ns: Option<i64>,
}

/// The calls that were read and not yet handed on; numbers count all calls of the recording.
struct Window<I> {
    calls: I,
    exhausted: bool,
    waiting: VecDeque<Waiting>,
    /// Captured memory of those.
    waiting_bytes: usize,
    /// The number of `waiting[0]`.
    first: u64,
    /// Those that have not entered yet, by time.
    to_enter: BinaryHeap<Reverse<(i64, u64)>>,
    /// When the latest one read entered.
    latest_ns: i64,
    /// The last outer call read of each CPU: its number, and when it ended, if that is known.
    outer: HashMap<u32, (u64, Option<i64>)>,
}

impl<I: Iterator<Item = Result<RecordedCall, RecordingError>>> Window<I> {
    fn over(calls: I) -> Self {
        Self {
            calls,
            exhausted: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            first: 0,
            to_enter: BinaryHeap::new(),
            latest_ns: i64::MIN,
            outer: HashMap::new(),
        }
    }

    /// Reads ahead as far as it takes to know what comes next.
    fn fill(&mut self) -> Result<(), RecordingError> {
        while !self.exhausted && self.waiting.len() < AHEAD_CALLS && self.waiting_bytes < AHEAD_BYTES {
            let next_ns = self.to_enter.peek().map(|Reverse((time_ns, _))| *time_ns);
            if next_ns.is_some_and(|next_ns| self.latest_ns.saturating_sub(next_ns) >= AHEAD_NS) {
                break;
            }
            match self.calls.next() {
                Some(call) => self.take(call?),
                None => self.exhausted = true,
            }
        }
        Ok(())
    }

    fn take(&mut self, call: RecordedCall) {
        let number = self.first + self.waiting.len() as u64;
        let end_ns = if call.parent.is_none() {
            let end_ns = call.duration_ns.map(|duration| call.time_ns.saturating_add_unsigned(duration));
            if let Some((before, None)) = self.outer.insert(call.id.pcpu, (number, end_ns)) {
                self.ended_by(before, &call);
            }
            end_ns
        } else {
            self.outer.get(&call.id.pcpu).and_then(|(_, end_ns)| *end_ns)
        };
        self.to_enter.push(Reverse((call.time_ns, number)));
        self.latest_ns = self.latest_ns.max(call.time_ns);
        self.waiting_bytes += memory_bytes(&call);
        self.waiting.push_back(Waiting { call, entered: false, end_ns });
    }

    /// The call that never returned, and its inner ones, ended when this one entered.
    fn ended_by(&mut self, number: u64, next: &RecordedCall) {
        let from = number.saturating_sub(self.first) as usize;
        for waiting in self.waiting.iter_mut().skip(from) {
            if waiting.call.id.pcpu == next.id.pcpu && waiting.end_ns.is_none() {
                // Right before: the engine lets go of the one when it sees the other.
                waiting.end_ns = Some(next.time_ns.saturating_sub(1));
            }
        }
    }

    /// The next step; none at the end.
    fn next(&mut self) -> Option<Step> {
        let front = self.waiting.front()?;
        let end_ns = self.end_of_front();
        match self.to_enter.peek() {
            Some(Reverse((time_ns, _))) if !front.entered || *time_ns <= end_ns => self.enter(),
            _ => {
                self.first += 1;
                let Waiting { call, .. } = self.waiting.pop_front()?;
                self.waiting_bytes -= memory_bytes(&call);
                Some(Step::Ended(Box::new(call)))
            }
        }
    }

    /// When the first call of the window ended. If that is not known, it was before the next one whose end is.
    fn end_of_front(&self) -> i64 {
        self.waiting.iter().take(UNKNOWN_ENDS).find_map(|waiting| waiting.end_ns).unwrap_or(i64::MAX)
    }

    fn enter(&mut self) -> Option<Step> {
        let Reverse((_, number)) = self.to_enter.pop()?;
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(at)?.entered = true;
        Some(Step::Entered(number))
    }

    fn call(&self, number: u64) -> Option<&RecordedCall> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.waiting.get(at).map(|waiting| &waiting.call)
    }
}

const fn memory_bytes(call: &RecordedCall) -> usize {
    call.entry_memory.len() + call.exit_memory.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{CallId, Loss};
    use crate::testing::{call, recorded};

    /// What a sink was told: `e` or `c`, CPU, number.
    #[derive(Default)]
    struct Told(Vec<(char, u32, u64)>);

    impl CallSink for Told {
        type Error = RecordingError;

        fn entered(&mut self, call: &Call<'_>) -> Result<(), RecordingError> {
            assert_eq!((call.outcome, call.duration_ns), (Outcome::Unfinished, None));
            self.0.push(('e', call.id.pcpu, call.id.sequence));
            Ok(())
        }

        fn call(&mut self, call: &Call<'_>) -> Result<(), RecordingError> {
            self.0.push(('c', call.id.pcpu, call.id.sequence));
            Ok(())
        }

        fn loss(&mut self, _: &Loss) -> Result<(), RecordingError> {
            Ok(())
        }
    }

    fn at(
        pcpu: u32,
        sequence: u64,
        time_ns: i64,
        duration_ns: Option<u64>,
        parent: Option<u64>,
    ) -> RecordedCall {
        let outcome = if duration_ns.is_some() { Outcome::Returned(0) } else { Outcome::Unfinished };
        let (id, parent) = (CallId { pcpu, sequence }, parent.map(|sequence| CallId { pcpu, sequence }));
        recorded(&Call { id, time_ns, duration_ns, parent, ..call(29, [0; 6], outcome) })
    }

    fn told(calls: Vec<RecordedCall>) -> String {
        let mut told = Told::default();
        replay(calls.into_iter().map(Ok), &mut told).unwrap();
        let words = told.0.iter().map(|(what, pcpu, sequence)| format!("{what}{pcpu}.{sequence}"));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn calls_enter_and_end_as_they_did() {
        // CPU 0 is in a long call while CPU 1 makes two short ones.
        let calls =
            vec![at(1, 0, 20, Some(5), None), at(1, 1, 30, Some(5), None), at(0, 0, 10, Some(100), None)];
        assert_eq!(told(calls), "e0.0 e1.0 c1.0 e1.1 c1.1 c0.0");
    }

    #[test]
    fn inner_calls_end_with_their_multicall() {
        let calls = vec![
            at(0, 0, 10, Some(90), None),
            at(0, 1, 20, Some(5), Some(0)),
            at(0, 2, 30, Some(5), Some(0)),
            at(1, 0, 95, Some(10), None),
            at(0, 3, 110, Some(1), None),
        ];
        assert_eq!(told(calls), "e0.0 e0.1 e0.2 e1.0 c0.0 c0.1 c0.2 c1.0 e0.3 c0.3");
    }

    #[test]
    fn a_call_that_never_returned_ends_when_its_cpu_goes_on() {
        let calls = vec![
            at(1, 0, 20, Some(5), None),
            at(0, 0, 10, None, None),
            at(0, 1, 50, Some(5), None),
            at(1, 1, 60, None, None),
        ];
        assert_eq!(told(calls), "e0.0 e1.0 c1.0 c0.0 e0.1 c0.1 e1.1 c1.1");
    }

    #[test]
    fn a_recording_that_makes_no_sense_is_handed_on_whole() {
        let calls = vec![
            at(0, 5, 100, Some(u64::MAX), Some(9)),
            at(0, 5, i64::MAX, None, None),
            at(0, 1, i64::MIN, Some(u64::MAX), None),
            at(0, 1, 0, None, None),
        ];
        let told = told(calls);
        assert_eq!((told.matches('e').count(), told.matches('c').count()), (4, 4));
    }
}
