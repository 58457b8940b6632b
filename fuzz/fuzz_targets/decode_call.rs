//! Any registers and any captured bytes: decoding neither fails nor writes anything but lines and JSON.
//!
//! `cargo +nightly fuzz run decode_call`; without nightly, `crates/abi/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(rendered) = hypovisor_abi::fuzzing::decode_call(data) else { return };
    for text in [&rendered.line, &rendered.full] {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    serde_json::from_str::<serde_json::Value>(&rendered.json).expect("valid JSON");
});
