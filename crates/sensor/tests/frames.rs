//! Whose registers a call is read from: of the guest on the physical CPU's stack, or of nobody.

mod made_up;

use anyhow::Context as _;
use hypovisor_event::control::{self, HookKind, Message, SystemChange, SystemRegister};
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

    // L1 was restored amid a call: RDI is anything at its end.
    sensor.on_hook(HookKind::PvExit, &mut FakeVcpu(NO_FRAME));
    for _ in 0..3 {
        sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(FRAMES[0]));
        sensor.on_hook(HookKind::PvExit, &mut FakeVcpu(FRAMES[0]));
    }
    assert_eq!(entries.pv(), 0, "this guest calls from the lower half");
    // Where a guest's call returns to stands right below its registers.
    put(FRAMES[0] - 8, CALLER + 0x1000).unwrap();
    put(NO_FRAME - 8, CALLER).unwrap();
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(NO_FRAME));
    assert_eq!(entries.pv(), 0, "nobody's call");
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(FRAMES[1]));
    assert_eq!(entries.pv(), 1, "the CPU has another stack");
    sensor.on_hook(HookKind::PvExit, &mut FakeVcpu(FRAMES[1]));
    // L1 has given the stack that the frame was on to somebody else.
    put(FRAMES[0] + made_up::PROCESSOR, 1).unwrap();
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(FRAMES[0]));
    assert_eq!(entries.pv(), 1, "another CPU's stack");
    sensor.l1_was_reset();
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(FRAMES[0]));

    let told = || {
        let Ok((Message::SystemChange(change), _)) = control::receive(&engine) else { panic!() };
        (change.register, change.before, change.now, change.rip)
    };
    let (at, caller) = (|place: usize| DIRECT_MAP + place as u64, Gva(CALLER));
    let [one, other] = FRAMES.map(at);
    assert_eq!(told(), (SystemRegister::GuestFrame, one, at(NO_FRAME), caller));
    assert_eq!(told(), (SystemRegister::GuestStack, one, other, caller));
    // The same within a second is not told again, and L1 that begins anew has its stacks where it likes.
    control.l1_does(SystemChange { register: SystemRegister::Code, before: 0, now: 0, rip: Gva(0) });
    assert_eq!(told().0, SystemRegister::Code);
}
