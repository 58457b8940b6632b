//! The KVM adapter: a library that is preloaded into an unmodified QEMU and stands between it and KVM.
//!
//! ```text
//!   QEMU, vCPU thread        ioctl(vcpu, KVM_RUN)
//!      this library             │  loop {
//!      Linux                    │     KVM_RUN ───▶ L1 runs … stops at a hardware breakpoint
//!      this library             │     the sensor's work; RFLAGS.RF set, so that L1 goes on from there
//!                               │  } until the exit is one for QEMU
//! ```
//!
//! Hooks are the processor's breakpoints, set through `KVM_SET_GUEST_DEBUG` (Linux Documentation/virt/kvm/api.rst, §4.87):
//! L1's memory is not touched. Registers come and go through the page that every vCPU shares with KVM (§5, on
//! `kvm_valid_regs`), so that a hook costs one exit and no further system call. There is no stop of other vCPUs, no
//! single step and no trip through QEMU's main loop.
//!
//! - [`wrapper::ioctl`] is what QEMU calls instead of the C library's.
//! - `qemu` has those of QEMU's calls that concern us.
//! - `vm` has what all vCPUs share: memory slots, the conversation with the engine, the hooks.
//! - `vcpu` is one vCPU's thread: KVM_RUN and what to do when it returns.
//! - `breakpoints` says which address stands in which debug register, and settles it with QEMU's own debugger.
//! - `msrs` sees L1 set the registers that decide where guests enter.
//! - `guests` finds what L1's guests do unseen, by the kernel's trace events (`trace_event`): `call_exits` counts hypercalls, to find those
//!   that pass no hook, and `vm_entries` has the control blocks that are run.
//! - `writes` tells when L1 writes to its own code.
//! - `run_page` is the page shared with KVM; `kvm` the ioctls' numbers.
//!
//! The library does nothing before QEMU makes a virtual machine, and nothing at all in a process that makes none. It then
//! takes itself out of the environment, so that QEMU's children do not get it.

mod breakpoints;
mod call_exits;
mod first_instruction;
mod guests;
mod kvm;
mod msrs;
mod options;
mod qemu;
mod run_page;
mod slots;
mod stack;
mod trace_event;
mod vcpu;
mod vm;
mod vm_entries;
mod writes;

pub mod wrapper;
