//! Compiled detection rules and their evaluation, small enough to run on a vCPU's path inside QEMU.
//!
//! `hypovisor-rules` compiles rule files to a [`RuleSet`]; this crate knows nothing of YAML, names or types. A
//! condition is a flat program of [`Op`]s for a small stack machine. It reads its values straight from the call's
//! registers and captured segments, so a field path costs one search for a segment per pointer and one read.
//!
//! ```text
//!   RuleSet ── by number ──▶ watches of that number, sorted by sub-op ──▶ program for the caller's width ──▶ machine
//! ```
//!
//! Promises; all but the absence of allocation are kept by a test:
//! - evaluation allocates nothing, recurses on nothing, and never panics, whatever the guest or the bytes of a set say;
//! - one condition takes at most [`MAX_STEPS_PER_RULE`] steps, all conditions of a call [`MAX_STEPS_PER_CALL`];
//! - a value that is not at hand makes a condition undecided, never true by accident.
//!
//! Logic has three values: true, false, and *absent*, which is CEL's error. `false && absent` is false and
//! `true || absent` is true; any other operation on an absent value is absent.

#![forbid(unsafe_code)]

mod facts;
mod machine;
mod op;
mod set;
mod wire;

pub use facts::{End, Facts, GuestKind, Moment, Outcome};
pub use machine::{MAX_LOOPS, MAX_STACK, MAX_STEPS_PER_CALL, MAX_STEPS_PER_RULE};
pub use op::{Fact, LoopSpec, Op, Range, Side, Until};
pub use set::{
    Action, Judged, MAX_OPS, MAX_RULES, MAX_WATCHES, NUMBERS, Part, RuleIndex, RuleSet, SetBuilder, Standing,
    Watch,
};
pub use wire::MalformedRules;
