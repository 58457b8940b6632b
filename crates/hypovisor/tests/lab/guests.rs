//! Every kind of guest is seen from its first call to its last, and whatever a user can do with a recording works on it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use hypovisor_engine::call::{CallId, Outcome};
use hypovisor_engine::recording::{Manifest, RecordedCall, Recording};
use hypovisor_event::record::CallerMode;
use serde_json::Value;

use crate::support::{hypovisor, lab_run, one_machine, run, text};

/// `__HYPERVISOR_multicall` and `__HYPERVISOR_iret` (Xen public/xen.h).
const MULTICALL: u64 = 13;
const IRET: u64 = 23;

/// Boots a PV and a PVH Linux, and as much of an HVM one as makes calls: its firmware is enough. Then fails on purpose.
const SCRIPT: &str = "set -e
/lab/bin/lab-domus pv >&2
/lab/bin/lab-domus pvh >&2 || echo 'the PVH guest did not come to its end' >&2
xl create /lab/domu/hvm.cfg >&2
sleep 12
xl destroy hvm >&2 || true
cat /lab/files/hello
exit 7
";

fn record(dir: &Path) -> Vec<RecordedCall> {
    let files = dir.join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("hello"), "from the host\n").unwrap();
    let script = dir.join("script");
    std::fs::write(&script, SCRIPT).unwrap();
    let mut command = lab_run();
    command.arg("--record").arg(dir.join("recording"));
    command.arg("--files").arg(&files).arg("--script").arg(&script);
    let output = run(&mut command, 7);
    assert_eq!(text(&output.stdout), "from the host\n");
    let recording = Recording::open(&dir.join("recording")).unwrap();
    recording.calls().unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn every_kind_of_guest_is_seen_and_every_view_works() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let calls = record(dir.path());
    let recording = dir.path().join("recording");
    let manifest = Recording::open(&recording).unwrap().manifest().clone();
    assert_domains(&manifest, &calls);
    assert_nothing_missing(&manifest, &calls);
    assert_first_calls(&calls);
    assert_multicalls_are_whole(&calls);
    assert_continuations(&calls);
    assert_everything_has_a_name(&calls);
    assert_views(&recording, &calls);
}

fn assert_domains(manifest: &Manifest, calls: &[RecordedCall]) {
    let kinds: Vec<(&str, &str)> =
        manifest.domains.iter().map(|domain| (domain.name.as_str(), domain.kind.name())).collect();
    assert_eq!(kinds, [("Domain-0", "PV"), ("pv", "PV"), ("pvh", "PVH"), ("hvm", "HVM")]);
    let modes = |domain: u16| -> HashSet<CallerMode> {
        calls.iter().filter(|call| call.caller.domain == domain).map(|call| call.caller.mode).collect()
    };
    assert_eq!(modes(0), HashSet::from([CallerMode::Pv64]));
    assert_eq!(modes(1), HashSet::from([CallerMode::Pv64]));
    assert!(modes(2).contains(&CallerMode::Hvm64));
    // Its firmware runs in 32-bit mode.
    assert!(modes(3).contains(&CallerMode::Hvm32));
}

fn assert_nothing_missing(manifest: &Manifest, calls: &[RecordedCall]) {
    assert_eq!(manifest.lost_calls(), 0);
    assert_eq!(manifest.events, calls.len() as u64);
    for pcpu in 0..manifest.vcpus {
        let mut own: Vec<u64> =
            calls.iter().filter(|call| call.id.pcpu == pcpu).map(|call| call.id.sequence).collect();
        own.sort_unstable();
        assert!(own.len() > 1000, "CPU {pcpu} made {} calls", own.len());
        assert!(own.iter().copied().eq(0..own.len() as u64), "CPU {pcpu} has gaps");
    }
}

/// From the very first call that dom0's kernel makes.
fn assert_first_calls(calls: &[RecordedCall]) {
    let first = calls.iter().min_by_key(|call| call.time_ns).unwrap();
    assert_eq!((first.caller.domain, first.caller.vcpu, first.id.pcpu, first.id.sequence), (0, 0, 0, 0));
    let versions = calls.iter().filter(|call| call.sub_op.as_deref() == Some("XENVER_version"));
    assert!(versions.clone().count() > 2);
    assert!(versions.clone().all(|call| call.outcome == Outcome::Returned(0x4_0014)), "this is Xen 4.20");
}

/// A multicall that returned has exactly the inner calls its arguments say.
fn assert_multicalls_are_whole(calls: &[RecordedCall]) {
    let mut inner: HashMap<CallId, u64> = HashMap::new();
    for parent in calls.iter().filter_map(|call| call.parent) {
        *inner.entry(parent).or_default() += 1;
    }
    let whole =
        |call: &&RecordedCall| call.registers.number == MULTICALL && call.outcome == Outcome::Returned(0);
    let multicalls: Vec<&RecordedCall> = calls.iter().filter(whole).collect();
    assert!(multicalls.len() > 100);
    for call in multicalls {
        let wanted = call.registers.args[1] & 0xffff_ffff;
        assert_eq!(inner.get(&call.id).copied().unwrap_or(0), wanted, "{call:?}");
    }
}

/// A preempted call is issued again, by the same vCPU, unless its domain ends first.
fn assert_continuations(calls: &[RecordedCall]) {
    let by_id: HashMap<CallId, &RecordedCall> = calls.iter().map(|call| (call.id, call)).collect();
    let continuations: Vec<&RecordedCall> = calls.iter().filter(|call| call.continues.is_some()).collect();
    assert!(continuations.len() > 100);
    for call in &continuations {
        let before = by_id[&call.continues.unwrap()];
        assert_eq!(before.outcome, Outcome::Preempted);
        assert_eq!(before.registers.number, call.registers.number);
        assert_eq!((before.caller.domain, before.caller.vcpu), (call.caller.domain, call.caller.vcpu));
    }
    let preempted = calls.iter().filter(|call| call.outcome == Outcome::Preempted).count();
    assert!(preempted - continuations.len() <= 2, "{preempted} preempted, {} continued", continuations.len());
}

fn assert_everything_has_a_name(calls: &[RecordedCall]) {
    for call in calls {
        assert!(!call.hypercall.starts_with("hypercall_"), "{call:?}");
        assert!(call.sub_op_number.is_none() || call.sub_op.is_some() || call.outcome.failed(), "{call:?}");
        assert_eq!(call.registers.number == IRET, call.outcome == Outcome::Resumed, "{call:?}");
    }
    let unfinished = calls.iter().filter(|call| call.outcome == Outcome::Unfinished);
    let unfinished: Vec<&RecordedCall> = unfinished.collect();
    assert!(unfinished.len() <= 2, "only powering off does not return: {unfinished:?}");
}

fn assert_views(recording: &Path, calls: &[RecordedCall]) {
    let lines = text(&run(hypovisor().arg("trace").arg(recording), 0).stdout);
    assert_eq!(lines.lines().count(), calls.len());
    assert!(lines.lines().all(|line| line.contains(" = ") || line.contains('…')));

    let json = text(&run(hypovisor().args(["trace", "--json", "--domain", "2"]).arg(recording), 0).stdout);
    let objects: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(objects.iter().all(|object| object["domain"] == 2 && object["domain_name"] == "pvh"));
    assert_eq!(objects.len(), calls.iter().filter(|call| call.caller.domain == 2).count());

    let filtered =
        hypovisor().args(["trace", "--json", "--failed", "--hypercall", "memory_op"]).arg(recording).output();
    for line in text(&filtered.unwrap().stdout).lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        assert!(object["hypercall"] == "memory_op" && object["result"].as_i64().unwrap() < 0);
    }
    run(hypovisor().args(["trace", "--hypercall", "no_such_call"]).arg(recording), 2);

    let summary = run(hypovisor().args(["stats", "--json"]).arg(recording), 0);
    let summary: Value = serde_json::from_slice(&summary.stdout).unwrap();
    assert_eq!(
        (summary["events"].as_u64(), summary["dropped"].as_u64()),
        (Some(calls.len() as u64), Some(0))
    );
    assert_eq!(summary["domains"].as_array().unwrap().len(), 4);

    let report = recording.join("report.html");
    run(hypovisor().arg("report").arg(recording).arg("-o").arg(&report), 0);
    let html = std::fs::read_to_string(report).unwrap();
    assert!(
        html.contains("<svg")
            && html.contains("Domain-0")
            && !html.contains("http://")
            && !html.contains("src=")
    );
}
