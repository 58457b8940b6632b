//! Which guest-physical addresses an image holds, and where they stand in the file.

use hypovisor_machine::Gpa;

use crate::DumpError;

/// The most ranges of memory that an image may have, and the most program headers of an ELF core. A PC has a handful; a dump by virtual address has thousands.
pub const MAX_RANGES: usize = 65_536;

/// The longest file that is opened, in bytes (16 TiB): even where holes cost no disk, a search has to end.
pub const MAX_FILE_BYTES: u64 = 1 << 44;

/// x86-64 physical addresses have at most 52 bits (AMD APM vol. 2, §5.1).
const ADDRESS_SPACE_BYTES: u64 = 1 << 52;

/// A run of guest-physical addresses: first bytes from the file, then zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// First address.
    pub(crate) gpa: Gpa,
    /// Length in bytes, of both parts.
    pub(crate) len: u64,
    /// Where the first byte stands in the file.
    pub(crate) file_offset: u64,
    /// How many bytes the headers promise to be in the file, at most `len`.
    pub(crate) file_len: u64,
}

/// What stands behind an address.
pub(crate) enum Piece {
    /// `left` bytes of the file from `offset` on.
    File { offset: u64, left: u64 },
    /// `left` bytes that are zero and not in the file.
    Zero { left: u64 },
}

/// A segment, and how much of what is promised the file has.
#[derive(Clone, Copy, Debug)]
struct Checked {
    segment: Segment,
    /// Bytes that are in the file, at most `segment.file_len`.
    held: u64,
}

impl Checked {
    /// The address behind the last one.
    const fn end(&self) -> u64 {
        self.segment.gpa.0 + self.segment.len
    }

    fn piece(&self, within: u64) -> Option<Piece> {
        let Segment { len, file_offset, file_len, .. } = self.segment;
        if within < self.held {
            return Some(Piece::File { offset: file_offset + within, left: self.held - within });
        }
        (file_len <= within && within < len).then(|| Piece::Zero { left: len - within })
    }
}

/// All segments of an image by ascending address, none of which overlap.
#[derive(Debug)]
pub(crate) struct Segments(Vec<Checked>);

impl Segments {
    /// Sorts and checks what the headers of a file with `file_bytes` say. The readers keep to [`MAX_RANGES`].
    pub(crate) fn new(mut segments: Vec<Segment>, file_bytes: u64) -> Result<Self, DumpError> {
        segments.retain(|segment| segment.len > 0);
        if segments.is_empty() {
            return Err(DumpError::NoMemory);
        }
        segments.sort_unstable_by_key(|segment| segment.gpa);
        let checked = segments.into_iter().map(|segment| check(segment, file_bytes));
        let checked = checked.collect::<Result<Vec<_>, _>>()?;
        if let Some(pair) = checked.windows(2).find(|pair| pair[0].end() > pair[1].segment.gpa.0) {
            return Err(DumpError::Overlap(pair[1].segment.gpa));
        }
        refuse_shared_bytes(&checked)?;
        Ok(Self(checked))
    }

    /// What stands at `gpa`; none if the image has no such memory or the file is cut off before it.
    pub(crate) fn locate(&self, gpa: Gpa) -> Option<Piece> {
        let end = self.0.partition_point(|checked| checked.segment.gpa <= gpa);
        let checked = self.0.get(end.checked_sub(1)?)?;
        checked.piece(gpa.0 - checked.segment.gpa.0)
    }

    /// First address and length in bytes of each segment.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Gpa, u64)> + '_ {
        self.0.iter().map(|checked| (checked.segment.gpa, checked.segment.len))
    }

    /// First address of segment `index`, and how many bytes from there on are in the file.
    pub(crate) fn held(&self, index: usize) -> Option<(Gpa, u64)> {
        self.0.get(index).map(|checked| (checked.segment.gpa, checked.held))
    }

    /// Bytes that the headers promise and the file does not have.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.0.iter().map(|checked| checked.segment.file_len - checked.held).sum()
    }
}

fn check(segment: Segment, file_bytes: u64) -> Result<Checked, DumpError> {
    let Segment { gpa, len, file_offset, file_len } = segment;
    if gpa.0.checked_add(len).is_none_or(|end| end > ADDRESS_SPACE_BYTES) {
        return Err(DumpError::BeyondAddressSpace { gpa, bytes: len });
    }
    if file_len > len {
        return Err(DumpError::SegmentSizes { gpa, file_bytes: file_len, memory_bytes: len });
    }
    Ok(Checked { segment, held: file_len.min(file_bytes.saturating_sub(file_offset)) })
}

/// Without this a short file could promise any amount of memory to search, by naming the same bytes again and again.
fn refuse_shared_bytes(segments: &[Checked]) -> Result<(), DumpError> {
    let held = segments.iter().filter(|checked| checked.held > 0);
    let mut runs: Vec<(u64, u64)> = held
        .map(|checked| (checked.segment.file_offset, checked.segment.file_offset + checked.held))
        .collect();
    runs.sort_unstable();
    match runs.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(DumpError::SharedBytes(pair[1].0)),
        None => Ok(()),
    }
}
