//! A made-up L1 and an engine for a sensor without QEMU: what the tests, and the example `hit_cost`, hit hooks in.
//!
//! ```text
//!   0x1000  page tables: L1 sees all of RAM at DIRECT_MAP, with one large page
//!   0x4000  struct vcpu, which leads to the struct domain at 0x5000
//!   0x8000  free, for guests' frames, and L1's return address below each when a hook is hit
//! ```

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use hypovisor_event::Rings;
use hypovisor_event::control::{self, FrameLayout, Message};
use hypovisor_machine::{Gpa, RamRange, clock};
use hypovisor_mapping::{Access, Mapping, create_memfd};
use hypovisor_sensor::{Control, ControlOptions, Register, Vcpu};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

pub(crate) const RAM_BYTES: usize = 1 << 20;
const TABLES: usize = 0x1000;
const VCPU: usize = 0x4000;
const DOMAIN: usize = 0x5000;
/// Where L1 sees all of RAM.
pub(crate) const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// Where the call that has just been entered returns to.
pub(crate) const CALLER: u64 = 0xffff_82d0_4060_0000;
/// In a guest's frame: the number of the CPU.
pub(crate) const PROCESSOR: usize = 200;
const LAYOUT: FrameLayout = FrameLayout {
    processor_id: PROCESSOR as u32,
    current_vcpu: 208,
    vcpu_id: 0,
    vcpu_domain: 16,
    domain_id: 0,
    multicall_call: 0,
    vcpu_vmcb: 0,
};
/// In a guest's frame (`struct cpu_user_regs`, public/arch-x86/xen-x86_64.h): the call's number, and where it is made.
const RAX: usize = 80;
const RIP: usize = 128;
const CS: usize = 136;
/// `FLAT_KERNEL_CS64` (public/arch-x86/xen-x86_64.h).
const KERNEL_CODE: u64 = 0xe033;
/// `__HYPERVISOR_xen_version` (public/xen.h).
const XEN_VERSION: u64 = 17;

/// A control takes a plain function to find RAM by, so that there is one of it in a process.
pub(crate) static RAM: OnceLock<OwnedFd> = OnceLock::new();

/// A vCPU whose handler of hypercalls was given the frame at this place.
pub(crate) struct FakeVcpu(pub(crate) usize);

impl Vcpu for FakeVcpu {
    fn read_register(&mut self, register: Register) -> Option<u64> {
        match register {
            Register::Rdi => Some(DIRECT_MAP + self.0 as u64),
            Register::Rsp => Some(DIRECT_MAP + self.0 as u64 - 8),
            Register::Cr3 => Some(TABLES as u64),
            _ => None,
        }
    }

    fn now_ticks(&self) -> u64 {
        clock::now_ticks()
    }
}

/// Makes RAM with domain 5, whose vCPU has its frame at each of these places and makes a call of `xen_version` from the
/// address beside it.
pub(crate) fn make_ram(frames: &[(usize, u64)]) -> anyhow::Result<()> {
    let fd = create_memfd("made-up", RAM_BYTES)?;
    let ram = Mapping::new(&fd, 0, RAM_BYTES, Access::ReadWrite)?;
    let put = |at: usize, word: u64| assert!(ram.copy_in(at, &word.to_le_bytes()));
    let index = |level: u32| ((DIRECT_MAP >> (12 + 9 * level)) & 511) as usize * 8;
    put(TABLES + index(3), 0x2003);
    put(0x2000 + index(2), 0x3003);
    put(0x3000 + index(1), 0x83);
    put(VCPU + LAYOUT.vcpu_domain as usize, DIRECT_MAP + DOMAIN as u64);
    put(DOMAIN, 5);
    for (frame, rip) in frames {
        put(frame - 8, CALLER);
        put(frame + RAX, XEN_VERSION);
        put(frame + RIP, *rip);
        put(frame + CS, KERNEL_CODE);
        put(frame + LAYOUT.current_vcpu as usize, DIRECT_MAP + VCPU as u64);
    }
    RAM.set(fd).map_err(|_| anyhow::anyhow!("a process has one made-up RAM"))
}

/// Starts the sensor's control, and plays its engine until the sensor can read frames. Gives the engine's end too.
pub(crate) fn start(rings: Rings) -> anyhow::Result<(&'static Control, OwnedFd)> {
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
    Ok((control, engine))
}
