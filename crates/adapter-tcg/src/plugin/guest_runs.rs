//! L1's own VMRUN and the instruction behind it: a guest runs, and has left.
//!
//! ```text
//!   VMRUN            the hook: whose control block is it; did the guest before leave as it should?
//!     the guest
//!   behind VMRUN     where the processor goes on when the guest has left, by the host state that VMRUN saved in L1's memory
//! ```

use std::time::{Duration, Instant};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::{Gpa, Gva, PhysicalMemory as _};
use hypovisor_sensor::{CR_READ_INTERCEPTS, Control, Register, Vcpu as _};

use super::bypass::Bypass;
use super::{Plugin, VMRUN_BYTES};
use crate::vcpu::TcgVcpu;

/// Where QEMU keeps the host's RIP in the page that VM_HSAVE_PA names: where a VMCB has a guest's (QEMU `helper_vmrun`; the processor's
/// own business by AMD APM vol. 2, §15.30.4).
const SAVED_RIP: u64 = 0x578;
/// Between two reports of guests that have left to somewhere else: a hostile L1 can make any number.
const EXIT_PERIOD: Duration = Duration::from_secs(1);
/// Bit 0 of a VMCB's vector of intercepted control register reads: CR0.
const READ_CR0: u16 = 1;

impl Plugin {
    /// A vCPU is about to run a guest.
    pub(super) fn guest_runs(&self, vcpu: &mut TcgVcpu) {
        self.bypass.iter().for_each(Bypass::note_vmrun);
        if std::mem::replace(&mut vcpu.runs_guest, true) {
            self.tell_lost_exit(vcpu);
        }
        if self.mend_cr_reads {
            self.mend_vmcb(vcpu);
        }
    }

    /// The guest has left to where it should.
    pub(super) fn guest_has_left(vcpu: &mut TcgVcpu, control: &Control) {
        vcpu.runs_guest = false;
        vcpu.lost_exits = 0;
        Self::restore_vmcb(vcpu, control);
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

    /// A guest has left to code at `elsewhere`, which is not L1's.
    pub(super) fn guest_left_to(&self, vcpu: &mut TcgVcpu, elsewhere: u64) {
        vcpu.lost_exits += 1;
        self.tell_exit(vcpu, Gva(0), elsewhere);
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
