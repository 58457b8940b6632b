//! What the fuzz targets and the tests that replay their seeds share: segments of a recording, batches of records,
//! profiles and policies, made of arbitrary bytes.

use std::convert::Infallible;
use std::sync::OnceLock;

use hypovisor_abi::text::Detail;
use hypovisor_event::record::{Record, Records};

use crate::alert::{AlertError, Alerter, Detection, Report};
use crate::call::{Call, CallSink, Loss};
use crate::clock::Clock;
use crate::domains::Domains;
use crate::pairing::Pairing;
use crate::policy::{Policy, PolicyError};
use crate::profile::Profile;
use crate::{event_json, event_line, recording};

/// Records are dealt out to so many rings, by their time.
const RINGS: usize = 2;

/// Reads bytes as a segment of a recording: the number of calls in it, or what is wrong with it.
///
/// A panic of the `parquet` crate counts as something wrong with it, as it does in the reader.
///
/// # Errors
/// What a reader of the recording would be told.
pub fn read_segment(data: &[u8]) -> Result<usize, String> {
    recording::fuzzing::read_segment(data)
}

/// Reads bytes as a profile and compares records with it. False: they are no profile.
#[must_use]
pub fn profile_file(data: &[u8], records: &[u8]) -> bool {
    let Ok(profile) = Profile::from_bytes(data) else { return false };
    let detection = Detection::default().with_profile(&profile);
    let mut sink = Alerting(Alerter::replaying(detection, Vec::<Report>::new()));
    let (mut pairing, clock) = (Pairing::new(1), Clock::measure());
    for record in Records::new(records).map_while(Result::ok) {
        let Ok(()) = pairing.record(0, record, &clock, &mut sink) else { break };
    }
    true
}

/// Hands calls to what raises alerts.
struct Alerting(Alerter<Vec<Report>>);

impl CallSink for Alerting {
    type Error = AlertError;

    fn entered(&mut self, call: &Call<'_>) -> Result<(), AlertError> {
        self.0.entered(call)
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), AlertError> {
        self.0.ended(call)
    }

    fn loss(&mut self, _: &Loss) -> Result<(), AlertError> {
        self.0.lost();
        Ok(())
    }
}

/// Reads bytes as a policy, which has to survive being written, and makes its rules. False: they are no policy.
///
/// # Panics
/// If what was written is not read back, or the rules do not load although no domain is named.
#[must_use]
pub fn policy_file(data: &[u8]) -> bool {
    let Ok(policy) = Policy::from_yaml(&String::from_utf8_lossy(data)) else { return false };
    let again = Policy::from_yaml(&policy.to_yaml());
    assert_eq!(again.map(|again| again.to_yaml()), Ok(policy.to_yaml()), "lost on the way");
    for deny in [false, true] {
        match policy.to_rules(&Domains::default(), deny) {
            Ok(_) | Err(PolicyError::UnknownDomain { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    true
}

/// Any records make calls: as many as entered, each of which has a line and an object. Says how many.
///
/// # Panics
/// When that does not hold.
pub fn pair_records(data: &[u8]) -> usize {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    let clock = CLOCK.get_or_init(Clock::measure);
    let (mut pairing, mut seen, mut entered) = (Pairing::new(RINGS), Seen::default(), 0);
    for record in Records::new(data).map_while(Result::ok) {
        let time_ticks = match record {
            Record::Entry { entry, .. } => entry.time_ticks,
            Record::Exit { exit, .. } => exit.time_ticks,
            Record::Gap(gap) => gap.time_ticks,
            Record::Injected { injected, .. } => injected.time_ticks,
        };
        entered += usize::from(matches!(record, Record::Entry { .. }));
        let pcpu = (time_ticks % RINGS as u64) as u32;
        let Ok(()) = pairing.record(pcpu, record, clock, &mut seen);
    }
    let Ok(()) = pairing.finish(clock, &mut seen);
    assert_eq!(seen.calls, entered);
    entered
}

#[derive(Default)]
struct Seen {
    calls: usize,
    domains: Domains,
    line: String,
}

impl CallSink for Seen {
    type Error = Infallible;

    fn call(&mut self, call: &Call<'_>) -> Result<(), Infallible> {
        self.calls += 1;
        self.domains.learn(call);
        for detail in [Detail::Line, Detail::Full] {
            self.line.clear();
            event_line::write_line(&mut self.line, call, detail);
            assert!(!self.line.contains(char::is_control), "{:?}", self.line);
        }
        self.line.clear();
        event_json::write_line(&mut self.line, call, None);
        assert!(serde_json::from_str::<serde_json::Value>(&self.line).is_ok(), "{}", self.line);
        Ok(())
    }

    fn loss(&mut self, _: &Loss) -> Result<(), Infallible> {
        Ok(())
    }
}
