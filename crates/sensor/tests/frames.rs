//! Whose registers a call is read from: of the guest on the physical CPU's stack, or of nobody.

mod made_up;

use anyhow::Context as _;
use hypovisor_event::control::{self, HookKind, Message, SystemRegister};
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::Gva;
use hypovisor_mapping::{Access, Mapping};
use hypovisor_sensor::VcpuSensor;

use crate::made_up::{CALLER, DIRECT_MAP, FakeVcpu};

/// The guests' frames on two stacks. The first one's guest calls from the lower half, the second's from the upper.
const FRAMES: [usize; 2] = [0x8000 + 0x7f00, 0x1_8000 + 0x7f00];
const CALLS_FROM: [u64; 2] = [0x1000, 0xffff_ffff_8100_2222];
/// Amid the first stack, where no guest's frame is.
const NO_FRAME: usize = 0x8000 + 0x4000;

/// Writes a word of RAM.
fn put(at: usize, word: u64) -> anyhow::Result<()> {
    let ram = made_up::RAM.get().context("there is no RAM yet")?;
    let ram = Mapping::new(ram, 0, made_up::RAM_BYTES, Access::ReadWrite)?;
    anyhow::ensure!(ram.copy_in(at, &word.to_le_bytes()), "there is no RAM at {at:#x}");
    Ok(())
}

#[test]
fn a_call_is_read_from_the_stack_in_use_and_one_that_no_guest_made_is_told() {
    made_up::make_ram(&[(FRAMES[0], CALLS_FROM[0]), (FRAMES[1], CALLS_FROM[1])]).unwrap();
    let rings = Rings::create(RingGeometry::new(1, 1 << 20)).unwrap();
    let producer = rings.producer(0).unwrap();
    let (control, engine) = made_up::start(rings).unwrap();
    let mut sensor = VcpuSensor::new(0, control, producer);
    let entries = sensor.entries();

    // Where a guest's call returns to stands right below its registers.
    put(FRAMES[0] - 8, CALLER).unwrap();
    for _ in 0..3 {
        sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(FRAMES[0]));
        sensor.on_hook(HookKind::PvExit, &mut FakeVcpu(FRAMES[0]));
    }
    assert_eq!(entries.pv(), 0, "this guest calls from the lower half");
    put(FRAMES[0] - 8, CALLER + 0x1000).unwrap();
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(NO_FRAME));
    assert_eq!(entries.pv(), 0, "nobody's call");
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(FRAMES[1]));
    assert_eq!(entries.pv(), 1, "L1 was reset and the CPU has another stack");

    let (Message::SystemChange(change), _) = control::receive(&engine).unwrap() else { panic!() };
    let at = |place: usize| DIRECT_MAP + place as u64;
    assert_eq!(change.register, SystemRegister::GuestFrame);
    assert_eq!((change.before, change.now), (at(FRAMES[0]), at(NO_FRAME)));
    assert_eq!(change.rip, Gva(CALLER));
}
