//! Images agree with a model of what they hold, whole and cut off; any bytes are an image or an error.

use hypovisor_dump::MemoryImage;
use hypovisor_dump::fuzzing::{memory_image, open};
use hypovisor_machine::{Gpa, PhysicalMemory};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::build::{Range, elf, elf_headers, lime, note};

/// Ranges that do not overlap, some of which touch, in any order.
fn ranges(zeros: u64) -> impl Strategy<Value = Vec<Range>> {
    let gap = prop_oneof![Just(0), 1..3000_u64];
    let range = (gap, vec(any::<u8>(), 1..3000), 0..=zeros);
    let placed = vec(range, 1..6).prop_map(|parts| {
        let mut gpa = 0;
        let place = |(gap, bytes, zeros)| {
            let range = Range { gpa: gpa + gap, bytes, zeros };
            gpa = range.gpa + range.len();
            range
        };
        parts.into_iter().map(place).collect::<Vec<_>>()
    });
    placed.prop_shuffle()
}

/// What stands at an address.
fn byte(ranges: &[Range], gpa: u64) -> Option<u8> {
    let range = ranges.iter().find(|range| gpa >= range.gpa && gpa - range.gpa < range.len())?;
    Some(range.bytes.get((gpa - range.gpa) as usize).copied().unwrap_or(0))
}

fn end(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| range.gpa + range.len()).max().unwrap_or(0)
}

fn agrees(image: &MemoryImage, ranges: &[Range], reads: &[(Index, usize)]) -> Result<(), TestCaseError> {
    for (at, len) in reads {
        let gpa = at.index(end(ranges) as usize + 1) as u64;
        let expected: Option<Vec<u8>> = (gpa..gpa + *len as u64).map(|gpa| byte(ranges, gpa)).collect();
        let mut bytes = vec![0xee; *len];
        let read = image.read(Gpa(gpa), &mut bytes);
        prop_assert_eq!(read.ok().map(|()| bytes), expected);
    }
    prop_assert_eq!(image.bytes(), ranges.iter().map(Range::len).sum::<u64>());
    prop_assert_eq!((image.ranges().count(), image.missing_bytes()), (ranges.len(), 0));
    Ok(())
}

/// How many bytes cannot be read; all others are as the model says.
fn unreadable(image: &MemoryImage, ranges: &[Range]) -> u64 {
    let wrong = |gpa: &u64| {
        let mut read = [0];
        match image.read(Gpa(*gpa), &mut read) {
            Ok(()) => {
                assert_eq!(Some(read[0]), byte(ranges, *gpa));
                false
            }
            Err(_) => byte(ranges, *gpa).is_some(),
        }
    };
    (0..end(ranges)).filter(wrong).count() as u64
}

proptest! {
    #[test]
    fn an_elf_core_agrees_with_its_model(
        ranges in ranges(3000),
        reads in vec((any::<Index>(), 0..5000_usize), 20),
    ) {
        agrees(&open(&elf(&ranges, &note(b"QEMU", b""))).unwrap(), &ranges, &reads)?;
    }

    #[test]
    fn a_lime_file_agrees_with_its_model(
        ranges in ranges(0),
        reads in vec((any::<Index>(), 0..5000_usize), 20),
    ) {
        agrees(&open(&lime(&ranges)).unwrap(), &ranges, &reads)?;
    }

    #[test]
    fn an_elf_core_that_is_cut_off_misses_exactly_that(ranges in ranges(3000), cut in any::<Index>()) {
        let file = elf(&ranges, b"");
        let cut = cut.index(file.len());
        match open(&file[..cut]) {
            Ok(image) if cut >= 4 => {
                prop_assert!(cut >= elf_headers(&ranges, b""));
                prop_assert_eq!(image.missing_bytes(), (file.len() - cut) as u64);
                prop_assert_eq!(unreadable(&image, &ranges), image.missing_bytes());
            }
            // Too short for the ELF magic: raw.
            Ok(_) => {}
            Err(_) => prop_assert!(cut < elf_headers(&ranges, b"")),
        }
    }

    #[test]
    fn a_lime_file_that_is_cut_off_holds_what_is_left(ranges in ranges(0), cut in any::<Index>()) {
        let file = lime(&ranges);
        let cut = cut.index(file.len());
        if let Ok(image) = open(&file[..cut]) && cut >= 4 {
            unreadable(&image, &ranges);
            prop_assert_eq!(image.bytes() - image.missing_bytes() + 32 * image.ranges().count() as u64, cut as u64);
        }
        let _ = memory_image(&file[..cut]);
    }

    #[test]
    fn any_bytes_are_an_image_or_an_error(
        kind in 0..3_usize,
        damage in vec((any::<Index>(), any::<[u8; 8]>()), 0..4),
        random in vec(any::<u8>(), 0..400),
    ) {
        let ranges = [Range::new(0x1000, [1; 40]), Range { zeros: 9, ..Range::new(0x2000, [2; 40]) }];
        let mut file = match kind {
            0 => elf(&ranges, &note(b"QEMU\0", &random)),
            1 => lime(&ranges),
            _ => random,
        };
        for (at, value) in damage {
            let at = at.index(file.len() + 1);
            let len = value.len().min(file.len() - at);
            file[at..at + len].copy_from_slice(&value[..len]);
        }
        let _ = memory_image(&file);
    }
}
