//! Images of each kind, from files.

use std::fs;
use std::path::Path;

use hypovisor_dump::{DumpError, ImageKind, MemoryImage, PageTables, find_page_tables};
use hypovisor_machine::{
    DescriptorTable, Gpa, Gva, MemoryError, PhysicalMemory, SystemRegisters, TaskRegister,
};

use crate::build::{Range, cpu_note, elf, l4, lime, note};

/// Opens a file with these bytes.
pub(crate) fn open(data: &[u8]) -> Result<MemoryImage, DumpError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), data).unwrap();
    MemoryImage::open(file.path())
}

fn read<const N: usize>(image: &MemoryImage, gpa: u64) -> Result<[u8; N], MemoryError> {
    let mut bytes = [0; N];
    image.read(Gpa(gpa), &mut bytes).map(|()| bytes)
}

fn cpu() -> SystemRegisters {
    SystemRegisters {
        rip: Gva(0xffff_82d0_4030_2617),
        rsp: Gva(0xffff_8301_3ad3_fe98),
        cs: 0xe008,
        cr0: 0x8005_0033,
        cr2: 0xffff_8880_072a_7f08,
        cr3: 0x1_373e_0000,
        cr4: 0x0035_0660,
        gdt: DescriptorTable { base: Gva(0xffff_8200_0000_0000), limit: 0xefff },
        idt: DescriptorTable { base: Gva(0xffff_82d0_4057_f000), limit: 0xfff },
        task: TaskRegister { selector: 0xe040, base: Gva(0xffff_82d0_4058_1040), limit: 0x67 },
        ..SystemRegisters::default()
    }
}

#[test]
fn an_elf_core_is_memory_and_registers() {
    let second = SystemRegisters { cr3: 0x1_1b87_6000, ..cpu() };
    let notes = [note(b"CORE\0", &[7; 336]), cpu_note(&cpu()), cpu_note(&second)].concat();
    let ranges = [Range::new(0x10_0000, *b"high"), Range { zeros: 5, ..Range::new(0x1000, *b"low") }];
    let image = open(&elf(&ranges, &notes)).unwrap();
    assert_eq!(image.kind(), ImageKind::ElfCore);
    assert_eq!(image.cpus(), [cpu(), second]);
    assert_eq!(image.ranges().collect::<Vec<_>>(), [(Gpa(0x1000), 8), (Gpa(0x10_0000), 4)]);
    assert_eq!((image.bytes(), image.missing_bytes()), (12, 0));
    assert_eq!(read(&image, 0x1001), Ok(*b"ow\0\0\0"));
    assert_eq!(read(&image, 0x10_0000), Ok(*b"high"));
    assert_eq!(read::<4>(&image, 0x1005), Err(MemoryError::NoRam(Gpa(0x1008))));
    assert_eq!(read::<1>(&image, u64::MAX), Err(MemoryError::NoRam(Gpa(u64::MAX))));
    assert_eq!(read(&image, 0), Ok([]));
}

/// QEMU before 4.0 did not write the last field.
#[test]
fn a_shorter_note_about_a_processor_is_read() {
    let mut notes = cpu_note(&cpu());
    notes.truncate(notes.len() - 8);
    notes[4..8].copy_from_slice(&432_u32.to_le_bytes());
    assert_eq!(open(&elf(&[Range::new(0, [1])], &notes)).unwrap().cpus(), [cpu()]);
}

#[test]
fn a_count_of_segments_that_does_not_fit_its_field_is_in_the_first_section() {
    let mut file = elf(&[Range::new(0, *b"one"), Range::new(0x1000, *b"two")], &[]);
    let section = file.len() as u64;
    file[40..48].copy_from_slice(&section.to_le_bytes());
    file[56..58].copy_from_slice(&[0xff; 2]);
    file.extend([0; 64]);
    file[section as usize + 44] = 3;
    assert_eq!(read(&open(&file).unwrap(), 0x1000), Ok(*b"two"));
}

#[test]
fn a_lime_file_is_its_ranges() {
    let image = open(&lime(&[Range::new(0x5000, *b"second"), Range::new(0x4ffe, *b"1s")])).unwrap();
    assert_eq!(image.kind(), ImageKind::Lime);
    assert_eq!(image.ranges().collect::<Vec<_>>(), [(Gpa(0x4ffe), 2), (Gpa(0x5000), 6)]);
    assert!(image.cpus().is_empty());
    assert_eq!(read(&image, 0x4fff), Ok(*b"ssecond"));
}

#[test]
fn any_other_file_is_memory_from_address_zero() {
    for data in [&b"anything"[..], b"7"] {
        let image = open(data).unwrap();
        assert_eq!((image.kind(), image.bytes()), (ImageKind::Raw, data.len() as u64));
        let mut bytes = vec![0; data.len()];
        image.read(Gpa(0), &mut bytes).unwrap();
        assert_eq!(bytes, data);
    }
}

#[test]
fn what_is_cut_off_is_missing_memory() {
    let file = elf(&[Range::new(0, *b"0123"), Range { zeros: 4, ..Range::new(4, *b"4567") }], &[]);
    let image = open(&file[..file.len() - 6]).unwrap();
    assert_eq!(image.missing_bytes(), 6);
    assert_eq!(read(&image, 0), Ok(*b"01"));
    assert_eq!(read::<3>(&image, 0), Err(MemoryError::NoRam(Gpa(2))));
    assert_eq!(read::<1>(&image, 7), Err(MemoryError::NoRam(Gpa(7))));
    assert_eq!(read(&image, 8), Ok([0; 4]));

    let file = lime(&[Range::new(0, *b"0123")]);
    assert_eq!(open(&file[..33]).unwrap().missing_bytes(), 3);
}

#[test]
fn a_file_that_shrinks_while_it_is_open_loses_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), [7; 8192]).unwrap();
    let image = MemoryImage::open(file.path()).unwrap();
    file.as_file().set_len(5000).unwrap();
    assert_eq!(read(&image, 4096), Ok([7; 8]));
    assert_eq!(read::<8>(&image, 4999), Err(MemoryError::NoRam(Gpa(4999))));
    assert_eq!(PageTables::new(&image).count(), 0);
}

#[test]
fn page_tables_are_found_where_they_lie_whole() {
    let first = [vec![0; 0x800], l4(0x2000)].concat();
    let mut many = vec![0; 3 << 20];
    many[0x1f_f000..0x20_0000].copy_from_slice(&l4(0x211_f000));
    many[0x20_0000..0x20_1000].copy_from_slice(&l4(0x212_0000));
    // Not a table of its own: it names another page.
    many[0x20_1000..0x20_2000].copy_from_slice(&l4(0x2000));
    let image = open(&lime(&[Range::new(0x1800, first), Range::new(0x1f2_0000, many)])).unwrap();
    assert_eq!(PageTables::new(&image).collect::<Vec<_>>(), [0x2000, 0x211_f000, 0x212_0000]);
    let mut asked = Vec::new();
    let found = find_page_tables(&image, |cr3| {
        asked.push(cr3);
        cr3 > 0x2000
    });
    assert_eq!((found, asked), (Some(0x211_f000), vec![0x2000, 0x211_f000]));
}

#[test]
fn only_regular_files_that_exist_are_opened() {
    assert!(matches!(MemoryImage::open(Path::new("/dev/zero")), Err(DumpError::NotAFile)));
    assert!(matches!(MemoryImage::open(Path::new("/")), Err(DumpError::NotAFile)));
    assert!(matches!(MemoryImage::open(Path::new("/no/such/file")), Err(DumpError::Io(_))));
}
