//! The page that a vCPU shares with KVM, `struct kvm_run`: why KVM_RUN returned, and the vCPU's registers.
#![expect(unsafe_code, reason = "maps memory that the kernel writes")]

use core::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use hypovisor_sensor::{Register, Vcpu};
use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_FILTER, KVM_RUN_X86_GUEST_MODE,
    KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, kvm_debug_exit_arch, kvm_run,
};
use rustix::mm::{MapFlags, ProtFlags};

/// What is exchanged at every exit: general and special registers.
pub(crate) const SYNCED: u32 = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
/// RFLAGS.RF: the next instruction meets no breakpoint (AMD APM vol. 2, §3.1.6).
const RFLAGS_RF: u64 = 1 << 16;
/// EFER.LMA: long mode.
const EFER_LMA: u64 = 1 << 10;

/// The page, mapped for as long as the process lives: a vCPU's descriptor is never given up while QEMU runs it.
///
/// Only the vCPU's own thread uses it, and the kernel only inside that thread's KVM_RUN. Other threads of QEMU write
/// `immediate_exit`, which is not touched here.
#[derive(Debug)]
pub(crate) struct RunPage(NonNull<kvm_run>);

/// The address of one field of the page.
macro_rules! field {
    ($page:expr, $($path:tt)+) => {
        // SAFETY: the page stays mapped and is larger than the structure.
        unsafe { &raw mut (*$page.0.as_ptr()).$($path)+ }
    };
}

/// Reads one field of the page.
macro_rules! load {
    ($page:expr, $($path:tt)+) => {{
        let place = field!($page, $($path)+);
        // SAFETY: as for `field`; nobody else writes it now, and every member of a union here is plain data.
        unsafe { place.read_volatile() }
    }};
}

/// Writes one field of the page.
macro_rules! store {
    ($page:expr, [$($path:tt)+], $value:expr) => {{
        let (place, value) = (field!($page, $($path)+), $value);
        // SAFETY: as for `field`; nobody else uses it now.
        unsafe { place.write_volatile(value) }
    }};
}

impl RunPage {
    /// Maps the page of a vCPU: `bytes` as KVM told. `None` if that is not possible.
    pub(crate) fn map(vcpu: c_int, bytes: usize) -> Option<Self> {
        if bytes < size_of::<kvm_run>() {
            return None;
        }
        // SAFETY: QEMU has just used the descriptor, and does not close it before this call is over.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu) };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose free addresses.
        let page =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, 0) };
        NonNull::new(page.ok()?.cast()).map(Self)
    }

    /// Has KVM exchange the registers at every exit from now on, or no longer.
    pub(crate) fn exchange_registers(&self, on: bool) {
        store!(self, [kvm_valid_regs], if on { SYNCED.into() } else { 0 });
    }

    /// What the exit was, if it was one for debugging.
    pub(crate) fn debug_exit(&self) -> Option<kvm_debug_exit_arch> {
        let is_debug = load!(self, exit_reason) == KVM_EXIT_DEBUG;
        is_debug.then(|| load!(self, __bindgen_anon_1.debug.arch))
    }

    /// The register's number and the value, if the exit was for a WRMSR that the filter denies.
    pub(crate) fn denied_wrmsr(&self) -> Option<(u32, u64)> {
        if load!(self, exit_reason) != KVM_EXIT_X86_WRMSR {
            return None;
        }
        let msr = load!(self, __bindgen_anon_1.msr);
        (msr.reason == KVM_MSR_EXIT_REASON_FILTER).then_some((msr.index, msr.data))
    }

    /// What becomes of the WRMSR of this exit when the vCPU runs on: it is done, or faults.
    pub(crate) fn finish_wrmsr(&self, done: bool) {
        store!(self, [__bindgen_anon_1.msr.error], u8::from(!done));
    }

    /// CR0, CR4 and EFER.
    pub(crate) fn protections(&self) -> [u64; 3] {
        [load!(self, s.regs.sregs.cr0), load!(self, s.regs.sregs.cr4), load!(self, s.regs.sregs.efer)]
    }

    /// Makes QEMU believe that no hardware breakpoint was met: it would take ours for its debugger's. For an exit for
    /// debugging only.
    pub(crate) fn hide_breakpoints(&self) {
        let dr6 = load!(self, __bindgen_anon_1.debug.arch.dr6);
        store!(self, [__bindgen_anon_1.debug.arch.dr6], dr6 & !0xf);
    }

    /// Whether L1's own kernel runs: not a guest of it (where KVM tells: Linux 6.11), at privilege level 0, in long mode.
    pub(crate) fn is_l1_kernel(&self) -> bool {
        let is_guest = u32::from(load!(self, flags)) & KVM_RUN_X86_GUEST_MODE != 0;
        // The privilege level is that of SS, as KVM gives it.
        let level = load!(self, s.regs.sregs.ss.dpl);
        !is_guest && level == 0 && load!(self, s.regs.sregs.efer) & EFER_LMA != 0
    }

    /// Lets the instruction at a breakpoint run: with the next KVM_RUN, and without meeting the breakpoint again.
    pub(crate) fn step_over_breakpoint(&self) {
        let rflags = load!(self, s.regs.regs.rflags);
        store!(self, [s.regs.regs.rflags], rflags | RFLAGS_RF);
        store!(self, [kvm_dirty_regs], KVM_SYNC_X86_REGS.into());
    }

    pub(crate) fn register(&self, register: Register) -> u64 {
        match register {
            Register::Rdi => load!(self, s.regs.regs.rdi),
            Register::Rax => load!(self, s.regs.regs.rax),
            Register::Cr3 => load!(self, s.regs.sregs.cr3),
            Register::Rip => load!(self, s.regs.regs.rip),
            Register::Rsp => load!(self, s.regs.regs.rsp),
        }
    }
}

// SAFETY: the page belongs to the vCPU; it is made and used on the vCPU's thread, whichever that is.
unsafe impl Send for RunPage {}

impl Vcpu for &RunPage {
    const HAS_REGISTERS_AT_HAND: bool = true;

    fn read_register(&mut self, register: Register) -> Option<u64> {
        Some(self.register(register))
    }

    fn now_ticks(&self) -> u64 {
        hypovisor_machine::clock::now_ticks()
    }
}
