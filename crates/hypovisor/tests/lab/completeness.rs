//! Every call is there, and none is invented: against Xen's own trace, and against guests whose calls are known.

use std::collections::HashMap;
use std::path::Path;

use hypovisor_engine::call::{CallId, Outcome};
use hypovisor_engine::recording::{RecordedCall, Recording};
use hypovisor_lab::guests::{
    self, GUEST_MARKS, GuestKind, KnownArgument, MARK_NUMBER, Program, guest_name, known_sequence,
    mark_number,
};

use crate::support::{hypovisor, is_kvm, lab_run, one_machine, run, text};

/// Runs `known` as a guest of each kind inside a window of Xen's trace, and sends the trace as its only output.
const SCRIPT: &str = "set -e
cat >/tmp/work <<'END'
set -e
for guest in GUESTS; do
    xl create /lab/files/$guest.cfg
    tries=0
    while xl domid $guest >/dev/null 2>&1; do
        tries=$((tries + 1)); [ $tries -lt 600 ]; sleep 0.1
    done
    cat /var/log/xen/console/guest-$guest.log
done
END
sh /lab/files/window.sh /tmp/trace sh /tmp/work
gzip -c /tmp/trace
";

fn check(xen: &str, qemu: &str, symbols: &str) {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let (recording, files) = (dir.path().join("recording"), dir.path().join("files"));
    guests::build(&files).unwrap();
    let script = dir.path().join("script");
    let kinds = kinds();
    let guests: Vec<String> = kinds.iter().map(|kind| guest_name(Program::Known, *kind)).collect();
    std::fs::write(&script, SCRIPT.replace("GUESTS", &guests.join(" "))).unwrap();
    let mut command = lab_run();
    command.args(["--xen", xen, "--qemu", qemu, "--symbols", symbols, "--record"]).arg(&recording);
    command.arg("--files").arg(&files).arg("--script").arg(&script);
    let output = run(&mut command, 0);
    assert_eq!(text(&output.stderr).matches("known: done").count(), kinds.len(), "{}", text(&output.stderr));
    let trace = dir.path().join("trace.gz");
    std::fs::write(&trace, &output.stdout).unwrap();
    assert_xen_agrees(&recording, &trace);
    let calls: Vec<RecordedCall> =
        Recording::open(&recording).unwrap().calls().unwrap().collect::<Result<_, _>>().unwrap();
    for kind in kinds {
        assert_known(&recording, &calls, *kind);
    }
}

/// The kinds of guests that are run. Under emulated KVM, the device model of an HVM guest takes dom0 longer than anybody
/// waits.
fn kinds() -> &'static [GuestKind] {
    if is_kvm() { &[GuestKind::Pv, GuestKind::Pvh] } else { &GuestKind::ALL }
}

/// Call for call, in order, on every CPU, between the marks.
fn assert_xen_agrees(recording: &Path, trace: &Path) {
    let output =
        run(hypovisor().args(["lab", "witness", "--json"]).arg(recording).arg("--trace").arg(trace), 0);
    let agreement: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(agreement["missing"], 0, "{agreement}");
    assert_eq!(agreement["extra"], 0, "{agreement}");
    assert!(agreement["matched"].as_u64().unwrap() > 5_000, "{agreement}");
}

/// The guest's calls between its marks are those of its source, with their arguments and results.
fn assert_known(recording: &Path, calls: &[RecordedCall], kind: GuestKind) {
    let name = guest_name(Program::Known, kind);
    let manifest = Recording::open(recording).unwrap().manifest().clone();
    let domain = manifest.domains.iter().find(|domain| domain.name == name).unwrap();
    assert_eq!(domain.kind.name(), kind.name().to_uppercase());
    let own: Vec<&RecordedCall> = calls.iter().filter(|call| call.caller.domain == domain.id).collect();
    let mark = |wanted: u16| {
        own.iter().position(|call| {
            call.registers.number == MARK_NUMBER && mark_number(call.registers.args[0] as u32) == Some(wanted)
        })
    };
    let between = joined(&own[mark(GUEST_MARKS.0).unwrap() + 1..mark(GUEST_MARKS.1).unwrap()]);
    let expected = known_sequence(kind).unwrap();
    assert_eq!(between.len(), expected.len(), "{name}");
    for ((seen, outcome), known) in between.iter().zip(&expected) {
        assert_eq!((seen.registers.number, seen.parent.is_some()), (known.number, known.is_inner), "{name}");
        for (argument, known) in seen.registers.args.iter().zip(known.arguments) {
            if let KnownArgument::Number(number) = known {
                assert_eq!(*argument, number, "{name}: {seen:?}");
            }
        }
        let Outcome::Returned(result) = *outcome else { panic!("{name}: {seen:?} did not return") };
        assert!(known.expected.holds(result), "{name}: {seen:?} returned {result}, not {:?}", known.expected);
    }
}

/// The calls without their continuations, each with how it ended at last: a timer may preempt any multicall.
fn joined<'a>(calls: &[&'a RecordedCall]) -> Vec<(&'a RecordedCall, Outcome)> {
    let mut joined: Vec<(&RecordedCall, Outcome)> = Vec::new();
    let mut place: HashMap<CallId, usize> = HashMap::new();
    for call in calls {
        let at = call.continues.and_then(|before| place.get(&before).copied());
        match at {
            Some(at) => joined[at].1 = call.outcome,
            None => joined.push((call, call.outcome)),
        }
        place.insert(call.id, at.unwrap_or(joined.len() - 1));
    }
    joined
}

#[test]
fn xen_4_20_under_qemu_10_0_agrees_call_for_call() {
    check("4.20", "10.0", "file");
}

#[test]
fn xen_4_20_without_symbols_under_qemu_11_1_agrees_call_for_call() {
    check("4.20", "11.1", "image");
}

#[test]
fn xen_4_17_under_qemu_10_0_agrees_call_for_call() {
    check("4.17", "10.0", "file");
}
