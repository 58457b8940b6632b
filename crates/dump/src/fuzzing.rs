//! What the fuzz target, and the tests that replay its seeds, hold of memory images.

use hypovisor_machine::{Gpa, Gva, PhysicalMemory, VirtualMemory};

use crate::{DumpError, ImageKind, MAX_RANGES, MemoryImage, PageTables};

/// How far bytes got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// What they are.
    pub kind: ImageKind,
    /// How many processors they tell of.
    pub cpus: usize,
    /// How many ranges of memory they describe.
    pub ranges: usize,
    /// How many pages look like Xen's page tables.
    pub page_tables: usize,
}

/// An image of bytes instead of a file.
///
/// # Errors
/// As [`MemoryImage::open`].
pub fn open(data: &[u8]) -> Result<MemoryImage, DumpError> {
    MemoryImage::from_source(Box::new(data.to_vec()))
}

/// Any bytes are an image or an error. Ranges of one ascend, everything in them that is in the file can be read, and
/// nothing that is not.
///
/// # Panics
/// When that is not so.
#[must_use]
pub fn memory_image(data: &[u8]) -> Option<Reached> {
    let image = open(data).ok()?;
    let ranges: Vec<(Gpa, u64)> = image.ranges().collect();
    assert!(!ranges.is_empty() && ranges.len() <= MAX_RANGES);
    assert!(ranges.windows(2).all(|pair| pair[0].0.0 + pair[0].1 <= pair[1].0.0));
    for (gpa, len) in &ranges {
        edges(&image, *gpa, *len);
    }
    assert!(image.missing_bytes() <= image.bytes());
    let page_tables = PageTables::new(&image).inspect(|cr3| {
        let _ = VirtualMemory::new(&image, *cr3).read(Gva(0xffff_82d0_4000_0ffe), &mut [0; 4]);
    });
    let page_tables = page_tables.count();
    Some(Reached { kind: image.kind(), cpus: image.cpus().len(), ranges: ranges.len(), page_tables })
}

/// The first and the last byte of a range, and reads that go out of it.
fn edges(image: &MemoryImage, gpa: Gpa, len: u64) {
    let readable = |at: Gpa| image.read(at, &mut [0]).is_ok();
    let last = gpa.offset(len - 1);
    if image.missing_bytes() == 0 {
        assert!(readable(gpa) && readable(last));
    }
    let described = |at: Gpa| image.ranges().any(|(gpa, len)| at.0.wrapping_sub(gpa.0) < len);
    for outside in [gpa.offset(u64::MAX), last.offset(1)] {
        assert!(described(outside) || !readable(outside));
    }
    let _ = image.read(gpa, &mut [0; 4096]);
    let _ = image.read(last, &mut [0; 2]);
}
