//! Any bytes are a boot image of Xen, or an error; every profile of one is sound.
//!
//! `cargo +nightly fuzz run xen_image`; without nightly, `crates/l1/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_l1::fuzzing::xen_image(data);
});
