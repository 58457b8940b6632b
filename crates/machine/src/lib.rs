//! Addresses, memory access and x86-64 page walks: the words every other crate speaks.
//!
//! Three parties read an L1's memory: the sensor inside QEMU, the engine beside it, and (later) tools that
//! work on a dump. They share this crate so that an address means the same thing to all of them.
//! Nothing here allocates, and nothing here trusts what it reads.
//!
//! Unless a name says otherwise an address belongs to L1: a [`Gpa`] is guest-physical for L0 and machine
//! memory for L1 ("MFN" in Xen's words is `Gpa >> 12`); a [`Gva`] is a virtual address of L1 *or* of one of
//! its 64-bit PV guests, which share one page table.

#![deny(unsafe_code)]

mod address;
pub mod clock;
pub mod leaves;
mod memory;
pub mod nested;
pub mod paging;
mod system;

pub use address::{Gpa, Gva, KERNEL_HALF, PAGE_SIZE};
pub use memory::{MAX_RAM_RANGES, MemoryError, PhysicalMemory, RamLayout, RamRange, VirtualMemory};
pub use system::{DescriptorTable, SystemRegisters, TaskRegister};
