//! Hypercalls to inject: what they are, and how they are laid out for a guest.
//!
//! ```text
//!   YAML, hInjector's XML ──▶ Campaign ─▶ Step ─▶ CallSpec ─┐
//!   command line ─────────────────────────────▶ CallSpec ───┴─▶ encode ─▶ Plan: registers, memory, relocations
//! ```
//!
//! Arguments have the names that the ABI's tables give them, the same that events and rules use. Encoding is driven by
//! those tables alone, so a call that they know can be injected.

#![forbid(unsafe_code)]

mod call;
mod encode;
mod file;
pub mod fuzzing;
mod hazard;
mod value;
mod xml;

pub use call::{CallError, CallSpec};
pub use encode::{EncodeError, MAX_MEMORY_BYTES, Place, Plan, Relocation};
pub use file::{Campaign, CampaignError, Expectation, Kind, Rate, Step, Target};
pub use hazard::hazard;
pub use value::{Context, Saved};
