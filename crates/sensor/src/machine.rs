//! The machine trait: what a sensor needs of the accelerator that runs L1.

/// A register of an L1 vCPU that a hook may have to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// First argument of a function (System V AMD64 ABI), at a function's first instruction.
    Rdi,
    /// Return value of a function, at the instruction behind a call; VMRUN's operand.
    Rax,
    /// Root of the page tables in force.
    Cr3,
    /// The instruction pointer.
    Rip,
    /// The stack pointer.
    Rsp,
}

/// One L1 vCPU that stands at a hook. Given to the sensor on that vCPU's own thread.
///
/// L1's memory is not part of it: the sensor reads it through a mapping ([`crate::Control::ram`]).
pub trait Vcpu {
    /// Whether reading a register costs next to nothing; where it does not, the sensor leaves some to a look at memory.
    const HAS_REGISTERS_AT_HAND: bool = false;

    /// The register's value, or `None` if the accelerator does not tell.
    fn read_register(&mut self, register: Register) -> Option<u64>;

    /// Now, in ticks of L0's TSC.
    fn now_ticks(&self) -> u64;
}
