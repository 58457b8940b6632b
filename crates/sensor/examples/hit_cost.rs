//! What the sensor itself takes for a call without pointers, in ticks of the TSC: the hits at entry and exit of
//! `xen_version`, without QEMU around them.
//!
//! ```text
//! cargo run --release -p hypovisor-sensor --example hit_cost -- [RING_BYTES] [PAIRS]
//! ```
//!
//! Prints the median and the least of 200 rounds of `PAIRS` calls, with a consumer that empties the ring meanwhile. The
//! lab's benchmark (`cargo xtask bench null`) has the last word; this one is for seeing what a change does.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hypovisor_event::control::{self, FrameLayout, HookKind, Message};
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::{Gpa, RamRange, clock};
use hypovisor_mapping::{Access, Mapping, create_memfd};
use hypovisor_sensor::{Control, ControlOptions, Register, Vcpu, VcpuSensor};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const RAM_BYTES: usize = 1 << 20;
/// Where L1 sees all of RAM, with one large page.
const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
const TABLES: usize = 0x1000;
const FRAME: usize = 0x8000;
const VCPU: usize = 0x9000;
const DOMAIN: usize = 0xa000;
const LAYOUT: FrameLayout = FrameLayout {
    processor_id: 200,
    current_vcpu: 208,
    vcpu_id: 0,
    vcpu_domain: 16,
    domain_id: 0,
    multicall_call: 0,
    vcpu_vmcb: 0,
};
const ROUNDS: usize = 200;

static RAM: OnceLock<OwnedFd> = OnceLock::new();

struct FakeVcpu;

impl Vcpu for FakeVcpu {
    fn read_register(&mut self, register: Register) -> Option<u64> {
        match register {
            Register::Rdi => Some(DIRECT_MAP + FRAME as u64),
            Register::Cr3 => Some(TABLES as u64),
            _ => None,
        }
    }

    fn now_ticks(&self) -> u64 {
        clock::now_ticks()
    }
}

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let ring_bytes = numbers.next().transpose()?.unwrap_or(4 << 20);
    let pairs = numbers.next().transpose()?.unwrap_or(1000);
    let ram = create_memfd("hit-cost", RAM_BYTES)?;
    fill(&Mapping::new(&ram, 0, RAM_BYTES, Access::ReadWrite)?);
    let _ = RAM.set(ram);
    let rings = Rings::create(RingGeometry::new(1, ring_bytes))?;
    let (producer, mut consumer) = (rings.producer(0)?, rings.consumer(0)?);
    let control = start(rings)?;
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
        sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu);
        sensor.on_hook(HookKind::PvExit, &mut FakeVcpu);
    }
    (clock::now_ticks() - start) / pairs
}

/// Page tables with one path, a guest's frame, its `struct vcpu` and `struct domain`.
fn fill(ram: &Mapping) {
    let put = |at: usize, word: u64| assert!(ram.copy_in(at, &word.to_le_bytes()));
    let index = |level: u32| ((DIRECT_MAP >> (12 + 9 * level)) & 511) as usize * 8;
    put(TABLES + index(3), 0x2003);
    put(0x2000 + index(2), 0x3003);
    put(0x3000 + index(1), 0x83);
    put(FRAME + 80, 17);
    put(FRAME + 128, 0xffff_ffff_8100_2222);
    put(FRAME + 136, 0xe033);
    put(FRAME + LAYOUT.current_vcpu as usize, DIRECT_MAP + VCPU as u64);
    put(VCPU + LAYOUT.vcpu_domain as usize, DIRECT_MAP + DOMAIN as u64);
    put(DOMAIN, 5);
}

/// Starts the sensor's control and plays its engine.
fn start(rings: Rings) -> anyhow::Result<&'static Control> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("socket");
    let control = Control::start(ControlOptions {
        socket: socket.clone(),
        rings,
        plugin_api: 0,
        ram_candidates: || RAM.get().and_then(|ram| ram.try_clone().ok()).into_iter().collect(),
        map_ram: |fd, len| Mapping::new(fd, 0, len, Access::ReadWrite),
        on_armed: || {},
        watch_writes: |_| {},
    })?;
    let kind = SocketType::SEQPACKET;
    let engine = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&engine, &SocketAddrUnix::new(&socket)?)?;
    control::receive(&engine)?;
    let range = RamRange { gpa: Gpa(0), len: RAM_BYTES as u64, file_offset: 0 };
    control::send(&engine, &Message::RamLayout { backend: 0, ranges: vec![range] }, &[])?;
    control::send(&engine, &Message::Layout(LAYOUT), &[])?;
    while control.layout().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::mem::forget(engine);
    Ok(control)
}
