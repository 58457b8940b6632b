//! What watching costs under KVM, in instructions: the machine that all this runs in is emulated and every clock in it counts
//! them, one a nanosecond, so nothing else that runs on the machine underneath changes a figure.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::lab::{Bench, KvmRun, Way};
use super::trace::KvmTrace;

/// Boots each way. They hardly differ, but for what dom0 waits for.
const ROUNDS: usize = 3;
/// Hook hits of a call: at its entry and at its return.
const EVENTS_PER_CALL: u64 = 2;

/// Boots each way in turn, a stop with the debugger, and a boot whose exits and system calls the kernel counts.
pub(super) fn measure(bench: &Bench) -> anyhow::Result<Value> {
    let mut runs = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (way, runs) in Way::ALL.into_iter().zip(&mut runs) {
            runs.push(bench.kvm_run(way)?);
        }
    }
    let runs = runs.map(|runs| KvmRun::medians(&runs));
    let gdb = bench.gdb_ticks()?;
    Ok(json!({
        "unit": "nanoseconds of emulated time: an instruction of L0 or above it is one, and waits count",
        "null_hypercall": null_hypercall(&runs, gdb),
        "boot": boot(&runs),
        "per_event": counted(bench)?,
    }))
}

fn null_hypercall(runs: &[KvmRun; 3], gdb: u64) -> Value {
    let mean = runs[2].null.mean;
    let [unmonitored, bare, hypovisor] = runs.each_ref().map(|run| run.null.median);
    // What an event adds, and what a stop takes: a stop is one event, and the guest does little in between.
    let added = |ticks: u64| ticks.saturating_sub(unmonitored) / EVENTS_PER_CALL;
    let event = [added(bare), added(hypovisor)];
    json!({
        "unmonitored": unmonitored,
        "bare_loop": bare,
        "hypovisor": hypovisor,
        "hypovisor_mean": mean,
        "event_bare_loop": event[0],
        "event_hypovisor": event[1],
        "event_gdb": gdb,
        "event_to_bare_loop": event[1] as f64 / event[0] as f64,
        "gdb_to_event": gdb as f64 / event[1] as f64,
    })
}

fn boot(runs: &[KvmRun; 3]) -> Value {
    let elapsed = runs.each_ref().map(|run| run.boot);
    let [unmonitored, bare, hypovisor] = runs.each_ref().map(|run| run.boot_of_qemu);
    json!({
        "unmonitored": unmonitored,
        "bare_loop": bare,
        "hypovisor": hypovisor,
        "bare_loop_ratio": bare as f64 / unmonitored as f64,
        "ratio": hypovisor as f64 / unmonitored as f64,
        "elapsed_with_engine_and_waits": elapsed,
    })
}

/// Exits and system calls of a recorded boot, as the kernel's own trace events count them.
fn counted(bench: &Bench) -> anyhow::Result<Value> {
    let trace = KvmTrace::start()?;
    let calls = bench.recorded_calls()?;
    let counts = trace.stop()?;
    let events = calls * EVENTS_PER_CALL;
    anyhow::ensure!(events > 0, "nothing was recorded");
    let per_event = |count: u64| count as f64 / events as f64;
    let result = json!({
        "calls": calls,
        "exits": per_event(counts.debug_exits),
        "system_calls": per_event(counts.debug_exits + counts.set_guest_debug),
        "moved_breakpoints": per_event(counts.set_guest_debug),
    });
    writeln!(std::io::stderr(), "per event: {result}").context("cannot write to standard error")?;
    Ok(result)
}
