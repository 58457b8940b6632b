//! QEMU does with the machine what operators have it do: it resets it, and it saves it to a file and goes on elsewhere.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use hypovisor_engine::qmp::Qmp;
use hypovisor_engine::recording::{RecordedCall, Recording};
use hypovisor_lab::guests::{MARK_NUMBER, mark_number};
use serde_json::{Value, json};

use crate::attacker::Attacker;
use crate::integrity;
use crate::support::{Driven, one_machine};

/// How often a mark is made.
const MARKS: usize = 100;
/// Makes marks with a number, says so, and leaves time to do something to the machine.
const SCRIPT: &str = "set -e
/lab/files/hcall --loop 100 29 0x48590007
echo first marks
sleep 15
/lab/files/hcall --loop 100 29 0x48590008
echo second marks
";
/// How long QEMU may take to save the machine.
const SAVE_TIMEOUT: Duration = Duration::from_secs(300);

/// QEMU's argument for a monitor of the test's own.
pub(crate) fn monitor(socket: &Path) -> [String; 2] {
    ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
}

/// How often dom0 made this mark.
pub(crate) fn marks(recording: &Path, wanted: u16) -> usize {
    let is_mark = |call: &RecordedCall| {
        call.caller.domain == 0
            && call.registers.number == MARK_NUMBER
            && mark_number(call.registers.args[0] as u32) == Some(wanted)
    };
    let recording = Recording::open(recording).unwrap();
    assert_eq!(recording.manifest().lost_calls(), 0);
    recording.calls().unwrap().filter(|call| is_mark(call.as_ref().unwrap())).count()
}

#[test]
fn calls_are_seen_again_after_a_reset() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let machine = Driven::new(dir.path(), SCRIPT);
    let (recording, socket) = (dir.path().join("recording"), dir.path().join("monitor"));
    let alerts = dir.path().join("alerts.json");
    std::thread::scope(|scope| {
        let engine = machine.start_guarded(&recording, &alerts, &monitor(&socket).map(Into::into));
        let driver = scope.spawn(|| machine.drive());
        machine.wait_for("first marks");
        let mut qmp = Qmp::connect(&socket).unwrap();
        // The lab's QEMU otherwise ends where another would reset.
        qmp.execute("set-action", json!({ "reboot": "reset" })).unwrap();
        qmp.execute("system_reset", json!({})).unwrap();
        drop(qmp);
        machine.wait_for_nth(2, "first marks");
        assert_eq!(integrity::alerts(&alerts), Vec::<Value>::new(), "a reset is no tampering");
        tampering_is_told(&socket, machine.symbols(), &alerts);
        driver.join().unwrap().expect("the machine came up again and to its own end");
        let output = engine.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    let seen = (marks(&recording, 7), marks(&recording, 8));
    assert_eq!(seen, (2 * MARKS, MARKS), "of both boots, and of the second");
}

/// Changes a byte of L1's code, until that is told.
fn tampering_is_told(monitor: &Path, symbols: &Path, alerts: &Path) {
    let attacker = Attacker::new(monitor, symbols);
    let at = attacker.address_of(integrity::HANDLER).offset(16);
    let genuine = attacker.read(at, 1);
    attacker.write(at, &[0xcc]);
    let start = Instant::now();
    while !integrity::alerts(alerts).iter().any(|alert| alert["rule"]["id"] == "integrity/text") {
        assert!(start.elapsed() < integrity::PATIENCE, "what was changed after the reset was not told");
        std::thread::sleep(Duration::from_millis(10));
    }
    attacker.write(at, &genuine);
}

#[test]
fn calls_are_seen_after_the_machine_was_saved_and_restored() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    std::fs::create_dir(&first).unwrap();
    std::fs::create_dir(&second).unwrap();
    let state = dir.path().join("state");
    save(&first, &state);
    assert_eq!((marks(&first.join("recording"), 7), marks(&first.join("recording"), 8)), (MARKS, 0));

    let machine = Driven::new(&second, SCRIPT);
    let (socket, alerts) = (second.join("monitor"), second.join("alerts.json"));
    let incoming = ["-incoming".to_owned(), format!("file:{}", state.display())];
    let args: Vec<OsString> = incoming.into_iter().chain(monitor(&socket)).map(Into::into).collect();
    std::thread::scope(|scope| {
        let engine = machine.start_guarded(&second.join("recording"), &alerts, &args);
        let driver = scope.spawn(|| machine.drive());
        // It was stopped when it was saved.
        let mut qmp = connect(&socket);
        wait_until_migrated(&mut qmp);
        qmp.cont().unwrap();
        machine.wait_for("second marks");
        driver.join().unwrap().expect("the machine came to its own end");
        let output = engine.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!((marks(&second.join("recording"), 7), marks(&second.join("recording"), 8)), (0, MARKS));
    assert_eq!(integrity::alerts(&alerts), Vec::<Value>::new(), "a restored machine is no tampering");
}

/// Connects to a monitor that is about to be there.
fn connect(socket: &Path) -> Qmp {
    let start = Instant::now();
    loop {
        match Qmp::connect(socket) {
            Ok(qmp) => return qmp,
            Err(error) => assert!(start.elapsed() < SAVE_TIMEOUT, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_until_migrated(qmp: &mut Qmp) {
    let start = Instant::now();
    loop {
        let status = qmp.execute("query-migrate", json!({})).unwrap();
        match status["status"].as_str() {
            Some("completed") => return,
            Some("failed") => panic!("{status}"),
            _ => assert!(start.elapsed() < SAVE_TIMEOUT, "{status}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs the machine up to the first marks, and saves it.
fn save(dir: &Path, state: &Path) {
    let machine = Driven::new(dir, SCRIPT);
    let socket = dir.join("monitor");
    std::thread::scope(|scope| {
        let engine = machine.start_with(&dir.join("recording"), &monitor(&socket).map(Into::into));
        scope.spawn(|| machine.drive());
        machine.wait_for("first marks");
        let mut qmp = Qmp::connect(&socket).unwrap();
        qmp.stop().unwrap();
        qmp.execute("migrate", json!({ "uri": format!("file:{}", state.display()) })).unwrap();
        wait_until_migrated(&mut qmp);
        qmp.execute("quit", json!({})).unwrap();
        assert!(engine.wait_with_output().unwrap().status.success());
    });
}
