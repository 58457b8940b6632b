//! Small images made here: opened, damaged, and compared with a model; and the seeds of the fuzz target.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod build;
mod corpus;
mod damaged;
mod open;
mod properties;
