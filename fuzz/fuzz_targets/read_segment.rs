//! Any bytes are a segment of a recording, or an error.
//!
//! `cargo +nightly fuzz run read_segment`; without nightly, `crates/engine/tests/corpus.rs` replays the corpus.
//!
//! The `parquet` crate panics on some damaged files, which the reader catches and calls an error. libFuzzer's panic hook
//! would abort before that, so it is replaced: a panic that starts in a crate from the registry is let through to be
//! caught, any other one aborts.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: std::panic::set_hook(Box::new(|panic| {
        let from_registry =
            panic.location().is_some_and(|location| location.file().contains("/registry/src/"));
        if !from_registry {
            eprintln!("{panic}");
            std::process::abort();
        }
    })),
    |data: &[u8]| {
        let _ = hypovisor_engine::fuzzing::read_segment(data);
    }
);
