//! What the sensor itself takes for a call without pointers, in ticks of the TSC: the hits at entry and exit of
//! `xen_version`, without QEMU around them.
//!
//! ```text
//! cargo run --release -p hypovisor-sensor --example hit_cost -- [RING_BYTES] [PAIRS]
//! ```
//!
//! Prints the median and the least of 200 rounds of `PAIRS` calls, with a consumer that empties the ring meanwhile. The
//! lab's benchmark (`cargo xtask bench null`) has the last word; this one is for seeing what a change does.

#[path = "../tests/made_up/mod.rs"]
mod made_up;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hypovisor_event::control::HookKind;
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::clock;
use hypovisor_sensor::VcpuSensor;

use crate::made_up::FakeVcpu;

const FRAME: usize = 0x8000;
const CALLS_FROM: u64 = 0xffff_ffff_8100_2222;
const ROUNDS: usize = 200;

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let ring_bytes = numbers.next().transpose()?.unwrap_or(4 << 20);
    let pairs = numbers.next().transpose()?.unwrap_or(1000);
    made_up::make_ram(&[(FRAME, CALLS_FROM)])?;
    let rings = Rings::create(RingGeometry::new(1, ring_bytes))?;
    let (producer, mut consumer) = (rings.producer(0)?, rings.consumer(0)?);
    let (control, _engine) = made_up::start(rings)?;
    let done = AtomicBool::new(false);
    let mut ticks = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut batch = vec![0; 1 << 20];
            while !done.load(Ordering::Relaxed) {
                let copied = consumer.copy(&mut batch);
                consumer.release(copied);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut sensor = VcpuSensor::new(0, control, producer);
        let rounds: Vec<u64> = (0..ROUNDS).map(|_| round(&mut sensor, pairs)).collect();
        done.store(true, Ordering::Relaxed);
        rounds
    });
    ticks.sort_unstable();
    writeln!(std::io::stdout(), "ticks a call: median {}, least {}", ticks[ROUNDS / 2], ticks[0])?;
    Ok(())
}

fn round(sensor: &mut VcpuSensor, pairs: u64) -> u64 {
    let start = clock::now_ticks();
    for _ in 0..pairs {
        sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(FRAME));
        sensor.on_hook(HookKind::PvExit, &mut FakeVcpu(FRAME));
    }
    (clock::now_ticks() - start) / pairs
}
