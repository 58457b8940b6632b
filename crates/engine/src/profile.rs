//! A learned profile: what domains of each kind did in recordings that are known to be clean, and what they did not.
//!
//! ```text
//!   recordings ─▶ Learner ─▶ Profile (JSON, docs/profile.md) ─▶ ProfileWatch ─▶ deviations, with the reason
//! ```
//!
//! Learned are, per kind of domain: the calls and sub-ops made, what follows upon what on a vCPU (three calls in a
//! row), how many of each were made within a second, and how they failed.

mod kind;
mod learner;
mod model;
mod operation;
#[cfg(test)]
mod tests;
mod watch;

pub use kind::CallerKind;
pub use learner::Learner;
pub use model::{KindProfile, OperationProfile, Profile, ProfileError, Tolerance};
pub(crate) use operation::Operation;
pub use watch::{Deviation, DeviationKind, ProfileWatch};
