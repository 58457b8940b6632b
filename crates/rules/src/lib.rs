//! Detection rules: YAML files, checked, compiled, and judged over time.
//!
//! ```text
//!   *.yaml ── yaml ──▶ nodes with places ── file ──▶ fields ── condition ──▶ CEL trees ── compile ──▶ RuleSet
//!                                                                                                      │
//!                                       calls, in order ──▶ Detector: rates and sequences ◀────────────┘
//! ```
//!
//! [`Rules::load`] reads a directory and reports all that is wrong with it, each with file, line and column. A rule
//! file is foreign input: sizes, counts and depths are bounded, and no file makes the loader panic.
//!
//! `docs/rules.md` and `docs/rules.schema.json` are generated from what the loader itself checks by ([`reference`]).

#![forbid(unsafe_code)]

mod compile;
mod condition;
mod detector;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod problem;
pub mod reference;
mod rule;
mod rules;
mod schema;
mod suggest;
mod yaml;

pub use detector::{Detector, DetectorCounters, Finding, Seen};
pub use problem::{Problem, RulesError};
pub use rule::{Exception, Rate, Rule, Sequence, Severity, Step, Target, Window};
pub use rules::{Enforce, ForSensorError, MAX_FILE_BYTES, MAX_SENSOR_BYTES, Rules};
