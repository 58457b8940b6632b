//! `rules`, `learn`, `policy` and `trace` with their outcome, on a recording made by hand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_engine::call::{Call, CallId, CallSink as _, Outcome};
use hypovisor_engine::recording::{Manifest, Recorder, RecorderOptions};
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::Intervention;
use serde_json::Value;

const OPTIONS: RecorderOptions = RecorderOptions {
    flush_after: std::time::Duration::from_secs(1),
    segment_calls: 1000,
    segment_memory_bytes: 1 << 20,
    own_thread: false,
};
const YIELD: u64 = 29;
const PLATFORM_OP: u64 = 7;

/// Domain 3 yields a hundred times, and `odd` tries to control the host.
fn record(dir: &Path, odd: bool) {
    let mut recorder = Recorder::create(dir, Manifest::default(), OPTIONS).unwrap();
    for sequence in 0..100 {
        let number = if odd && sequence == 50 { PLATFORM_OP } else { YIELD };
        let result = if number == YIELD { 0 } else { -1 };
        let caller =
            Caller { domain: 3, vcpu: 0, mode: CallerMode::Pv64, cpl: 3, cs: 0xe033, rip: 1, rsp: 2 };
        let call = Call {
            id: CallId { pcpu: 0, sequence },
            time_ns: 1_700_000_000_000_000_000 + sequence as i64 * 20_000_000,
            duration_ns: Some(1000),
            caller,
            parent: None,
            continues: None,
            registers: Registers { number, args: [0; 6], width: Width::Bits64 },
            entry_segments: &[],
            exit_segments: &[],
            cut: false,
            intervention: Intervention::default(),
            outcome: Outcome::Returned(result),
        };
        recorder.call(&call).unwrap();
    }
    recorder.finish().unwrap();
}

const RULE: &str = "id: CONTROL\ntitle: Control of the host\ndescription: d\nblind_spots: b\nreferences: []\nseverity: high\n\
                    tags: []\non: platform_op\nwhen: '!privileged'\n";

/// A directory with recordings `usual` and `odd` and rules.
fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("usual"), false);
    record(&dir.path().join("odd"), true);
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("rules/control.yaml"), RULE).unwrap();
    dir
}

/// Runs `hypovisor` in `dir`, which has to end with `code`.
fn hypovisor(dir: &Path, args: &[&str], code: i32) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_hypovisor")).args(args).current_dir(dir).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}: {}{}",
        text(&output),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn rules_are_checked_with_file_line_and_column() {
    let scene = scene();
    let dir = scene.path();
    assert!(
        text(&hypovisor(dir, &["rules", "check", "rules"], 0)).starts_with("1 rules can be used: 1 high;")
    );
    let passed: Value =
        serde_json::from_str(&text(&hypovisor(dir, &["rules", "check", "rules", "--json"], 0))).unwrap();
    assert_eq!((&passed["ok"], &passed["rules"][0]["id"]), (&true.into(), &"CONTROL".into()));

    std::fs::write(
        dir.join("rules/wrong.yaml"),
        RULE.replace("platform_op", "platform_opp").replace("CONTROL", "X"),
    )
    .unwrap();
    let told = text(&hypovisor(dir, &["rules", "check", "rules"], 1));
    assert!(told.starts_with("rules/wrong.yaml:8:5: on:"), "{told}");
    let failed: Value =
        serde_json::from_str(&text(&hypovisor(dir, &["rules", "check", "rules", "--json"], 1))).unwrap();
    assert_eq!((&failed["ok"], &failed["problems"][0]["line"]), (&false.into(), &8.into()));
    hypovisor(dir, &["trace", "usual", "--rules", "rules"], 2);
}

#[test]
fn rules_are_tried_on_recordings() {
    let scene = scene();
    let dir = scene.path();
    let told = text(&hypovisor(dir, &["rules", "test", "rules", "--recording", "usual"], 0));
    assert_eq!(told, "100 calls, 1 rules: 0 alerts by 0 rules, 0 of them high or critical\n");
    let told =
        text(&hypovisor(dir, &["rules", "test", "rules", "--recording", "usual", "--recording", "odd"], 1));
    assert!(told.contains("1  high           CONTROL"), "{told}");
    let args = ["rules", "test", "rules", "--recording", "odd", "--json"];
    let tested: Value = serde_json::from_str(&text(&hypovisor(dir, &args, 1))).unwrap();
    assert_eq!((&tested["alerts"], &tested["rules"][0]["alerts"]), (&1.into(), &1.into()));
}

#[test]
fn trace_shows_the_calls_that_alert() {
    let scene = scene();
    let dir = scene.path();
    assert_eq!(text(&hypovisor(dir, &["trace", "usual", "--rules", "rules"], 0)), "");
    let told = text(&hypovisor(dir, &["trace", "odd", "--rules", "rules"], 1));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("dom3.v0  cpu0  platform_op(") && lines[0].contains("= -EPERM"), "{told}");
    assert_eq!(lines[1], "    ^ high CONTROL: Control of the host");
    assert_eq!(lines.len(), 2);
    let alert: Value =
        serde_json::from_str(&text(&hypovisor(dir, &["trace", "odd", "--rules", "rules", "--json"], 1)))
            .unwrap();
    assert_eq!((&alert["rule"]["id"], &alert["event"]["sequence"]), (&"CONTROL".into(), &50.into()));
    assert_eq!(alert["before"].as_array().unwrap().len(), 8);
    assert!(alert["reported_ns"].is_null());
    assert_eq!(text(&hypovisor(dir, &["trace", "odd", "--rules", "rules", "--domain", "4"], 1)), "");
}

#[test]
fn what_is_usual_is_learned_and_what_is_not_is_told() {
    let scene = scene();
    let dir = scene.path();
    let told = text(&hypovisor(dir, &["learn", "usual", "-o", "profile.json"], 0));
    assert_eq!(told, "pv         1 domains, 100 calls, 1 different ones, 1 sequences\n");
    hypovisor(dir, &["trace", "usual", "--profile", "profile.json"], 0);
    let told = text(&hypovisor(dir, &["trace", "odd", "--profile", "profile.json"], 1));
    assert!(told.contains("pv domain 3 made platform_op"), "{told}");

    hypovisor(dir, &["policy", "usual", "-o", "policy.yaml"], 0);
    hypovisor(dir, &["trace", "usual", "--policy", "policy.yaml"], 0);
    let told = text(&hypovisor(dir, &["trace", "odd", "--policy", "policy.yaml"], 1));
    assert!(told.contains("medium policy.pv.calls: "), "{told}");
    std::fs::write(dir.join("wrong.yaml"), "version: 1\nentries: [{kind: zv}]").unwrap();
    let output = hypovisor(dir, &["trace", "odd", "--policy", "wrong.yaml"], 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong.yaml:2: \"zv\" is none of"));
}

#[test]
fn the_schema_is_json() {
    let scene = scene();
    let schema: Value =
        serde_json::from_str(&text(&hypovisor(scene.path(), &["rules", "schema"], 0))).unwrap();
    assert!(schema["$schema"].is_string());
}
