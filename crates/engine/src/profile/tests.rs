//! What is learned, and what deviates from it.

use super::*;
use crate::call::{Call, CallId, CallSink as _, Outcome};
use crate::testing::call;

/// `sched_op(SCHEDOP_yield)`, `iret`, `console_io(…)`.
const YIELD: u64 = 29;
const IRET: u64 = 23;
const CONSOLE: u64 = 18;

fn at(time_ms: i64, number: u64) -> Call<'static> {
    let id = CallId { pcpu: 0, sequence: time_ms as u64 };
    Call { id, time_ns: time_ms * 1_000_000, ..call(number, [0; 6], Outcome::Returned(0)) }
}

/// A vCPU that yields and returns in turn, ten times a second.
fn usual() -> Vec<Call<'static>> {
    (0..100).map(|tenth| at(tenth * 100, if tenth % 2 == 0 { YIELD } else { IRET })).collect()
}

fn learned() -> Profile {
    let mut learner = Learner::default();
    learner.begin();
    for call in usual() {
        learner.entered(&Call { outcome: Outcome::Unfinished, ..call }).unwrap();
        learner.call(&call).unwrap();
    }
    learner.finish()
}

fn deviations(profile: &Profile, calls: &[Call<'_>]) -> Vec<Deviation> {
    let (mut watch, mut found) = (ProfileWatch::new(profile), Vec::new());
    for call in calls {
        watch.entered(call, CallerKind::Pv, &mut |deviation| found.push(deviation));
        watch.ended(call, CallerKind::Pv, &mut |deviation| found.push(deviation));
    }
    found
}

fn reasons(found: &[Deviation]) -> Vec<&str> {
    found.iter().filter_map(|deviation| deviation.reason.as_deref()).collect()
}

#[test]
fn a_profile_says_what_domains_of_a_kind_do() {
    let profile = learned();
    let pv = &profile.kinds[&CallerKind::Pv];
    assert_eq!((pv.domains, pv.calls, profile.recordings), (1, 100, 1));
    let sched = &pv.operations["sched_op/SCHEDOP_yield"];
    assert_eq!((sched.calls, sched.max_per_second, sched.p99_per_second), (50, 5, 5));
    assert_eq!(pv.sequences["iret"]["sched_op/SCHEDOP_yield"], ["iret"]);
    let text = serde_json::to_vec(&profile).unwrap();
    assert_eq!(Profile::from_bytes(&text).unwrap(), profile);
}

#[test]
fn what_was_learned_is_no_deviation() {
    assert_eq!(deviations(&learned(), &usual()), []);
}

#[test]
fn a_new_call_is_told_once_a_minute_and_counted() {
    let calls: Vec<Call<'_>> = (0..61).map(|second| at(second * 1000, CONSOLE)).collect();
    let found = deviations(&learned(), &calls);
    assert_eq!(found.len(), 61);
    let name = Operation::of(&at(0, CONSOLE)).name();
    let first = format!("pv domain 3 made {name}, which no pv domain did in the recording learned from");
    assert_eq!(reasons(&found), [first.clone(), format!("{first}; 59 more since this was last told")]);
}

#[test]
fn a_new_sequence_a_flood_and_a_new_failure_are_deviations() {
    let found = deviations(&learned(), &[at(0, IRET), at(1, IRET), at(2, YIELD)]);
    let expected = "pv domain 3 made iret → iret → sched_op/SCHEDOP_yield, a sequence never seen in the recording learned from";
    assert_eq!(reasons(&found), [expected]);

    let flood: Vec<Call<'_>> =
        (0..400).map(|at_ms| at(at_ms, if at_ms % 2 == 0 { YIELD } else { IRET })).collect();
    let found = deviations(&learned(), &flood);
    assert_eq!(
        reasons(&found),
        [
            "pv domain 3 made more than 100 calls of sched_op/SCHEDOP_yield in 1 s, learned maximum 5",
            "pv domain 3 made more than 100 calls of iret in 1 s, learned maximum 5"
        ]
    );

    let failed = Call { outcome: Outcome::Returned(-1), ..at(0, YIELD) };
    let found = deviations(&learned(), &[failed]);
    assert_eq!(
        reasons(&found),
        ["sched_op/SCHEDOP_yield of pv domain 3 failed with EPERM; in what was learned it never failed"]
    );
}

#[test]
fn a_kind_that_was_not_learned_is_told_as_such() {
    let (mut watch, mut found) = (ProfileWatch::new(&learned()), Vec::new());
    watch.entered(&at(0, YIELD), CallerKind::Hvm, &mut |deviation| found.push(deviation));
    assert_eq!(
        reasons(&found),
        ["hvm domain 3 calls, and there was no hvm domain in the recording learned from"]
    );
}

#[test]
fn state_is_bounded_whatever_a_guest_calls() {
    let (mut watch, mut told) = (ProfileWatch::new(&learned()), 0);
    for number in 0..10_000 {
        let mut call = at(1, 100_000 + number);
        call.caller.vcpu = number as u16;
        watch
            .entered(&call, CallerKind::Pv, &mut |deviation| told += usize::from(deviation.reason.is_some()));
    }
    assert!(told <= 258, "{told} deviations told");
}

#[test]
fn profiles_that_are_none_are_refused() {
    let profile = learned();
    let refused = |change: &dyn Fn(&mut Profile)| {
        let mut changed = profile.clone();
        change(&mut changed);
        Profile::from_bytes(&serde_json::to_vec(&changed).unwrap()).unwrap_err()
    };
    assert!(refused(&|profile| profile.version = 2).contains("version 2"));
    assert!(refused(&|profile| profile.tolerance.rate_factor = -1.0).contains("rate_factor"));
    let error = refused(&|profile| {
        let pv = profile.kinds.get_mut(&CallerKind::Pv).unwrap();
        pv.operations.insert("no_such".to_owned(), OperationProfile::default());
    });
    assert_eq!(error, "kinds.pv: operations: no call is named \"no_such\"");
    let error = refused(&|profile| {
        let pv = profile.kinds.get_mut(&CallerKind::Pv).unwrap();
        pv.operations.remove("iret");
    });
    assert_eq!(error, "kinds.pv: sequences: \"iret\" is not among the operations");
}
