//! The engine: drains the rings, pairs and attributes events, and keeps recordings.
//!
//! ```text
//!   rings ──▶ merge ──▶ pairing ──▶ Call ──▶ CallSink … recording, live line, tests
//!             by time    entry + exit,
//!                        parents, continuations
//! ```

#![forbid(unsafe_code)]

pub mod alert;
pub mod call;
pub mod clock;
pub mod command;
pub mod domains;
pub mod drain;
pub mod event_json;
pub mod event_line;
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
pub mod integrity;
mod note;
pub mod pairing;
pub mod policy;
pub mod profile;
pub mod qmp;
pub mod recording;
pub mod remote;
pub mod report;
pub mod runtime;
pub mod session;
pub mod stats;
#[cfg(test)]
pub(crate) mod testing;
mod utc;
pub mod watch;
