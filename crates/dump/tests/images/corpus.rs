//! Replays the seeds of the fuzz target `memory_image` on a stable toolchain. They are made here.

use std::fs;
use std::path::Path;

use hypovisor_dump::ImageKind;
use hypovisor_dump::fuzzing::{Reached, memory_image};
use hypovisor_machine::SystemRegisters;

use crate::build::{Range, cpu_note, elf, l4, lime, note};

/// A seed's name, what it is, and how far it has to get.
fn made() -> [(&'static str, Vec<u8>, Option<Reached>); 7] {
    let cpu = SystemRegisters { cr3: 0x3000, cs: 0xe008, ..SystemRegisters::default() };
    let notes = [note(b"CORE\0", &[0; 336]), cpu_note(&cpu), cpu_note(&cpu)].concat();
    let ranges = [Range { zeros: 64, ..Range::new(0, [1; 64]) }, Range::new(0x3000, l4(0x3000))];
    let core = elf(&ranges, &notes);
    let ranged = lime(&[Range::new(0x1000, [1; 8]), Range::new(0x3000, l4(0x3000))]);
    let reached = |kind, cpus, ranges, page_tables| Some(Reached { kind, cpus, ranges, page_tables });
    [
        ("elf_cut_off", core[..core.len() - 100].to_vec(), reached(ImageKind::ElfCore, 2, 2, 0)),
        ("elf", core, reached(ImageKind::ElfCore, 2, 2, 1)),
        ("elf_overlapping", elf(&[Range::new(0, [1; 9]), Range::new(8, [1])], &[]), None),
        ("lime_cut_off", ranged[..60].to_vec(), None),
        ("lime", ranged, reached(ImageKind::Lime, 0, 2, 1)),
        ("raw", [vec![0; 0x1000], l4(0x1000)].concat(), reached(ImageKind::Raw, 0, 1, 1)),
        ("kdump", b"KDUMP   \x06\0\0\0".to_vec(), None),
    ]
}

#[test]
fn every_seed_of_an_image_gets_as_far_as_it_should() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/memory_image");
    let made = made();
    if std::env::var_os("HYPOVISOR_RENEW").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, seed, _) in made.iter().filter(|(name, ..)| !directory.join(name).exists()) {
            fs::write(directory.join(name), seed).unwrap();
        }
    }
    let mut replayed = 0;
    for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
        let reached = memory_image(&fs::read(entry.path()).unwrap());
        if let Some((name, _, expected)) = made.iter().find(|(name, ..)| entry.file_name() == *name) {
            assert_eq!(reached, *expected, "{name}");
            replayed += 1;
        }
    }
    assert_eq!(replayed, made.len());
}
