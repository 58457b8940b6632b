//! Replays the seeds of the fuzz targets for images and symbol files on a stable toolchain.
//!
//! The seeds of `symbol_file` are `corpus/seed.c`, which says how it was compiled. Those of `symbol_table` and
//! `xen_image` are made here: a table as Xen's build writes it, and a boot image with little more in it than that.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use hypovisor_l1::fuzzing::{symbol_file, symbol_table, xen_image};

/// Where the image is linked to, physically; it runs at [`REGION`] plus this.
const START: u32 = 0x20_0000;
const REGION: u64 = 0xffff_82d0_4000_0000;
/// A call or a return each.
const FUNCTION_BYTES: u32 = 16;
const FUNCTIONS: u32 = 110;

fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The seeds of a target; `made` are written if they are missing and `HYPOVISOR_RENEW` is set.
fn seeds(target: &str, made: &[(&str, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let directory = directory(target);
    if std::env::var_os("HYPOVISOR_RENEW").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, seed) in made.iter().filter(|(name, _)| !directory.join(name).exists()) {
            fs::write(directory.join(name), seed).unwrap();
        }
    }
    let entries = fs::read_dir(&directory).unwrap().map(Result::unwrap);
    let read =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(read).collect()
}

/// Replays all, and says how far the seed `name` got.
fn replay<T>(seeds: &[(String, Vec<u8>)], target: impl Fn(&[u8]) -> T, name: &str) -> T {
    let results: Vec<_> = seeds.iter().map(|(seed, data)| (seed == name, target(data))).collect();
    results.into_iter().find_map(|(wanted, result)| wanted.then_some(result)).unwrap()
}

#[test]
fn every_seed_of_a_symbol_file_is_read() {
    let seeds = seeds("symbol_file", &[]);
    assert_eq!(replay(&seeds, symbol_file, "dwarf4"), Some(true));
    assert_eq!(replay(&seeds, symbol_file, "dwarf5"), Some(true));
    assert_eq!(replay(&seeds, symbol_file, "no_dwarf"), Some(false));
}

#[test]
fn every_seed_of_a_symbol_table_is_read() {
    let seeds = seeds("symbol_table", &[("functions", table())]);
    assert_eq!(replay(&seeds, symbol_table, "functions"), Some(FUNCTIONS as usize));
}

#[test]
fn every_seed_of_an_image_is_read() {
    let seeds = seeds("xen_image", &[("image", image())]);
    let profile = replay(&seeds, xen_image, "image").unwrap();
    let pv = profile.hooks.pv.unwrap();
    assert_eq!(pv.entry.address.0, REGION + u64::from(START));
    assert_eq!(pv.results.len(), FUNCTIONS as usize - 1);
}

fn name(function: u32) -> String {
    if function == 0 { "Tpv_hypercall".to_owned() } else { format!("tf{function}") }
}

/// What `xen/tools/symbols.c` writes, with a token for each letter.
fn table() -> Vec<u8> {
    let mut table: Vec<u8> =
        (0..FUNCTIONS).flat_map(|function| (START + FUNCTION_BYTES * function).to_le_bytes()).collect();
    table.extend(FUNCTIONS.to_le_bytes());
    for function in 0..FUNCTIONS {
        let name = name(function);
        table.push(name.len() as u8);
        table.extend(name.as_bytes());
    }
    table.resize(table.len().next_multiple_of(4), 0);
    // The only marker, then the tokens and where each begins.
    table.extend([0; 4]);
    for token in 0..=255_u8 {
        table.extend([if token.is_ascii_graphic() { token } else { b'?' }, 0]);
    }
    table.extend((0..256_u16).flat_map(|token| (2 * token).to_le_bytes()));
    table
}

/// An ELF32 container with one segment: functions that call the first one, and their table.
fn image() -> Vec<u8> {
    let mut code = Vec::new();
    for function in 0..FUNCTIONS {
        let back = -((FUNCTION_BYTES * function) as i32) - 5;
        if function > 0 {
            code.push(0xe8);
            code.extend(back.to_le_bytes());
        }
        code.push(0xc3);
        code.resize((FUNCTION_BYTES * (function + 1)) as usize, 0x90);
    }
    code.extend((REGION + 8).to_le_bytes());
    code.extend(table());
    let (size, header) = (code.len() as u32, 52 + 32);
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    // Version, entry, program headers, section headers, flags; sizes and counts.
    elf.extend([1, START, 52, 0, 0].into_iter().flat_map(u32::to_le_bytes));
    elf.extend([52_u16, 32, 1, 40, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    // Loadable; where it stands in the file, virtual and physical address, sizes, flags, alignment.
    elf.extend([1, header, START, START, size, size, 7, 64].into_iter().flat_map(u32::to_le_bytes));
    [elf, code].concat()
}
