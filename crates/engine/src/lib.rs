//! The engine: drains the rings, pairs and attributes events, and keeps recordings.
//!
//! ```text
//!   rings ──▶ merge ──▶ pairing ──▶ Call ──▶ CallSink … recording, live line, tests
//!             by time    entry + exit,
//!                        parents, continuations
//! ```

#![forbid(unsafe_code)]

pub mod call;
pub mod watch;
pub mod event_json;
pub mod event_line;
pub mod stats;
pub mod report;
pub mod recording;
#[cfg(test)]
pub(crate) mod testing;
mod utc;
pub mod session;
pub mod qmp;
pub mod pairing;
pub mod drain;
pub mod domains;
pub mod command;
pub mod clock;
