//! Any bytes are a campaign, whose calls keep their bounds, or an error.
//!
//! `cargo +nightly fuzz run campaign_yaml`; without nightly, `crates/campaign/tests/properties.rs` replays the corpus.

#![no_main]

use hypovisor_campaign::fuzzing::Form;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_campaign::fuzzing::campaign(data, Form::Yaml);
});
