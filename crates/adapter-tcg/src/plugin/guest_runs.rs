//! L1's own VMRUN and the instruction behind it: a guest runs, and has left.
//!
//! ```text
//!   VMRUN            the hook: whose control block is it; did the guest before leave as it should?
//!     the guest
//!   behind VMRUN     where the processor goes on when the guest has left, by the host state that VMRUN saved in L1's memory
//! ```

use core::ffi::c_uint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::{Gpa, Gva, PhysicalMemory as _};
use hypovisor_sensor::{CR_READ_INTERCEPTS, Control, Register, Vcpu as _};

use super::{Plugin, VMRUN_BYTES};
use crate::sys::{Flag, Flags};
use crate::vcpu::TcgVcpu;

/// Where QEMU keeps the host's RIP in the page that VM_HSAVE_PA names: where a VMCB has a guest's (QEMU `helper_vmrun`; the processor's
/// own business by AMD APM vol. 2, §15.30.4).
const SAVED_RIP: u64 = 0x578;
/// Between two reports of guests that have left to somewhere else: a hostile L1 can make any number.
const EXIT_PERIOD: Duration = Duration::from_secs(1);
/// Bit 0 of a VMCB's vector of intercepted control register reads: CR0.
const READ_CR0: u16 = 1;

/// On which vCPUs a guest runs: VMRUN was executed there, and the instruction behind it was not yet.
pub(super) struct RunningGuests {
    of: Box<[AtomicBool]>,
    count: AtomicUsize,
    /// The same for translated code: for a vCPU that has a thread of its own; else whether any runs, because code that is shared looks at
    /// the flag of the vCPU that it was translated for.
    flags: Flags,
}

impl RunningGuests {
    pub(super) fn new(vcpus: usize) -> Self {
        let of = (0..vcpus).map(|_| AtomicBool::new(false)).collect();
        Self { of, count: AtomicUsize::new(0), flags: Flags::new(1) }
    }

    pub(super) fn flag(&self) -> Option<Flag> {
        self.flags.get(0)
    }

    /// A vCPU was added. With one thread for all, its flag is to be like theirs.
    pub(super) fn add(&self, vcpu: c_uint, is_one_thread: bool) {
        let runs = is_one_thread && self.count.load(Ordering::Relaxed) > 0;
        self.flag().into_iter().for_each(|flag| flag.set(vcpu, runs));
    }

    fn is_on(&self, vcpu: usize) -> bool {
        self.of.get(vcpu).is_some_and(|runs| runs.load(Ordering::Relaxed))
    }

    /// Notes it; whether it was so before.
    fn set(&self, vcpu: u64, runs: bool, is_one_thread: bool) -> bool {
        let Some(of) = usize::try_from(vcpu).ok().and_then(|vcpu| self.of.get(vcpu)) else { return false };
        let before = of.swap(runs, Ordering::Relaxed);
        if before == runs {
            return before;
        }
        let others = if runs {
            self.count.fetch_add(1, Ordering::Relaxed)
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed) - 1
        };
        let Some(flag) = self.flag() else { return before };
        if !is_one_thread {
            flag.set(vcpu as c_uint, runs);
        } else if others == 0 {
            flag.set_for_all(runs);
        }
        before
    }

    /// The machine was reset. No vCPU runs meanwhile but the one that calls.
    pub(super) fn forget(&self) {
        self.of.iter().for_each(|of| of.store(false, Ordering::Relaxed));
        self.count.store(0, Ordering::Relaxed);
        self.flag().into_iter().for_each(|flag| flag.set_for_all(false));
    }
}

impl Plugin {
    /// Whether a guest may run on the vCPU of this callback.
    pub(super) fn may_run_guest(&self, index: c_uint) -> bool {
        if !self.stacks.is_one_thread() {
            return self.guests.is_on(index as usize);
        }
        // Which vCPU runs cannot be told from the stack: a guest has it where it likes.
        self.guests.count.load(Ordering::Relaxed) > 0
    }

    /// A vCPU is about to run a guest.
    pub(super) fn guest_runs(&self, vcpu: &mut TcgVcpu) {
        if self.guests.set(vcpu.sensor.index(), true, self.stacks.is_one_thread()) {
            self.tell_lost_exit(vcpu);
        }
        if self.mend_cr_reads {
            self.mend_vmcb(vcpu);
        }
    }

    /// The guest has left to where it should.
    pub(super) fn guest_has_left(&self, vcpu: &mut TcgVcpu) {
        self.guests.set(vcpu.sensor.index(), false, self.stacks.is_one_thread());
        vcpu.lost_exits = 0;
        Self::restore_vmcb(vcpu, self.control);
    }

    /// The guest before has left, but to somewhere else: the host state that VMRUN saved was changed meanwhile (AMD APM vol. 2,
    /// §15.5.1), or the machine was set back to an earlier state.
    #[cold]
    fn tell_lost_exit(&self, vcpu: &mut TcgVcpu) {
        vcpu.lost_exits += 1;
        let rip = Gva(vcpu.registers.read_register(Register::Rip).unwrap_or(0));
        let elsewhere = self.saved_elsewhere(rip.offset(VMRUN_BYTES)).unwrap_or(0);
        self.tell_exit(vcpu, rip, elsewhere);
    }

    /// L1 executes code at `elsewhere`, which is not its own: if a guest was seen to run on that processor, this is where it left to.
    pub(super) fn note_exit_to(&self, index: c_uint, elsewhere: u64) {
        let Some(vcpu) = self.true_vcpu(index) else { return };
        if self.guests.is_on(vcpu.sensor.index() as usize) {
            vcpu.lost_exits += 1;
            self.tell_exit(vcpu, Gva(0), elsewhere);
        }
    }

    fn tell_exit(&self, vcpu: &mut TcgVcpu, rip: Gva, before: u64) {
        let now = vcpu.lost_exits;
        let is_told = vcpu.exit_told.is_some_and(|told| told.elapsed() < EXIT_PERIOD);
        // The second in a row says more than the first.
        if !is_told || now == 2 {
            vcpu.exit_told = Some(Instant::now());
            self.control.l1_does(SystemChange { register: SystemRegister::GuestExit, before, now, rip });
        }
    }

    /// Where a processor goes on when its guest leaves, or has gone on, if that is not behind VMRUN.
    fn saved_elsewhere(&self, behind: Gva) -> Option<u64> {
        let ram = self.control.ram()?;
        self.control.find_set(SystemRegister::VmHsavePa, |area| {
            let saved = ram.read_u64(Gpa(area).offset(SAVED_RIP)).ok()?;
            (saved != 0 && saved != behind.0).then_some(saved)
        })
    }

    /// Takes the interception of CR0 reads out of the VMCB that is about to be run.
    ///
    /// QEMU's TCG (10.0 to 11.1 at least) reports every intercepted read of a control register as one of CR0.
    /// Xen intercepts CR0 reads, so its guest would be told CR0 where it asked for CR2, and halt at its first page
    /// fault. With `spec-ctrl=eager-fpu` Xen does not depend on that interception. This is the one place where
    /// the TCG adapter changes a byte of L1's memory, for as long as the guest runs; `mend-cr-reads=off` turns it off.
    fn mend_vmcb(&self, vcpu: &mut TcgVcpu) {
        vcpu.mended = false;
        let (Some(ram), Some(vmcb)) = (self.control.ram(), vcpu.sensor.vmcb()) else { return };
        if let Ok(intercepts) = vmcb.cr_read_intercepts(ram)
            && intercepts & READ_CR0 != 0
        {
            let mended = intercepts & !READ_CR0;
            vcpu.mended = ram.write(vmcb.0.offset(CR_READ_INTERCEPTS), &mended.to_le_bytes()).is_ok();
        }
    }

    /// Puts the interception back that [`Plugin::mend_vmcb`] has taken out: the guest has left.
    fn restore_vmcb(vcpu: &mut TcgVcpu, control: &Control) {
        if !std::mem::take(&mut vcpu.mended) {
            return;
        }
        let (Some(ram), Some(vmcb)) = (control.ram(), vcpu.sensor.vmcb()) else { return };
        if let Ok(intercepts) = vmcb.cr_read_intercepts(ram) {
            let _ = ram.write(vmcb.0.offset(CR_READ_INTERCEPTS), &(intercepts | READ_CR0).to_le_bytes());
        }
    }
}
