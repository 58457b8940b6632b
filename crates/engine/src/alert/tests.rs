//! Alerts in each form, storms, and a replay against the session itself.

use std::time::{SystemTime, UNIX_EPOCH};

use hypovisor_abi::capture::{Phase, capture};
use hypovisor_abi::fuzzing::Copier;
use hypovisor_abi::xen::XEN;
use hypovisor_event::record::{Caller, CallerMode, Entry, Exit, Record};
use hypovisor_event::verdict::{Intervention, Verdict};
use hypovisor_rules::Rules;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::call::{Call, CallId, CallSink, Loss, Outcome};
use crate::clock::Clock;
use crate::pairing::Pairing;
use crate::profile::Profile;
use crate::recording::{RecordedCall, RecordingError};
use crate::testing::{call, recorded};

/// What everyone does: `sched_op` and `iret`, which never fails.
fn profile() -> Profile {
    let text = r#"{"format": "hypovisor-profile", "version": 1, "hypovisor_version": "", "recordings": 2, "kinds": {
        "pv": {"domains": 1, "calls": 3,
            "operations": {
                "sched_op/SCHEDOP_yield": {"calls": 2, "max_per_second": 2, "p99_per_second": 2},
                "iret": {"calls": 1, "max_per_second": 1, "p99_per_second": 1}},
            "sequences": {"iret": {"sched_op/SCHEDOP_yield": ["iret"]}}}}}"#;
    Profile::from_bytes(text.as_bytes()).unwrap()
}

const YIELD: u64 = 29;
const IRET: u64 = 23;
const CONSOLE: u64 = 18;

#[derive(Default)]
struct Nowhere(Vec<RecordedCall>);

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Alert(#[from] AlertError),
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

impl CallSink for Nowhere {
    type Error = Failed;

    fn call(&mut self, call: &Call<'_>) -> Result<(), Failed> {
        self.0.push(recorded(call));
        Ok(())
    }

    fn loss(&mut self, _: &Loss) -> Result<(), Failed> {
        Ok(())
    }
}

fn sink() -> AlertSink<Nowhere, Vec<Report>> {
    let detection = Detection::default().with_profile(&profile());
    AlertSink { inner: Nowhere::default(), alerter: Some(Alerter::replaying(detection, Vec::new())) }
}

/// A rate, a sequence, a condition on the result, and one that asks for a call to be refused.
fn rules() -> Rules {
    let rule = |id: &str, rest: &str| {
        let text = format!(
            "id: {id}\ntitle: t\ndescription: d\nblind_spots: b\nreferences: [CVE-2017-7228]\nseverity: high\ntags: []\n{rest}"
        );
        (format!("{id}.yaml").into(), text)
    };
    let sequence = "sequence: {within: 1s, steps: [{on: console_io}, {on: iret, when: cpl == 3}, {on: console_io, when: result == 0}]}";
    let texts = vec![
        rule("RATE", "on: '*'\nrate: {count: 3, within: 1ms}"),
        rule("SEQUENCE", sequence),
        rule("RESULT", "on: sched_op\nwhen: errno == 'EPERM'"),
        rule("DENY", "on: console_io\nwhen: domain == 2\naction: deny\nerrno: EPERM"),
    ];
    Rules::from_texts(texts).unwrap()
}

fn sink_with_rules() -> AlertSink<Nowhere, Vec<Report>> {
    let detection = Detection::default().with_profile(&profile()).with_rules(rules().into());
    AlertSink { inner: Nowhere::default(), alerter: Some(Alerter::replaying(detection, Vec::new())) }
}

/// What is raised on calls that enter and end one after the other.
fn raised(calls: &[Call<'_>]) -> Vec<Report> {
    let mut sink = sink();
    for call in calls {
        sink.entered(&Call { outcome: Outcome::Unfinished, duration_ns: None, ..*call }).unwrap();
        sink.call(call).unwrap();
    }
    reports(&mut sink)
}

fn reports(sink: &mut AlertSink<Nowhere, Vec<Report>>) -> Vec<Report> {
    let alerter = sink.alerter.as_mut().unwrap();
    alerter.finish().unwrap();
    std::mem::take(alerter.output())
}

fn lines(format: AlertFormat, reports: &[Report]) -> Vec<String> {
    let mut writer = AlertWriter::new(Vec::new(), format);
    reports.iter().for_each(|report| writer.report(report).unwrap());
    String::from_utf8(writer.into_inner()).unwrap().lines().map(str::to_owned).collect()
}

fn at(sequence: u64, number: u64) -> Call<'static> {
    let first = call(number, [0; 6], Outcome::Returned(0));
    Call { id: CallId { pcpu: 1, sequence }, time_ns: first.time_ns + sequence as i64 * 1_000_000, ..first }
}

#[test]
fn an_alert_has_the_rule_the_event_and_what_led_to_it() {
    let denied = Intervention { verdict: Some(Verdict::WouldDeny), ..Intervention::default() };
    let reports = raised(&[at(0, YIELD), at(1, IRET), Call { intervention: denied, ..at(2, CONSOLE) }]);
    let lines = lines(AlertFormat::Json, &reports);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let alert: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&alert["schema"], &alert["type"]), (&1.into(), &"alert".into()));
    assert_eq!(alert["time"], "2023-11-14T22:13:20.002123456Z");
    assert_eq!((&alert["moment"], &alert["taken"]), (&"entry".into(), &"would-deny".into()));
    assert_eq!(alert["rule"]["id"], "profile/call");
    assert_eq!((&alert["domain"], &alert["domain_name"]), (&3.into(), &"dom3".into()));
    assert_eq!(
        (&alert["event"]["hypercall"], &alert["event"]["result"]),
        (&"console_io".into(), &Value::Null)
    );
    let before: Vec<&Value> =
        alert["before"].as_array().unwrap().iter().map(|event| &event["hypercall"]).collect();
    assert_eq!(before, ["sched_op", "iret"]);
    assert_eq!(alert["before"][0]["outcome"], "returned");
    let read: Alert = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(read.count, 1);
}

#[test]
fn a_sequence_tells_its_steps_and_a_rule_what_it_asks_for() {
    let mut sink = sink_with_rules();
    let calls = [at(0, CONSOLE), at(1, IRET), at(2, YIELD), at(3, CONSOLE)];
    for mut call in calls {
        call.caller.domain = 2;
        sink.entered(&Call { outcome: Outcome::Unfinished, duration_ns: None, ..call }).unwrap();
        sink.call(&call).unwrap();
    }
    let reports = reports(&mut sink);
    let alerts = || {
        reports.iter().filter_map(|report| if let Report::Alert(alert) = report { Some(alert) } else { None })
    };
    let sequence = alerts().find(|alert| alert.rule.id == "SEQUENCE").unwrap();
    let steps: Vec<(u64, bool)> =
        sequence.steps.iter().map(|step| (step.sequence, step.event.is_some())).collect();
    assert_eq!((steps.as_slice(), sequence.moment), (&[(0, true), (1, true)][..], AlertMoment::Return));
    let denied = alerts().find(|alert| alert.rule.id == "DENY").unwrap();
    assert_eq!(
        (denied.rule.action, denied.taken, denied.rule.source),
        (Action::Deny, ActionTaken::Observed, Source::Rule)
    );
    let finding: Value = serde_json::from_str(&lines(AlertFormat::Ocsf, &reports)[0]).unwrap();
    assert_eq!(finding["vulnerabilities"][0]["cve"]["uid"], "CVE-2017-7228");
}

#[test]
fn a_condition_on_the_result_is_told_when_the_call_has_ended() {
    let failed = Call { outcome: Outcome::Returned(-1), ..at(0, YIELD) };
    let Report::Alert(alert) = &raised(&[failed])[0] else { panic!("no alert") };
    assert_eq!(alert.moment, AlertMoment::Return);
    assert_eq!(alert.time_ns, failed.time_ns + 14_200);
    assert!(alert.line.contains("= -EPERM"), "{}", alert.line);
}

#[test]
fn a_call_that_never_returns_is_told_of() {
    let mut sink = sink();
    sink.entered(&Call { outcome: Outcome::Unfinished, duration_ns: None, ..at(0, CONSOLE) }).unwrap();
    assert_eq!(reports(&mut sink).len(), 1);
}

#[test]
fn a_detection_finding_has_what_the_schema_requires() {
    let line = &lines(AlertFormat::Ocsf, &raised(&[at(0, CONSOLE)]))[0];
    let finding: Value = serde_json::from_str(line).unwrap();
    let required = [
        "activity_id",
        "category_uid",
        "class_uid",
        "finding_info",
        "metadata",
        "severity_id",
        "time",
        "type_uid",
    ];
    assert!(required.iter().all(|key| !finding[*key].is_null()), "{finding}");
    assert_eq!((&finding["class_uid"], &finding["type_uid"]), (&2004.into(), &200_401.into()));
    assert_eq!(finding["time"], 1_700_000_000_000_i64);
    assert_eq!((&finding["severity_id"], &finding["disposition_id"]), (&3.into(), &15.into()));
    assert!(finding["finding_info"]["uid"].as_str().unwrap().starts_with("profile/call:1-0:"));
    assert_eq!(finding["unmapped"]["hypovisor"]["event"]["hypercall"], "console_io");
}

#[test]
fn a_line_of_syslog_has_its_parts_and_no_foreign_line_end() {
    let mut reports = raised(&[at(0, CONSOLE)]);
    let Report::Alert(alert) = &mut reports[0] else { panic!("no alert") };
    alert.domain_name = Some("a\"]\nb".to_owned());
    let lines = lines(AlertFormat::Syslog, &reports);
    assert_eq!(lines.len(), 1);
    let words: Vec<&str> = lines[0].splitn(7, ' ').collect();
    assert_eq!(
        (words[0], words[1], words[3], words[5]),
        ("<84>1", "2023-11-14T22:13:20.000123Z", "hypovisor", "alert")
    );
    let parameters = "[hypovisor@32473 rule=\"profile/call\" severity=\"medium\" domain=\"3\" \
                      domain_name=\"a\\\"\\]?b\" taken=\"observed\" count=\"1\"] pv domain 3 made console_io/";
    assert!(words[6].starts_with(parameters), "{}", words[6]);
}

#[test]
fn looking_for_storms_that_are_over_does_not_end_one() {
    let rules = Detection::default().with_rules(rules().into());
    let mut alerter = Alerter::live(rules, Vec::new());
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let deny = |sequence| Call {
        time_ns: now,
        caller: Caller { domain: 2, ..at(0, CONSOLE).caller },
        ..at(sequence, CONSOLE)
    };
    for sequence in 0..30 {
        alerter.entered(&deny(sequence)).unwrap();
        alerter.tick().unwrap();
    }
    let told = |report: &Report| matches!(report, Report::Alert(alert) if alert.rule.id == "DENY");
    assert_eq!(alerter.output().iter().filter(|report| told(report)).count(), 10);
    let total = alerter.totals().iter().find(|total| total.rule.id == "DENY").unwrap();
    assert_eq!((total.alerts, total.told), (30, 10));
}

/// A list of 512 updates, each compared with each.
#[test]
fn a_rule_that_takes_too_long_is_switched_off_and_told() {
    let text = "id: SLOW\ntitle: t\ndescription: d\nblind_spots: b\nreferences: [none]\nseverity: high\ntags: []\n\
                on: mmu_update\nwhen: args.ureqs.all(u, args.ureqs.all(v, u.val + v.val < 0x1000000))";
    let rules = Rules::from_texts(vec![("SLOW.yaml".into(), text.to_owned())]).unwrap();
    let slow = call(1, [0x4000, 512, 0, 0x7ff0, 0, 0], Outcome::Unfinished);
    let mut memory = Copier::new(|_| Some(0));
    capture(&XEN, &slow.registers, Phase::Entry, &mut memory);
    let slow = Call { entry_segments: &memory.out, ..slow };
    let detection = Detection::default().with_rules(rules.into());
    let mut alerter = Alerter::replaying(detection, Vec::new());
    alerter.entered(&slow).unwrap();
    alerter.entered(&slow).unwrap();
    let told = std::mem::take(alerter.output());
    let [Report::RuleOff(off)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((off.rule.id.as_str(), off.domain), ("SLOW", 3));
    for (format, part) in [
        (AlertFormat::Json, "\"type\":\"rule-off\""),
        (AlertFormat::Ocsf, "switched off"),
        (AlertFormat::Syslog, " rule-off [hypovisor@32473 rule=\"SLOW\""),
    ] {
        assert!(lines(format, &told)[0].contains(part));
    }
}

#[test]
fn a_storm_is_told_in_part_and_counted_in_full() {
    let rule = || {
        let Report::Alert(alert) = raised(&[at(0, CONSOLE)]).remove(0) else { panic!("no alert") };
        alert.rule
    };
    let (rule, mut limiter, mut told, mut held_back) = (rule(), storm::Limiter::new(), 0, Vec::new());
    for time_ms in 0..2500 {
        let time_ns = time_ms * 1_000_000;
        if limiter.is_due(time_ns) {
            held_back.extend(limiter.close(time_ns).into_iter().map(|(_, storm)| storm.held_back));
        }
        told += u64::from(limiter.admit(0, &rule, time_ns, (time_ms % 20) as u16));
    }
    let last = limiter.close_all().remove(0).1;
    assert_eq!((told, held_back.as_slice(), last.held_back), (30, &[990, 990][..], 490));
    assert_eq!((last.from_ns, last.time_ns, last.domains.len()), (2_010_000_000, 2_499_000_000, 8));
    assert!(limiter.close_all().is_empty());
}

/// One call in a made-up session: CPU, number, result, how long it takes and when the next one comes, in ticks.
type MadeUp = (u32, u64, i64, u64, u64);

fn made_up() -> impl Strategy<Value = Vec<MadeUp>> {
    let number = prop_oneof![Just(YIELD), Just(IRET), Just(CONSOLE), 0_u64..60];
    let one = (0_u32..3, number, prop_oneof![Just(0_i64), -30_i64..0], 1_u64..50, 1_u64..50);
    proptest::collection::vec(one, 1..60)
}

/// Entries and exits of a session in the order of their time. Times are far enough apart to survive rounding.
fn records(calls: &[MadeUp]) -> Vec<(u32, Record<'static>)> {
    const APART: u64 = 1 << 16;
    let mut free_at = [0_u64; 3];
    let mut records = Vec::new();
    let mut now = 0;
    for (sequence, &(pcpu, number, result, duration, next)) in calls.iter().enumerate() {
        let start = free_at[pcpu as usize].max(now) + 1;
        let caller = Caller {
            domain: pcpu as u16 / 2 + 1,
            vcpu: 0,
            mode: CallerMode::Pv64,
            cpl: 3,
            cs: 0,
            rip: 0,
            rsp: 0,
        };
        let (sequence, intervention) = (sequence as u64, Intervention::default());
        let entry =
            Entry { sequence, time_ticks: start, caller, parent: None, number, args: [0; 6], intervention };
        records.push((start, pcpu, Record::Entry { entry, segments: &[], cut: false }));
        // Some never return: the CPU's next call shows it.
        if duration != 1 {
            let end = start + duration;
            let exit = Exit { sequence, time_ticks: end, result, reissue: None };
            records.push((end, pcpu, Record::Exit { exit, segments: &[], cut: false }));
        }
        free_at[pcpu as usize] = start + duration;
        now += next / 4;
    }
    records.sort_by_key(|(time, pcpu, _)| (*time, *pcpu));
    // No two at one time.
    let spread = |(index, (_, pcpu, record)): (usize, (u64, u32, Record<'static>))| {
        let time_ticks = (index as u64 + 1) * APART;
        let record = match record {
            Record::Entry { entry, segments, cut } => {
                Record::Entry { entry: Entry { time_ticks, ..entry }, segments, cut }
            }
            Record::Exit { exit, segments, cut } => {
                Record::Exit { exit: Exit { time_ticks, ..exit }, segments, cut }
            }
            other => other,
        };
        (pcpu, record)
    };
    records.into_iter().enumerate().map(spread).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_replay_raises_the_same_alerts(calls in made_up()) {
        static CLOCK: std::sync::OnceLock<Clock> = std::sync::OnceLock::new();
        let clock = CLOCK.get_or_init(Clock::measure);
        let (mut pairing, mut session) = (Pairing::new(3), sink_with_rules());
        for (pcpu, record) in records(&calls) {
            pairing.record(pcpu, record, clock, &mut session).unwrap();
        }
        pairing.finish(clock, &mut session).unwrap();
        let live = lines(AlertFormat::Json, &reports(&mut session));

        let mut again = sink_with_rules();
        replay(session.inner.0.into_iter().map(Ok), &mut again).unwrap();
        prop_assert_eq!(lines(AlertFormat::Json, &reports(&mut again)), live);
    }
}
