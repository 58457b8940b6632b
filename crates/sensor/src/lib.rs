//! What every sensor does: turn hook hits into records, over a small machine trait.
//!
//! The sensor runs inside the QEMU process, on the thread of the vCPU that hit a hook, while that vCPU waits. It
//! reads the guest's registers and memory, writes a record into the vCPU's ring, and lets the vCPU go on. An
//! [adapter](Vcpu) supplies what differs between accelerators: reading a register, and placing the hooks.
//!
//! ```text
//!   adapter ──hook hit──▶ VcpuSensor ──▶ frame   who called, with what registers
//!                             │     ──▶ who     which domain, which of its vCPUs
//!                             │     ──▶ guest   memory behind the pointers
//!                             └──▶ Producer (ring)
//!   control thread ◀──▶ engine: RAM layout, hooks, structure layout, attach and detach
//! ```
//!
//! What holds on the vCPU's path: no allocation, no lock that another vCPU could hold, no formatting, no panic on
//! anything a guest controls; every length is bounded. Only the first hits wait for the engine, for a bounded
//! time, because somebody has to say where L1 keeps things. Without an engine events are counted as lost and
//! nothing waits.

#![forbid(unsafe_code)]

mod account;
mod borrow;
mod control;
mod entries;
mod frame;
mod guest;
mod injections;
mod machine;
mod recorder;
mod system;
mod vcpu;
mod verdicts;
mod vmcb;
mod who;
mod written;

pub use account::Account;
pub use control::{Answer, Control, ControlOptions, StartError};
pub use entries::Entries;
pub use machine::{Register, Vcpu};
pub use system::{protections, watched_msr};
pub use vcpu::VcpuSensor;
pub use vmcb::{CR_READ_INTERCEPTS, Vmcb};
