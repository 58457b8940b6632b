//! Events as they travel from the sensor to the engine: records, rings and control messages.
//!
//! ```text
//!   sensor (in QEMU)                                    engine (own process)
//!   vCPU 0 ── Producer ──▶ ring 0 ─┐
//!   vCPU 1 ── Producer ──▶ ring 1 ─┼─ one memfd ─▶ Consumer × n ──▶ records
//!      …                           │
//!   control thread ◀── SOCK_SEQPACKET: [`control`] ──▶ engine
//! ```
//!
//! [`record`] says what an event looks like in a ring, [`ring`] how it gets across, [`control`] what is said besides.

#![deny(unsafe_code)]

#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(not(loom))]
pub mod injection;
#[cfg(not(loom))]
pub mod record;
#[cfg(not(loom))]
pub mod ring;
#[cfg(not(loom))]
mod session;
#[cfg(not(loom))]
pub mod verdict;

#[cfg(not(loom))]
pub use session::{RingGeometry, Rings};

// Under loom there is nothing but the rings' protocol: the rest uses the real thing.
#[cfg(loom)]
#[path = "ring/index.rs"]
mod index;
