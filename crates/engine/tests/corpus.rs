//! Replays the seeds of the fuzz targets for records, segments, profiles and policies on a stable toolchain.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_engine::call::{Call, CallId, CallSink as _, Outcome};
use hypovisor_engine::fuzzing::{pair_records, policy_file, profile_file, read_segment};
use hypovisor_engine::recording::{Manifest, Recorder, RecorderOptions, Recording};
use hypovisor_event::fuzzing::{read_records, sample_records};
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::Intervention;
use proptest::prelude::*;

fn seeds(target: &str, missing: impl FnOnce() -> Vec<(&'static str, Vec<u8>)>) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    if std::env::var_os("HYPOVISOR_RENEW").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, seed) in missing() {
            let path = directory.join(name);
            if !path.exists() {
                fs::write(path, seed).unwrap();
            }
        }
    }
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Set `HYPOVISOR_RENEW` to write the seeds that are missing.
#[test]
fn every_seed_of_records_is_read_and_paired() {
    let written = || {
        let memory: Vec<u8> = [0x5000_u64.to_le_bytes(), 0x8_0000_0008_u64.to_le_bytes(), [7; 8]].concat();
        let multicall = sample_records(13, &memory);
        let cut = multicall[..multicall.len() - 8].to_vec();
        vec![("plain", sample_records(12, &[])), ("multicall", multicall), ("cut", cut)]
    };
    let mut calls = 0;
    for (_, seed) in seeds("read_records", written) {
        read_records(&seed);
        calls += pair_records(&seed);
    }
    assert!(calls >= 9, "the seeds hold {calls} calls");
}

/// Set `HYPOVISOR_RENEW` to write the seeds that are missing.
#[test]
fn every_seed_of_a_segment_is_calls_or_an_error() {
    let written = || {
        let cut = |mut whole: Vec<u8>| {
            whole.truncate(whole.len() / 2);
            whole
        };
        vec![("few", segment(3)), ("many", segment(300)), ("half", cut(segment(3)))]
    };
    let read: Vec<_> = seeds("read_segment", written)
        .into_iter()
        .map(|(path, seed)| (path.file_name().unwrap().to_owned(), read_segment(&seed)))
        .collect();
    let of = |name: &str| &read.iter().find(|(seed, _)| seed == name).unwrap().1;
    assert_eq!((of("few"), of("many")), (&Ok(3), &Ok(300)));
    assert!(of("half").is_err());
}

/// A segment as a recording has it.
fn segment(calls: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), Manifest::default(), RecorderOptions::default()).unwrap();
    for sequence in 0..calls {
        recorder.call(&call(sequence)).unwrap();
    }
    recorder.finish().unwrap();
    fs::read(&Recording::open(dir.path()).unwrap().segments().unwrap()[0]).unwrap()
}

/// Nulls and values in all columns that have both.
fn call(sequence: u64) -> Call<'static> {
    let id = CallId { pcpu: (sequence % 2) as u32, sequence };
    let caller =
        Caller { domain: 1, vcpu: 0, mode: CallerMode::Pv64, cpl: 3, cs: 0xe033, rip: 0x1000, rsp: 0x2000 };
    let returned = !sequence.is_multiple_of(3);
    Call {
        id,
        time_ns: 1_700_000_000_000_000_000 + sequence as i64,
        duration_ns: returned.then_some(500),
        caller,
        parent: (sequence % 5 == 4).then(|| CallId { sequence: sequence - 1, ..id }),
        continues: (sequence % 7 == 2).then_some(id),
        registers: Registers {
            number: 12 + sequence % 3,
            args: [sequence, 0, 1, 2, 3, 4],
            width: Width::Bits64,
        },
        entry_segments: if returned { &[7; 40] } else { &[] },
        exit_segments: &[],
        cut: !returned,
        intervention: Intervention::default(),
        outcome: if returned { Outcome::Returned(-22) } else { Outcome::Unfinished },
    }
}

/// A seed whose name begins with `good` is what it says, any other is refused.
#[test]
fn seeds_of_profiles_and_policies_are_read_or_refused() {
    let records = sample_records(12, &[]);
    for target in ["profile_file", "policy_file"] {
        let seeds = seeds(target, Vec::new);
        assert!(seeds.len() >= 4, "{target} has {} seeds", seeds.len());
        for (path, seed) in seeds {
            let read =
                if target == "profile_file" { profile_file(&seed, &records) } else { policy_file(&seed) };
            let good = path.file_name().unwrap().to_string_lossy().starts_with("good");
            assert_eq!(read, good, "{}", path.display());
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_profile_or_policy_is_read_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        which in any::<prop::sample::Index>(),
    ) {
        for target in ["profile_file", "policy_file"] {
            let mut seeds = seeds(target, Vec::new);
            let (_, mut seed) = seeds.swap_remove(which.index(seeds.len()));
            for (at, byte) in &damage {
                if !seed.is_empty() {
                    let at = at.index(seed.len());
                    seed[at] = *byte;
                }
            }
            let _ = profile_file(&seed, &[]);
            let _ = policy_file(&seed);
        }
    }
}
