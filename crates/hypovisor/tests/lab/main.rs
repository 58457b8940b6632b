//! Tests that boot the lab: real Xen, real guests, real QEMU, and the program as a user runs it.
//!
//! They need what `cargo xtask test` fetches. Each boots a machine of two vCPUs and 4 GiB, so one runs at a time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod arsenal;
mod attacker;
mod blocking;
mod bypass;
mod completeness;
mod debugger;
mod detection;
mod engine_killed;
mod guests;
mod hotplug;
mod images;
mod in_place;
mod injection;
mod integrity;
mod learned;
mod preload;
mod resets;
mod stealth;
mod support;
mod wrong_input;
