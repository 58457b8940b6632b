//! Tells L1's vCPUs apart by the stack they run on.
//!
//! With `-accel tcg,thread=single`, translated code is shared between the vCPUs and has the index of one of them built
//! in, so the index that QEMU passes to a callback says nothing. But Xen runs each physical CPU on a stack of its
//! own, aligned to its size, with `struct cpu_info` at its top, and that knows the CPU's number.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use hypovisor_machine::{Gva, PhysicalMemory as _, VirtualMemory};
use hypovisor_sensor::{Control, Register, Vcpu as _};

use crate::vcpu::Registers;

/// Bytes of a stack, to which it is aligned (`STACK_ORDER` 3, Xen arch/x86/include/asm/config.h).
const STACK_BYTES: u64 = 8 * 4096;
/// Stacks remembered: a table that is looked through from its start, the busiest CPUs first.
const STACKS: usize = 64;
/// An entry of the table that is not in use.
const FREE: u64 = 0;

/// The stacks met so far, and the vCPU that each belongs to.
pub(crate) struct Stacks {
    one_thread: AtomicBool,
    /// The thread that the first vCPU came up on.
    thread: Mutex<Option<ThreadId>>,
    /// From a stack's start to the guest's frame on it: the same on all.
    frame_offset: AtomicU64,
    known: [(AtomicU64, AtomicUsize); STACKS],
}

impl Stacks {
    pub(crate) fn new() -> Self {
        Self {
            one_thread: AtomicBool::new(false),
            thread: Mutex::new(None),
            frame_offset: AtomicU64::new(0),
            known: std::array::from_fn(|_| (AtomicU64::new(FREE), AtomicUsize::new(0))),
        }
    }

    /// A vCPU comes up on this thread. A second one on the same thread shows that there is one for all.
    pub(crate) fn note_thread(&self) {
        let this = std::thread::current().id();
        let first = self.thread.lock().unwrap_or_else(PoisonError::into_inner).replace(this);
        if first == Some(this) {
            self.one_thread.store(true, Ordering::Relaxed);
        }
    }

    /// Whether all vCPUs share a thread.
    pub(crate) fn is_one_thread(&self) -> bool {
        self.one_thread.load(Ordering::Relaxed)
    }

    /// The vCPU that this address is on the stack of, if that is known.
    fn known(&self, address: u64) -> Option<usize> {
        let stack = address & !(STACK_BYTES - 1);
        let known = self.known.iter().find(|(at, _)| at.load(Ordering::Relaxed) == stack)?;
        Some(known.1.load(Ordering::Relaxed))
    }

    /// The vCPU whose stack is in use. `None` before the first hypercall, which comes from the first vCPU.
    pub(crate) fn find(&self, registers: &mut Registers, control: &Control) -> Option<usize> {
        let address = registers.read_register(Register::Rsp)?;
        self.known(address).or_else(|| self.learn(address & !(STACK_BYTES - 1), registers, control))
    }

    /// The machine was reset: L1 may have its stacks elsewhere. No other vCPU runs meanwhile.
    pub(crate) fn forget(&self) {
        self.known.iter().for_each(|(at, _)| at.store(FREE, Ordering::Relaxed));
    }

    #[cold]
    fn learn(&self, stack: u64, registers: &mut Registers, control: &Control) -> Option<usize> {
        let (ram, layout) = (control.ram()?, control.layout());
        if layout.is_none() {
            // The first hypercall of all: RDI is the frame.
            let frame = registers.read_register(Register::Rdi)?;
            self.frame_offset.store(frame & (STACK_BYTES - 1), Ordering::Relaxed);
            return None;
        }
        let frame = Gva(stack).offset(self.frame_offset.load(Ordering::Relaxed));
        let number = frame.offset(u64::from(layout?.processor_id));
        let cr3 = registers.read_register(Register::Cr3)?;
        let gpa = VirtualMemory::new(ram, cr3).translate(number).ok()?;
        let mut bytes = [0; 4];
        ram.read(gpa, &mut bytes).ok()?;
        let index = u32::from_le_bytes(bytes) as usize;
        let free = self.known.iter().find(|(at, _)| at.load(Ordering::Relaxed) == FREE);
        if let Some((at, slot)) = free {
            slot.store(index, Ordering::Relaxed);
            at.store(stack, Ordering::Relaxed);
        }
        Some(index)
    }
}
