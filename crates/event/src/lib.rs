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

#![forbid(unsafe_code)]

pub mod control;
pub mod record;
pub mod ring;
mod session;

pub use session::{RingGeometry, Rings};
