//! A vCPU borrowed at one of its own hypercalls, to make another call in its name.
//!
//! ```text
//!   guest        syscall ─────┐                                    ┌──▶ syscall (again) … goes on
//!   entry hook                └▶ save registers, put the           │
//!                                injected ones in their place      │
//!   L1                                 runs the injected call      │
//!   exit hook                                take result, put ─────┘
//!                                            all back, RIP at the
//!                                            hypercall instruction
//! ```
//!
//! Both hooks stand in the same hypercall, so nothing of the guest runs in between: no interrupt, no other task. What the
//! call's pointers lead to stands below the guest's stack pointer meanwhile, on the same page, where the only vCPU that
//! could use it is the one that is borrowed; the exit hook puts the bytes back. The guest then issues its own call again
//! with the registers it had, and cannot tell.
//!
//! If L1 preempts the injected call, the guest does run before it comes back: interrupts are handled, other tasks
//! scheduled. The memory is put back for that time and brought again when the guest re-issues the call. It is recognised
//! as in `hypovisor_engine::pairing`: instruction and stack pointer, number and arguments as L1 left them. The task may
//! have moved to another vCPU of the domain.

use hypovisor_abi::Width;
use hypovisor_event::injection::{Injection, Place};
use hypovisor_event::record::CallerMode;
use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory as _};
use hypovisor_mapping::Ram;

use crate::frame::{Frame, SavedFrame, width_of};
use crate::guest::AddressSpace;

/// Bytes kept free between the guest's stack pointer and the memory that is brought. The ABI's red zone has 128.
const STACK_GAP: u64 = 256;
/// Alignment of brought memory: more than any structure of a hypercall asks for.
const ALIGNMENT: u64 = 16;

/// A caller that could be borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) domain: u16,
    pub(crate) vcpu: u16,
    pub(crate) mode: CallerMode,
    pub(crate) rip: u64,
    pub(crate) rsp: u64,
    pub(crate) number: u64,
    pub(crate) args: [u64; 6],
    /// The caller is the guest's kernel at a call that can be issued again.
    pub(crate) may_be_borrowed: bool,
}

/// What a preempted call will be issued again with.
#[derive(Clone, Copy, Debug)]
struct Again {
    rip: u64,
    rsp: u64,
    number: u64,
    args: [u64; 6],
}

/// Memory brought into the guest, and what stood there.
#[derive(Debug)]
struct Brought {
    gva: u64,
    at: Gpa,
    /// What the call finds there: first as it was sent, later as L1 left it.
    image: Vec<u8>,
    original: Vec<u8>,
}

/// An injection on its way.
#[derive(Debug)]
pub(crate) struct Job {
    injection: Injection,
    /// Calls of the domain at which there was no room.
    pub(crate) misses: u32,
    /// Registers of the borrowed vCPU; set once one is.
    saved: Option<SavedFrame>,
    brought: Option<Brought>,
    again: Option<Again>,
    /// When the call entered first, ticks of L0's TSC.
    started_ticks: u64,
}

impl Job {
    /// Allocates all that a vCPU will need.
    pub(crate) fn new(injection: Injection) -> Self {
        let bytes = injection.memory.len();
        let brought = (bytes > 0).then(|| Brought {
            gva: 0,
            at: Gpa(0),
            image: injection.memory.clone(),
            original: vec![0; bytes],
        });
        Self { injection, misses: 0, saved: None, brought, again: None, started_ticks: 0 }
    }

    /// The engine's name for it.
    pub(crate) const fn id(&self) -> u64 {
        self.injection.id
    }

    /// Whose vCPU it borrows.
    pub(crate) const fn domain(&self) -> u16 {
        self.injection.domain
    }

    /// When the call entered first, ticks of L0's TSC.
    pub(crate) const fn started_ticks(&self) -> u64 {
        self.started_ticks
    }

    /// Brought memory as L1 left it.
    pub(crate) fn memory(&self) -> &[u8] {
        self.brought.as_ref().map_or(&[], |brought| &brought.image)
    }

    pub(crate) fn is_for(&self, wanted: &Wanted) -> bool {
        self.injection.domain == wanted.domain
            && self.injection.vcpu.is_none_or(|vcpu| vcpu == wanted.vcpu)
            && self.injection.is_64_bit == wanted.mode.is_64_bit()
    }

    pub(crate) fn is_continued_by(&self, wanted: &Wanted) -> bool {
        self.injection.domain == wanted.domain
            && self.again.is_some_and(|again| {
                (again.rip, again.rsp) == (wanted.rip, wanted.rsp)
                    && (again.number, again.args) == (wanted.number, wanted.args)
            })
    }

    /// Puts the injected call in the place of the guest's own, or goes on with one that was preempted. False, and nothing
    /// is changed, if its memory has no room here.
    pub(crate) fn begin(
        &mut self,
        ram: &Ram,
        frame: &Frame<'_>,
        space: Option<AddressSpace>,
        now_ticks: u64,
    ) -> bool {
        let first = self.saved.is_none();
        if !self.bring(ram, frame.rsp(), space) {
            return false;
        }
        self.again = None;
        if first {
            self.saved = Some(frame.save());
            self.started_ticks = now_ticks;
            self.fill_in();
            self.write_memory(ram);
            let width = if self.injection.is_64_bit { Width::Bits64 } else { Width::Bits32 };
            frame.set_call(self.injection.number, &self.injection.registers, width);
        } else {
            self.write_memory(ram);
        }
        true
    }

    /// Finds the place and keeps what stands there.
    fn bring(&mut self, ram: &Ram, rsp: u64, space: Option<AddressSpace>) -> bool {
        let Some(brought) = &mut self.brought else { return true };
        if self.saved.is_none() {
            let Some(gva) = place_below(rsp, brought.image.len() as u64) else { return false };
            brought.gva = gva;
        }
        let Some(at) = space.and_then(|space| space.translate(ram, Gva(brought.gva)).ok()) else {
            return false;
        };
        brought.at = at;
        ram.read(at, &mut brought.original).is_ok()
    }

    /// Fills in the addresses, now that the place is known.
    fn fill_in(&mut self) {
        let Some(brought) = &mut self.brought else { return };
        let word_bytes = if self.injection.is_64_bit { 8 } else { 4 };
        for relocation in &self.injection.relocations {
            let address = brought.gva.wrapping_add(u64::from(relocation.target));
            match relocation.place {
                Place::Register(index) => {
                    if let Some(register) = self.injection.registers.get_mut(usize::from(index)) {
                        *register = address;
                    }
                }
                Place::Memory(offset) => {
                    let place = brought.image.get_mut(offset as usize..);
                    if let Some(place) = place.and_then(|place| place.get_mut(..word_bytes)) {
                        place.copy_from_slice(&address.to_le_bytes()[..word_bytes]);
                    }
                }
            }
        }
    }

    fn write_memory(&self, ram: &Ram) {
        if let Some(brought) = &self.brought {
            // The place was read from just before, so it is there to be written.
            let _ = ram.write(brought.at, &brought.image);
        }
    }

    /// Takes what L1 left in the brought memory, and puts back what stood there.
    fn take_memory_back(&mut self, ram: &Ram) {
        if let Some(brought) = &mut self.brought {
            let _ = ram.read(brought.at, &mut brought.image);
            let _ = ram.write(brought.at, &brought.original);
        }
    }

    /// The call has returned: the guest gets back its registers and memory and will issue its own call again.
    pub(crate) fn end(&mut self, ram: &Ram, frame: &Frame<'_>, mode: CallerMode) {
        self.take_memory_back(ram);
        if let Some(saved) = &self.saved {
            frame.restore(saved);
            frame.issue_again(mode);
        }
    }

    /// L1 has preempted the call.
    pub(crate) fn suspend(&mut self, ram: &Ram, frame: &Frame<'_>, mode: CallerMode, rip: u64) {
        self.take_memory_back(ram);
        let args = frame.args(width_of(mode));
        self.again = Some(Again { rip, rsp: frame.rsp(), number: frame.rax(), args });
    }
}

/// Where so many bytes have room below the stack pointer, on its page.
fn place_below(rsp: u64, bytes: u64) -> Option<u64> {
    let place = rsp.checked_sub(STACK_GAP + bytes)? & !(ALIGNMENT - 1);
    (place & !(PAGE_SIZE - 1) == rsp & !(PAGE_SIZE - 1)).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_brought_to_the_page_of_the_stack_pointer_only() {
        assert_eq!(place_below(0x1f00, 0x100), Some(0x1d00));
        assert_eq!(place_below(0x1f08, 0x100), Some(0x1d00));
        assert_eq!(place_below(0x1100, 0x100), None, "it would reach into the page below");
        assert_eq!(
            place_below(0x2000, 0x100),
            None,
            "the stack is empty: the page below it is not in use yet"
        );
        assert_eq!(place_below(0x80, 0x100), None);
    }
}
