//! Memory shared between processes: memfds, mappings, and L1's RAM.
//!
//! The sensor (inside QEMU) and the engine (beside it) share two kinds of memory: the rings, which the sensor
//! creates, and L1's RAM, which QEMU backs with a memfd. This crate turns both into types that cannot be
//! misused from safe code; together with the adapters it is the only place with `unsafe`.
//!
//! What stands in such memory can change at any moment and is never trusted. So there are no references into
//! it: bytes are copied out or in, and counters are atomics. The one exception is [`Mapping::private_part`], which a
//! single producer uses on the part of a ring that it has not published yet.

mod mapping;
mod own;
mod ram;

pub use mapping::{Access, Mapping, MappingError, create_memfd};
pub use ram::Ram;
