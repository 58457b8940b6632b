//! A least-privilege policy: which calls, sub-ops, flags and sizes each domain really uses, and nothing else.
//!
//! ```text
//!   recordings ─▶ PolicyLearner ─▶ Policy ⇄ YAML (docs/profile.md), to be read and edited by people
//!                                    └─▶ rules: whatever is not listed matches one of them
//! ```
//!
//! A policy is enforced as rules: [`Policy::to_rules`] writes them as rule files have them and loads them the same way,
//! so they are judged, refused and told like any other.

mod fields;
mod learner;
mod model;
mod read;
mod rules;
#[cfg(test)]
mod tests;
mod write;
mod yaml;

pub use self::rules::POLICY_PREFIX;
pub use learner::PolicyLearner;
pub use model::{Entry, Limits, Matcher, Policy, PolicyError};
