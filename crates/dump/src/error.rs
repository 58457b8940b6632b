//! Why a file is no memory image that can be read.

use hypovisor_machine::Gpa;

use crate::{MAX_FILE_BYTES, MAX_RANGES, notes};

/// Why a memory image could not be opened. The file's name is left to the caller, who knows it.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file cannot be opened or read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A directory, a device or a pipe.
    #[error("not a regular file")]
    NotAFile,
    /// Nothing is in it.
    #[error("the file is empty")]
    Empty,
    /// More than any image that is meant seriously; a search through it would not end.
    #[error("the file has {0} bytes, more than the {MAX_FILE_BYTES} that are read")]
    TooLarge(u64),
    /// A format that is known and not read.
    #[error("{format} cannot be read: {advice}")]
    Unsupported {
        /// What the file is.
        format: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// The file ends inside a header; memory that is cut off is no error.
    #[error("the file ends within {what} at offset {offset:#x}: copy it again, or make a new dump")]
    CutOff {
        /// What is not whole.
        what: &'static str,
        /// Where that begins, as a file offset.
        offset: u64,
    },
    /// An ELF file whose program headers have another size than ELF64's.
    #[error("its ELF program headers have {0} bytes, not 56: the file is damaged")]
    ProgramHeaderSize(u16),
    /// An ELF segment with more bytes in the file than in memory.
    #[error(
        "the segment at guest-physical {gpa:#x} has {file_bytes} bytes in the file and {memory_bytes} in memory: \
         the file is damaged"
    )]
    SegmentSizes {
        /// The first address of the segment.
        gpa: Gpa,
        /// Its length in the file.
        file_bytes: u64,
        /// Its length in memory.
        memory_bytes: u64,
    },
    /// Notes of an ELF file that are longer than those of the largest machine.
    #[error("the notes of the ELF core have more than {} bytes", notes::MAX_NOTES_BYTES)]
    NotesTooLong,
    /// A note that ends beyond its segment.
    #[error("the note at offset {0:#x} is longer than its segment: the file is damaged")]
    BrokenNote(u64),
    /// QEMU's note about a processor in a form that is not known.
    #[error(
        "the registers at offset {offset:#x} have version {version} and {bytes} bytes: only version 1 is read"
    )]
    CpuState {
        /// Where they stand, as a file offset.
        offset: u64,
        /// The version that they state.
        version: u32,
        /// The length of the note.
        bytes: u32,
    },
    /// A LiME file has something else where the next header should be.
    #[error("no LiME header at offset {0:#x}: the file is damaged, or something was appended to it")]
    LimeMagic(u64),
    /// A version of LiME's format that is not known.
    #[error("LiME's format has version {0}: only version 1 is read")]
    LimeVersion(u32),
    /// A LiME range that ends before it begins.
    #[error("the LiME range from {start:#x} ends at {last:#x}: the file is damaged")]
    LimeRange {
        /// The first address of the range.
        start: Gpa,
        /// Its last address.
        last: Gpa,
    },
    /// The file describes no memory at all.
    #[error("no memory is in the file: make a dump with QEMU's dump-guest-memory")]
    NoMemory,
    /// More ranges than any machine has.
    #[error("the file describes more than {MAX_RANGES} ranges of memory")]
    TooManyRanges,
    /// A range that goes beyond the 52 bits of a physical address.
    #[error("the {bytes} bytes from guest-physical {gpa:#x} go beyond 52 bits: the file is damaged")]
    BeyondAddressSpace {
        /// The first address of the range.
        gpa: Gpa,
        /// Its length.
        bytes: u64,
    },
    /// Two ranges hold the same address. QEMU's dumps with `-p` do, and cores of a process.
    #[error(
        "two ranges hold guest-physical {0:#x}: not a machine's memory, or dumped by virtual address; \
         dump again with dump-guest-memory without -p"
    )]
    Overlap(Gpa),
    /// Two ranges share bytes of the file.
    #[error("two ranges share the byte at offset {0:#x} of the file: the file is damaged")]
    SharedBytes(u64),
}
