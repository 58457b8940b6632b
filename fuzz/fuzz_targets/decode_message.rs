//! Any bytes on the control socket are a message or an error.
//!
//! `cargo +nightly fuzz run decode_message`; without nightly, `crates/event/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_event::fuzzing::decode_message(data);
});
