//! From records to calls.

use super::*;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::Intervention;

/// CPU, sequence number, how it ended, what it continues, its multicall.
type SeenCall = (u32, u64, Outcome, Option<CallId>, Option<u64>);

#[derive(Default)]
struct Seen {
    calls: Vec<SeenCall>,
    entered: Vec<(u32, u64, i64)>,
}

impl CallSink for Seen {
    type Error = std::convert::Infallible;

    fn call(&mut self, call: &Call<'_>) -> Result<(), Self::Error> {
        let parent = call.parent.map(|id| id.sequence);
        self.calls.push((call.id.pcpu, call.id.sequence, call.outcome, call.continues, parent));
        let entered = (call.id.pcpu, call.id.sequence, call.time_ns);
        assert!(self.entered.contains(&entered), "it was not announced, or with another time");
        Ok(())
    }

    fn entered(&mut self, call: &Call<'_>) -> Result<(), Self::Error> {
        assert_eq!((call.outcome, call.duration_ns), (Outcome::Unfinished, None));
        self.entered.push((call.id.pcpu, call.id.sequence, call.time_ns));
        Ok(())
    }

    fn loss(&mut self, _: &Loss) -> Result<(), Self::Error> {
        Ok(())
    }
}

const CALLER: Caller =
    Caller { domain: 3, vcpu: 1, mode: CallerMode::Pv64, cpl: 3, cs: 0xe033, rip: 0x1002, rsp: 0x7000 };

fn entry(sequence: u64, number: u64, args: [u64; 6]) -> Entry {
    let intervention = Intervention::default();
    Entry { sequence, time_ticks: sequence, caller: CALLER, parent: None, number, args, intervention }
}

fn exit(sequence: u64, reissue: Option<Reissue>) -> Exit {
    Exit { sequence, time_ticks: sequence + 10, result: 0, reissue }
}

/// Feeds records in order and gives what came out.
fn pair(records: &[(u32, Result<Entry, Exit>)]) -> Seen {
    let (clock, mut seen, mut pairing) = (Clock::measure(), Seen::default(), Pairing::new(2));
    for (pcpu, record) in records {
        let record = match *record {
            Ok(entry) => Record::Entry { entry, segments: &[], cut: false },
            Err(exit) => Record::Exit { exit, segments: &[], cut: false },
        };
        let Ok(()) = pairing.record(*pcpu, record, &clock, &mut seen);
    }
    let Ok(()) = pairing.finish(&clock, &mut seen);
    seen
}

#[test]
fn a_call_that_never_returns_is_unfinished() {
    let seen = pair(&[(0, Ok(entry(0, 17, [0; 6]))), (0, Ok(entry(1, 17, [0; 6]))), (0, Err(exit(1, None)))]);
    let expected = [(0, 0, Outcome::Unfinished, None, None), (0, 1, Outcome::Returned(0), None, None)];
    assert_eq!(seen.calls, expected);
}

#[test]
fn calls_are_announced_when_they_enter_each_at_a_later_time() {
    let same_time = |sequence| Entry { time_ticks: 7, ..entry(sequence, 17, [0; 6]) };
    let inner = Entry { parent: Some(0), ..same_time(1) };
    let seen = pair(&[(0, Ok(entry(0, 13, [0, 1, 0, 0, 0, 0]))), (1, Ok(same_time(0))), (0, Ok(inner))]);
    let order: Vec<(u32, u64)> = seen.entered.iter().map(|(pcpu, sequence, _)| (*pcpu, *sequence)).collect();
    assert_eq!(order, [(0, 0), (1, 0), (0, 1)]);
    assert!(seen.entered.is_sorted_by(|(.., earlier), (.., later)| earlier < later));
}

#[test]
fn a_small_step_of_the_clock_does_not_turn_time_back_a_large_one_does() {
    let mut pairing = Pairing::new(1);
    let given = [5_000, 4_000, 5_000, MAX_STEP_BACK_NS * 2, 7, 7];
    let taken = given.map(|time_ns| pairing.entry_time(time_ns));
    assert_eq!(taken, [5_000, 5_001, 5_002, MAX_STEP_BACK_NS * 2, 7, 8]);
}

#[test]
fn a_continuation_is_recognised_on_another_cpu_and_behind_an_interrupt() {
    let reissue = Reissue { rip: 0x1002, rsp: 0x7000, number: 12, args: [0x46, 5, 0, 0, 0, 0] };
    let mut interrupt = entry(0, 32, [4, 5, 0, 0, 0, 0]);
    interrupt.caller.rsp = 0x6f00;
    let seen = pair(&[
        (0, Ok(entry(0, 12, [6, 5, 0, 0, 0, 0]))),
        (0, Err(exit(0, Some(reissue)))),
        (1, Ok(interrupt)),
        (1, Err(exit(0, None))),
        (1, Ok(entry(1, 12, reissue.args))),
        (1, Err(exit(1, None))),
    ]);
    let first = CallId { pcpu: 0, sequence: 0 };
    let expected = [
        (0, 0, Outcome::Preempted, None, None),
        (1, 0, Outcome::Returned(0), None, None),
        (1, 1, Outcome::Returned(0), Some(first), None),
    ];
    assert_eq!(seen.calls, expected);
}

#[test]
fn a_preempted_inner_call_goes_on_as_the_first_of_the_next_multicall() {
    let inner = |sequence, parent| Entry { parent: Some(parent), ..entry(sequence, 26, [0; 6]) };
    let reissue = Reissue { rip: 0x1002, rsp: 0x7000, number: MULTICALL, args: [0x40, 2, 0, 0, 0, 0] };
    let seen = pair(&[
        (0, Ok(entry(0, MULTICALL, [0, 3, 0, 0, 0, 0]))),
        (0, Ok(inner(1, 0))),
        (0, Err(exit(1, None))),
        (0, Ok(inner(2, 0))),
        (0, Err(exit(2, None))),
        (0, Err(exit(0, Some(reissue)))),
        (0, Ok(entry(3, MULTICALL, reissue.args))),
        (0, Ok(inner(4, 3))),
        (0, Err(exit(4, None))),
        (0, Err(exit(3, None))),
    ]);
    let id = |sequence| Some(CallId { pcpu: 0, sequence });
    let expected = [
        (0, 0, Outcome::Preempted, None, None),
        (0, 1, Outcome::Returned(0), None, Some(0)),
        (0, 2, Outcome::Preempted, None, Some(0)),
        (0, 3, Outcome::Returned(0), id(0), None),
        (0, 4, Outcome::Returned(0), id(2), Some(3)),
    ];
    assert_eq!(seen.calls, expected);
}
