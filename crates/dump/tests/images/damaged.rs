//! Files that are refused, and in which words.

use std::fs::File;

use hypovisor_dump::{DumpError, MAX_FILE_BYTES, MemoryImage};

use crate::build::{Range, elf, elf_headers, lime, note, put};
use crate::open::open;

fn refusal(data: &[u8]) -> String {
    open(data).unwrap_err().to_string()
}

/// An ELF core of two ranges with `value` at `at`.
fn elf_with(at: usize, value: &[u8]) -> Vec<u8> {
    let mut file = elf(&[Range::new(0, *b"0123"), Range::new(0x1000, *b"4567")], &[]);
    put(&mut file, at, value);
    file
}

/// Where the program header of range `index` stands in it.
const fn program(index: usize) -> usize {
    64 + 56 * (1 + index)
}

#[test]
fn known_formats_that_are_not_read_are_refused_by_name() {
    let kdump = "a kdump-compressed dump cannot be read: dump again with dump-guest-memory without -z, -l, -s, -R and -w";
    assert_eq!(refusal(b"KDUMP   \x06\0\0\0"), kdump);
    assert_eq!(refusal(b"makedumpfile\0\0\0\0\0\0\0"), kdump);
    assert!(refusal(b"PAGEDU64").starts_with("a Windows crash dump cannot"));
    assert_eq!(refusal(b"\x1f\x8b\x08\0"), "a gzip file cannot be read: unpack it first");
    assert!(refusal(b"LibvirtQemudSave\x02").contains("virsh dump --memory-only"));
    assert!(refusal(b"AVML\x02\0\0\0").contains("avml-convert"));
    assert_eq!(refusal(b""), "the file is empty");
}

#[test]
fn elf_files_of_another_kind_are_refused_by_name() {
    assert!(refusal(&elf_with(4, &[1])).starts_with("a 32-bit ELF file cannot"));
    assert!(refusal(&elf_with(5, &[2])).starts_with("a big-endian ELF file cannot"));
    assert!(refusal(&elf_with(16, &[2])).starts_with("an ELF file that is no core dump cannot"));
    assert!(refusal(&elf_with(18, &[3])).starts_with("a dump of 32-bit mode cannot"));
    assert!(refusal(&elf_with(18, &[183])).starts_with("an ELF core of another architecture cannot"));
}

#[test]
fn elf_headers_that_make_no_sense_are_refused() {
    let segment = |field: usize, value: u64| open(&elf_with(program(1) + field, &value.to_le_bytes()));
    assert!(matches!(segment(24, 3), Err(DumpError::Overlap(at)) if at.0 == 3));
    assert!(matches!(segment(24, u64::MAX), Err(DumpError::BeyondAddressSpace { .. })));
    assert!(matches!(segment(40, 1 << 52), Err(DumpError::BeyondAddressSpace { .. })));
    assert!(matches!(segment(32, 5), Err(DumpError::SegmentSizes { file_bytes: 5, memory_bytes: 4, .. })));
    let first_bytes = elf_headers(&[Range::new(0, []), Range::new(0, [])], &[]) as u64;
    assert!(matches!(segment(8, first_bytes), Err(DumpError::SharedBytes(at)) if at == first_bytes));
    assert_eq!(segment(8, u64::MAX).unwrap().missing_bytes(), 4);

    assert!(matches!(open(&elf_with(54, &[64])), Err(DumpError::ProgramHeaderSize(64))));
    assert!(matches!(open(&elf_with(56, &[0])), Err(DumpError::NoMemory)));
    assert!(matches!(open(&elf_with(56, &[9])), Err(DumpError::CutOff { .. })));
    let far = open(&elf_with(32, &[0xff; 8]));
    assert!(matches!(far, Err(DumpError::CutOff { what: "an ELF program header", .. })));
    assert!(refusal(b"\x7fELF\x02\x01").contains("ends within the ELF header at offset 0x0"));
}

#[test]
fn too_many_segments_are_refused_before_they_are_read() {
    let mut file = elf_with(56, &[0xff; 2]);
    let section = file.len() as u64;
    put(&mut file, 40, &section.to_le_bytes());
    file.extend([0xff; 64]);
    assert!(matches!(open(&file), Err(DumpError::TooManyRanges)));
}

#[test]
fn notes_that_make_no_sense_are_refused() {
    let with_notes = |notes: &[u8]| open(&elf(&[Range::new(0, [1])], notes));
    assert!(with_notes(&[0; 11]).is_ok());
    let mut long = note(b"QEMU\0", &[1; 8]);
    put(&mut long, 4, &[0xff; 4]);
    assert!(matches!(with_notes(&long), Err(DumpError::BrokenNote(_))));
    let other = with_notes(&note(b"QEMU\0", &[2; 440]));
    assert!(matches!(other, Err(DumpError::CpuState { version: 0x0202_0202, bytes: 440, .. })));
    let short = with_notes(&note(b"QEMU\0", &1_u32.to_le_bytes()));
    assert!(matches!(short, Err(DumpError::CpuState { version: 1, bytes: 4, .. })));

    let mut huge = elf(&[Range::new(0, [1])], &[]);
    put(&mut huge, 64 + 32, &u64::to_le_bytes(1 << 40));
    assert!(matches!(open(&huge), Err(DumpError::NotesTooLong)));
    put(&mut huge, 64 + 32, &12_u64.to_le_bytes());
    put(&mut huge, 64 + 8, &[0xff; 8]);
    assert!(matches!(open(&huge), Err(DumpError::CutOff { what: "the notes", .. })));
}

#[test]
fn lime_headers_that_make_no_sense_are_refused() {
    let file = lime(&[Range::new(0x1000, *b"0123")]);
    let with = |at: usize, value: &[u8]| {
        let mut file = file.clone();
        put(&mut file, at, value);
        open(&file)
    };
    assert!(matches!(with(4, &[2]), Err(DumpError::LimeVersion(2))));
    assert!(matches!(with(16, &[0; 8]), Err(DumpError::LimeRange { .. })));
    assert!(matches!(with(16, &[0xff; 8]), Err(DumpError::BeyondAddressSpace { .. })));
    let appended = [&file[..], &[0; 32]].concat();
    assert!(matches!(open(&appended), Err(DumpError::LimeMagic(36))));
    assert!(matches!(open(&file[..20]), Err(DumpError::CutOff { what: "a LiME header", offset: 0 })));
    let twice = [&file[..], &file[..]].concat();
    assert!(matches!(open(&twice), Err(DumpError::Overlap(_))));
}

#[test]
fn a_file_that_is_all_hole_is_refused_when_it_is_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    let file = File::create(&path).unwrap();
    // Not every filesystem has files that long.
    if file.set_len(MAX_FILE_BYTES + 1).is_ok() {
        assert!(matches!(MemoryImage::open(&path), Err(DumpError::TooLarge(_))));
    }
}
