//! Small images made here: opened, damaged, and compared with a model.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod build;
mod damaged;
mod open;
mod properties;
