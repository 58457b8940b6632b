//! The engine is killed: the VM runs on, what was recorded stays readable, another engine takes over. And QEMU is
//! killed: the engine ends in order.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use hypovisor_engine::recording::{RecordedCall, Recording, State};

use crate::support::{Driven, error_line, hypovisor, is_kvm, one_machine, run};

/// Makes hypercalls all the time and tells how far it is, every fifth of a second.
const TICKING: &str =
    "i=0; while [ $i -lt 60 ]; do xl list >/dev/null; echo tick $i; sleep 0.2; i=$((i+1)); done\n";

fn calls(recording: &Path) -> Vec<RecordedCall> {
    Recording::open(recording).unwrap().calls().unwrap().collect::<Result<_, _>>().unwrap()
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

#[test]
fn the_vm_outlives_the_engine_and_another_one_takes_over() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let ticking = Driven::new(dir.path(), TICKING);
    let recording = dir.path().join("recording");
    std::thread::scope(|scope| {
        let mut engine = ticking.start(&recording);
        let machine = scope.spawn(|| ticking.drive());
        ticking.wait_for("tick 5");
        engine.kill().unwrap();
        engine.wait().unwrap();
        let killed_at = now_ns();

        let before = calls(&recording);
        let last = before.iter().map(|call| call.time_ns).max().unwrap();
        assert!(
            killed_at - last < 1_500_000_000,
            "the last second at most is lost, not {} ms",
            (killed_at - last) / 1_000_000
        );
        assert_eq!(Recording::open(&recording).unwrap().manifest().state, State::Running);
        ticking.wait_for("tick 15");

        run(hypovisor().arg("attach").arg(&recording), 0);
        machine.join().unwrap().expect("the machine came to its own end");
        assert_taken_over(&recording, &before);
    });
}

/// What the second engine recorded follows on: nothing is missing but what the first had taken and not written.
fn assert_taken_over(recording: &Path, before: &[RecordedCall]) {
    let all = calls(recording);
    let manifest = Recording::open(recording).unwrap().manifest().clone();
    assert_eq!(manifest.state, State::Complete);
    assert!(all.len() > before.len() + 1000, "{} calls, then {}", before.len(), all.len());
    for pcpu in 0..manifest.vcpus {
        let mut sequences: Vec<u64> =
            all.iter().filter(|call| call.id.pcpu == pcpu).map(|call| call.id.sequence).collect();
        sequences.sort_unstable();
        if is_kvm() && pcpu > 0 {
            // dom0 has one vCPU there.
            assert!(sequences.is_empty());
            continue;
        }
        assert_eq!(sequences[0], 0);
        let gaps = sequences.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(gaps <= 1, "CPU {pcpu} has {gaps} gaps");
    }
    assert_eq!(manifest.lost_calls(), 0, "the rings had room for what came in between");
}

#[test]
fn the_engine_ends_in_order_when_qemu_is_killed() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let ticking = Driven::new(dir.path(), TICKING);
    let recording = dir.path().join("recording");
    std::thread::scope(|scope| {
        let engine = ticking.start(&recording);
        let machine = scope.spawn(|| ticking.drive());
        ticking.wait_for("tick 2");
        let qemu = Recording::open(&recording).unwrap().manifest().qemu_pid;
        Command::new("kill").args(["-9", &qemu.to_string()]).status().unwrap();
        let output = engine.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(error_line(&output).contains("QEMU ended with signal: 9"));
        machine.join().unwrap().unwrap_err();
    });
    let manifest = Recording::open(&recording).unwrap().manifest().clone();
    assert_eq!(manifest.state, State::Complete);
    assert_eq!(calls(&recording).len() as u64, manifest.events);
    assert_eq!(manifest.lost_calls(), 0);
}
