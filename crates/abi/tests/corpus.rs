//! Replays the seeds of the fuzz target on a stable toolchain, and holds that there is one for every call.

mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hypovisor_abi::SubOpFrom;
use hypovisor_abi::fuzzing::decode_call;
use hypovisor_abi::xen::XEN;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/decode_call")
}

fn seeds() -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory()).unwrap_or_else(|error| panic!("no seeds: {error}"));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Set `HYPOVISOR_RENEW` to write the seeds that are missing.
#[test]
fn every_call_has_a_seed_and_every_seed_decodes() {
    if std::env::var_os("HYPOVISOR_RENEW").is_some() {
        write_seeds();
    }
    let mut numbers = BTreeSet::new();
    for (path, data) in seeds() {
        let rendered = decode_call(&data).unwrap_or_else(|| panic!("{} is too short", path.display()));
        checks::well_formed(&rendered);
        numbers.insert(u64::from(data[1]));
    }
    for call in XEN.calls.iter().copied().flatten() {
        assert!(numbers.contains(&call.number), "no seed for {}: set HYPOVISOR_RENEW", call.name);
    }
}

/// Flags: capture from memory; the call has returned.
const FROM_MEMORY: u8 = 2 | 4;
const NARROW: u8 = 1;
const MEMORY_BYTES: usize = 256;

fn write_seeds() {
    for call in XEN.calls.iter().copied().flatten() {
        let sub_op = call.sub_ops.and_then(|ops| Some((ops.from, ops.ops.first()?.number)));
        let (number, from) = sub_op.map_or((1, None), |(from, number)| (number, Some(from)));
        let mut args = [0, 16, 32, 48, 64, 80];
        if let Some(SubOpFrom::Arg { index, .. }) = from {
            args[usize::from(index)] = number;
        }
        for (flags, name) in [(FROM_MEMORY, "wide"), (FROM_MEMORY | NARROW, "narrow")] {
            let mut seed = vec![flags, call.number as u8];
            seed.extend(args.iter().flat_map(|arg: &u64| arg.to_le_bytes()));
            seed.extend(memory(number as u32, 1));
            seed.extend(memory(number as u32, 2));
            let path = directory().join(format!("{}-{name}", call.name));
            if path.exists() {
                continue;
            }
            fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// Small numbers, of which every fourth is a good pointer; the first is the sub-op's.
fn memory(sub_op: u32, step: u32) -> Vec<u8> {
    let words = (0..MEMORY_BYTES as u32 / 8).flat_map(|index| match index % 4 {
        0 => [sub_op, step],
        1 => [8 * index, 0],
        2 => [index * step, 2],
        _ => [3, 0],
    });
    words.flat_map(u32::to_le_bytes).collect()
}
