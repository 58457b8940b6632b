//! LiME's format: a header before each range of memory (LiME `doc/README.md`, "Specification of Lime Format").
//!
//! ```text
//!    0  u32  magic 0x4C694D45     8  u64  first address     16  u64  last address     24  8 bytes reserved
//!    4  u32  version 1
//!   32  the range's bytes, then the next header
//! ```

use hypovisor_machine::Gpa;

use crate::segments::Segment;
use crate::source::{Record, Source};
use crate::{DumpError, MAX_RANGES};

/// "EMiL": 0x4C694D45 in little-endian order.
pub(crate) const MAGIC: [u8; 4] = *b"EMiL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;

/// The ranges of a file with `file_bytes`. If the last one is cut off, nothing tells whether others followed.
pub(crate) fn segments(source: &dyn Source, file_bytes: u64) -> Result<Vec<Segment>, DumpError> {
    let (mut segments, mut offset) = (Vec::new(), 0);
    while offset < file_bytes {
        if segments.len() == MAX_RANGES {
            return Err(DumpError::TooManyRanges);
        }
        let segment = range(source, offset)?;
        // Past the end of any file when the length is nonsense; `Segments` then says so.
        offset = segment.file_offset.saturating_add(segment.len);
        segments.push(segment);
    }
    Ok(segments)
}

/// The range whose header stands at `offset`.
fn range(source: &dyn Source, offset: u64) -> Result<Segment, DumpError> {
    let header = Record::<HEADER_BYTES>::read(source, offset, "a LiME header")?;
    if !header.bytes().starts_with(&MAGIC) {
        return Err(DumpError::LimeMagic(offset));
    }
    if header.u32(4) != VERSION {
        return Err(DumpError::LimeVersion(header.u32(4)));
    }
    let (start, last) = (Gpa(header.u64(8)), Gpa(header.u64(16)));
    let distance = last.0.checked_sub(start.0).ok_or(DumpError::LimeRange { start, last })?;
    let len = distance.saturating_add(1);
    let file_offset = offset.saturating_add(HEADER_BYTES as u64);
    Ok(Segment { gpa: start, len, file_offset, file_len: len })
}
