//! Whose registers a call is read from: of the guest on the physical CPU's stack, or of nobody.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use hypovisor_event::control::{self, FrameLayout, HookKind, Message, SystemRegister};
use hypovisor_event::{RingGeometry, Rings};
use hypovisor_machine::{Gpa, Gva, RamRange};
use hypovisor_mapping::{Access, Mapping, create_memfd};
use hypovisor_sensor::{Control, ControlOptions, Register, Vcpu, VcpuSensor};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const RAM_BYTES: usize = 1 << 20;
/// Where L1 sees all of RAM, with one large page.
const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
const TABLES: usize = 0x1000;
const VCPU: usize = 0x4000;
const DOMAIN: usize = 0x5000;
/// From a stack's start to the guest's frame on it.
const ON_STACK: usize = 0x7f00;
const STACKS: [usize; 2] = [0x8000, 0x1_8000];
/// Where the call that has just been entered returns to is kept.
const RETURN_PLACE: usize = 0x6000;
const CALLER: u64 = 0xffff_82d0_4060_0000;
const LAYOUT: FrameLayout = FrameLayout {
    processor_id: 200,
    current_vcpu: 208,
    vcpu_id: 0,
    vcpu_domain: 16,
    domain_id: 0,
    multicall_call: 0,
    vcpu_vmcb: 0,
};
/// Where the first stack's guest calls from, in the lower half; the second's, in the upper.
const CALLS_FROM: [u64; 2] = [0x1000, 0xffff_ffff_8100_2222];

static RAM: OnceLock<OwnedFd> = OnceLock::new();

/// A vCPU whose handler of hypercalls was given the registers at this place.
struct FakeVcpu(usize);

impl Vcpu for FakeVcpu {
    fn read_register(&mut self, register: Register) -> Option<u64> {
        match register {
            Register::Rdi => Some(DIRECT_MAP + self.0 as u64),
            Register::Rsp => Some(DIRECT_MAP + RETURN_PLACE as u64),
            Register::Cr3 => Some(TABLES as u64),
            _ => None,
        }
    }

    fn now_ticks(&self) -> u64 {
        0
    }
}

/// Page tables with one path, two stacks with a guest's frame each, and its `struct vcpu` and `struct domain`.
fn fill(ram: &Mapping) {
    let put = |at: usize, word: u64| assert!(ram.copy_in(at, &word.to_le_bytes()));
    let index = |level: u32| ((DIRECT_MAP >> (12 + 9 * level)) & 511) as usize * 8;
    put(TABLES + index(3), 0x2003);
    put(0x2000 + index(2), 0x3003);
    put(0x3000 + index(1), 0x83);
    for (stack, rip) in STACKS.into_iter().zip(CALLS_FROM) {
        put(stack + ON_STACK + 128, rip);
        put(stack + ON_STACK + LAYOUT.current_vcpu as usize, DIRECT_MAP + VCPU as u64);
    }
    put(VCPU + LAYOUT.vcpu_domain as usize, DIRECT_MAP + DOMAIN as u64);
    put(RETURN_PLACE, CALLER);
}

/// Starts the sensor's control; gives the engine's end of it too.
fn start(rings: Rings) -> (&'static Control, OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let control = Control::start(ControlOptions {
        socket: socket.clone(),
        rings,
        plugin_api: 0,
        ram_candidates: || RAM.get().and_then(|ram| ram.try_clone().ok()).into_iter().collect(),
        map_ram: |fd, len| Mapping::new(fd, 0, len, Access::ReadWrite),
        on_armed: || {},
        watch_writes: |_| {},
    })
    .unwrap();
    let kind = SocketType::SEQPACKET;
    let engine = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&engine, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
    control::receive(&engine).unwrap();
    let range = RamRange { gpa: Gpa(0), len: RAM_BYTES as u64, file_offset: 0 };
    control::send(&engine, &Message::RamLayout { backend: 0, ranges: vec![range] }, &[]).unwrap();
    control::send(&engine, &Message::Layout(LAYOUT), &[]).unwrap();
    while control.layout().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    (control, engine)
}

#[test]
fn a_call_is_read_from_the_stack_in_use_and_one_that_no_guest_made_is_told() {
    let ram = create_memfd("frames", RAM_BYTES).unwrap();
    fill(&Mapping::new(&ram, 0, RAM_BYTES, Access::ReadWrite).unwrap());
    RAM.set(ram).unwrap();
    let rings = Rings::create(RingGeometry::new(1, 1 << 20)).unwrap();
    let producer = rings.producer(0).unwrap();
    let (control, engine) = start(rings);
    let mut sensor = VcpuSensor::new(0, control, producer);
    let entries = sensor.entries();

    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(STACKS[0] + ON_STACK));
    sensor.on_hook(HookKind::PvExit, &mut FakeVcpu(STACKS[0] + ON_STACK));
    assert_eq!(entries.pv(), 0, "this guest calls from the lower half");
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(STACKS[0] + 0x4000));
    assert_eq!(entries.pv(), 0, "nobody's call");
    sensor.on_hook(HookKind::PvEntry, &mut FakeVcpu(STACKS[1] + ON_STACK));
    assert_eq!(entries.pv(), 1, "L1 was reset and the CPU has another stack");

    let (Message::SystemChange(change), _) = control::receive(&engine).unwrap() else { panic!() };
    let at = |place: usize| DIRECT_MAP + place as u64;
    assert_eq!(change.register, SystemRegister::GuestFrame);
    assert_eq!((change.before, change.now), (at(STACKS[0] + ON_STACK), at(STACKS[0] + 0x4000)));
    assert_eq!(change.rip, Gva(CALLER));
}
