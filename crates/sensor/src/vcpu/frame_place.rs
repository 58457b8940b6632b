//! Where the frame of the guest that calls stands, and calls of L1's handlers that no guest made.
//!
//! A guest's registers are always at the top of the physical CPU's stack. A call with registers elsewhere was made by code
//! inside L1. If they are at the top of another stack, which is in use and says that it is the same CPU's, L1 may have given it that; it
//! is told all the same, unless L1 has begun anew.
//!
//! ```text
//!   top of the stack   the guest's registers
//!                      where the handler returns to: a PV guest's call enters it from right below
//! ```
//!
//! Where registers are dear, that word stands for the register that says where the frame is. It cannot, while another call is under way or for
//! a hardware-virtualised guest's call, and at one call in [`CHECK_SAMPLE`] the register is read all the same.

use std::time::{Duration, Instant};

use hypovisor_event::control::{FrameLayout, HookKind, SystemChange, SystemRegister};
use hypovisor_machine::{Gva, KERNEL_HALF, VirtualMemory};
use hypovisor_mapping::Ram;

use super::VcpuSensor;
use crate::frame::Frame;
use crate::machine::{Register, Vcpu};

/// Bytes of a physical CPU's stack, to which it is aligned (`STACK_ORDER` 3, Xen arch/x86/include/asm/config.h).
const STACK_BYTES: u64 = 8 * 4096;
/// At one hook hit in so many (a power of two) where the frame is is not taken from memory.
const CHECK_SAMPLE: u64 = 64;
/// Between two reports of a call that no guest made, or of another stack: a hostile L1 can make any number.
const FOREIGN_PERIOD: Duration = Duration::from_secs(1);

/// Where a frame stands: for L1, and in the RAM mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct FramePlace {
    gva: u64,
    pub(super) at: usize,
    /// The number of its CPU, as it was found: the stack may be somebody else's when it is looked for elsewhere.
    processor: u32,
}

impl VcpuSensor {
    /// Whether the handler that has just been entered was given the frame of a guest; tells if it was not.
    #[inline]
    pub(super) fn is_guests_call<V: Vcpu>(&mut self, ram: &Ram, kind: HookKind, vcpu: &mut V) -> bool {
        let Some(known) = self.frame_place else { return true };
        if !V::HAS_REGISTERS_AT_HAND && kind == HookKind::PvEntry && self.is_called_as_usual(ram, known) {
            return true;
        }
        let Some(frame) = vcpu.read_register(Register::Rdi) else { return true };
        if known.gva == frame {
            self.usual_return = return_below(ram, known);
            return true;
        }
        self.has_moved(ram, known, frame, vcpu)
    }

    /// Whether the handler was entered from right below the guest's registers, and from where it was the last time.
    #[inline]
    fn is_called_as_usual(&self, ram: &Ram, known: FramePlace) -> bool {
        self.outer.is_none()
            && self.hits & (CHECK_SAMPLE - 1) != CHECK_SAMPLE / 2
            && self.usual_return.is_some()
            && self.usual_return == return_below(ram, known)
    }

    #[cold]
    fn has_moved(&mut self, ram: &Ram, known: FramePlace, frame: u64, vcpu: &mut impl Vcpu) -> bool {
        if self.is_on_stack_of_same_cpu(ram, known, frame, vcpu) == Some(true) {
            self.forget_frame();
            return true;
        }
        self.tell_foreign_call(ram, Gva(frame), vcpu);
        false
    }

    /// Whether a frame is at the top of the stack in use, which by its own account is that of the CPU that had the frame elsewhere.
    fn is_on_stack_of_same_cpu(
        &self,
        ram: &Ram,
        known: FramePlace,
        frame: u64,
        vcpu: &mut impl Vcpu,
    ) -> Option<bool> {
        let stack = |address: u64| address & !(STACK_BYTES - 1);
        let rsp = vcpu.read_register(Register::Rsp)?;
        if known.gva - stack(known.gva) != frame - stack(frame) || stack(rsp) != stack(frame) {
            return Some(false);
        }
        let memory = VirtualMemory::new(ram, vcpu.read_register(Register::Cr3)?);
        Some(self.processor(&memory, Gva(frame))? == known.processor)
    }

    /// Code inside L1 calls a handler of hypercalls, with a guest's registers at `frame`.
    #[cold]
    pub fn tell_foreign_call(&mut self, ram: &Ram, frame: Gva, vcpu: &mut impl Vcpu) {
        if !is_due(&mut self.foreign_told) {
            return;
        }
        let before = self.frame_place.map_or(0, |known| known.gva);
        let rip = Gva(returns_to(ram, vcpu).unwrap_or(0));
        self.control.l1_does(SystemChange {
            register: SystemRegister::GuestFrame,
            before,
            now: frame.0,
            rip,
        });
    }

    /// The frame of the guest that calls, and what is known of L1. Asks the engine the first time.
    pub(super) fn frame<'a>(
        &mut self,
        ram: &'a Ram,
        vcpu: &mut impl Vcpu,
    ) -> Option<(Frame<'a>, &'static FrameLayout)> {
        let place = match self.frame_place {
            Some(place) => place,
            None => self.find_frame(ram, vcpu)?,
        };
        self.call_frame = place.at;
        Some((Frame::new(ram.mapping(), place.at)?, self.control.layout()?))
    }

    /// The frame of the guest whose call was entered and is left now.
    pub(super) fn frame_of_call<'a>(&self, ram: &'a Ram) -> Option<(Frame<'a>, &'static FrameLayout)> {
        Some((Frame::new(ram.mapping(), self.call_frame)?, self.control.layout()?))
    }

    #[cold]
    fn find_frame(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) -> Option<FramePlace> {
        let is_first_of_all = self.control.layout().is_none();
        let place = self.locate_frame(ram, vcpu)?;
        // Before the layout is known, an adapter with one thread for all vCPUs cannot tell whose call this is.
        if !is_first_of_all || u64::from(place.processor) == self.index {
            self.tell_other_stack(ram, place, vcpu);
            self.frame_place = Some(place);
        }
        Some(place)
    }

    /// The frame stands there now. Tells if it stood elsewhere since L1 has begun.
    #[cold]
    fn tell_other_stack(&mut self, ram: &Ram, place: FramePlace, vcpu: &mut impl Vcpu) {
        let Some(before) = self.last_frame.replace(place.gva).filter(|before| *before != place.gva) else {
            return;
        };
        if !is_due(&mut self.stack_told) {
            return;
        }
        let rip = Gva(returns_to(ram, vcpu).unwrap_or(0));
        let register = SystemRegister::GuestStack;
        self.control.l1_does(SystemChange { register, before, now: place.gva, rip });
    }

    #[cold]
    fn locate_frame(&self, ram: &Ram, vcpu: &mut impl Vcpu) -> Option<FramePlace> {
        let frame = Gva(vcpu.read_register(Register::Rdi)?);
        let cr3 = vcpu.read_register(Register::Cr3)?;
        if self.control.layout().is_none() {
            self.control.ask_layout(self.index, cr3, frame)?;
        }
        self.control.guests_run();
        let gpa = VirtualMemory::new(ram, cr3).translate(frame).ok()?;
        let at = ram.offset_of(gpa, Frame::BYTES).ok().filter(|at| at.is_multiple_of(8))?;
        let processor = self.processor(&VirtualMemory::new(ram, cr3), frame)?;
        Some(FramePlace { gva: frame.0, at, processor })
    }

    /// The number of the CPU whose stack the frame is on, by L1's own account.
    fn processor(&self, memory: &VirtualMemory<&Ram>, frame: Gva) -> Option<u32> {
        memory.read_u32(frame.offset(self.control.layout()?.processor_id.into())).ok()
    }
}

/// Whether such a thing may be told again; it is, now.
fn is_due(told: &mut Option<Instant>) -> bool {
    let is_due = told.is_none_or(|told| told.elapsed() >= FOREIGN_PERIOD);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
}

/// The word below the guest's registers, if it may be an address of L1's code.
#[inline]
fn return_below(ram: &Ram, known: FramePlace) -> Option<u64> {
    let word = u64::from_le(ram.mapping().word(known.at.checked_sub(8)?)?);
    (word >= KERNEL_HALF).then_some(word)
}

/// Where the function that has just been entered returns to.
fn returns_to(ram: &Ram, vcpu: &mut impl Vcpu) -> Option<u64> {
    let (cr3, rsp) = (vcpu.read_register(Register::Cr3)?, vcpu.read_register(Register::Rsp)?);
    VirtualMemory::new(ram, cr3).read_u64(Gva(rsp)).ok()
}
