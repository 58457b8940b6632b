//! An image that is open.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use hypovisor_machine::{Gpa, MemoryError, PhysicalMemory, SystemRegisters};

use crate::elf::{self, Core};
use crate::format::{HEAD_BYTES, recognise};
use crate::segments::{MAX_FILE_BYTES, Piece, Segment, Segments};
use crate::source::Source;
use crate::{DumpError, ImageKind, lime};

/// Guest-physical memory of L1 in a file, and its processors' registers if the file tells them.
pub struct MemoryImage {
    source: Box<dyn Source>,
    kind: ImageKind,
    segments: Segments,
    cpus: Vec<SystemRegisters>,
}

impl MemoryImage {
    /// Opens the image at `path`, of whichever kind its content says. A file that is none of the others is raw.
    ///
    /// The file stays open. Its headers are read now, memory when it is asked for.
    ///
    /// # Errors
    /// When the file cannot be read, is of a kind that is not supported, or has headers that are damaged or cut
    /// off. Memory that is cut off is not an error: see [`MemoryImage::missing_bytes`].
    pub fn open(path: &Path) -> Result<Self, DumpError> {
        // Before it is opened: opening a pipe would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(DumpError::NotAFile);
        }
        Self::from_source(Box::new(File::open(path)?))
    }

    pub(crate) fn from_source(source: Box<dyn Source>) -> Result<Self, DumpError> {
        let file_bytes = source.bytes()?;
        if file_bytes == 0 {
            return Err(DumpError::Empty);
        }
        if file_bytes > MAX_FILE_BYTES {
            return Err(DumpError::TooLarge(file_bytes));
        }
        let kind = kind(&*source, file_bytes)?;
        let Core { segments, cpus } = match kind {
            ImageKind::ElfCore => elf::read(&*source)?,
            ImageKind::Lime => Core { segments: lime::segments(&*source, file_bytes)?, ..Core::default() },
            ImageKind::Raw => Core { segments: vec![whole(file_bytes)], ..Core::default() },
        };
        Ok(Self { kind, segments: Segments::new(segments, file_bytes)?, cpus, source })
    }

    /// What the file is.
    #[must_use]
    pub const fn kind(&self) -> ImageKind {
        self.kind
    }

    /// The memory that the file describes, by ascending address: first address and length in bytes. No two overlap.
    pub fn ranges(&self) -> impl Iterator<Item = (Gpa, u64)> + '_ {
        self.segments.ranges()
    }

    /// How many bytes of memory the file describes, missing ones included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges().map(|(_, len)| len).sum()
    }

    /// How many bytes the headers promise that the file does not have: it was cut off. They read as
    /// [`MemoryError::NoRam`].
    ///
    /// Always 0 for a raw file, which promises nothing. Of a LiME file that was cut off only the range that is cut
    /// counts: headers of later ones, if there were any, are gone as well.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.segments.missing_bytes()
    }

    /// The registers of each processor, in QEMU's order; empty unless QEMU wrote the file.
    ///
    /// QEMU's dump tells neither EFER nor the other model-specific registers, nor debug registers (QEMU
    /// `target/i386/arch_dump.c`).
    #[must_use]
    pub fn cpus(&self) -> &[SystemRegisters] {
        &self.cpus
    }

    pub(crate) const fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Reads as much of `buf` as lies in one piece at `gpa`; how many bytes that were.
    fn read_piece(&self, gpa: Gpa, buf: &mut [u8]) -> Result<usize, MemoryError> {
        let bounded = |left: u64| usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        match self.segments.locate(gpa).ok_or(MemoryError::NoRam(gpa))? {
            Piece::File { offset, left } => {
                let bytes = bounded(left);
                let read = self.source.read_exact(offset, &mut buf[..bytes]);
                read.map(|()| bytes).map_err(|_| MemoryError::NoRam(gpa))
            }
            Piece::Zero { left } => {
                let bytes = bounded(left);
                buf[..bytes].fill(0);
                Ok(bytes)
            }
        }
    }
}

/// Where the file is cut off, or became shorter since, or the disk fails, there is no RAM.
impl PhysicalMemory for MemoryImage {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < buf.len() {
            let at = gpa.0.checked_add(done as u64).ok_or(MemoryError::NoRam(gpa))?;
            done += self.read_piece(Gpa(at), &mut buf[done..])?;
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryImage")
            .field("kind", &self.kind)
            .field("cpus", &self.cpus)
            .finish_non_exhaustive()
    }
}

fn kind(source: &dyn Source, file_bytes: u64) -> Result<ImageKind, DumpError> {
    let mut head = [0; HEAD_BYTES];
    let head = &mut head[..HEAD_BYTES.min(usize::try_from(file_bytes).unwrap_or(HEAD_BYTES))];
    source.read_exact(0, head)?;
    recognise(head)
}

/// A raw file: its offsets are addresses.
const fn whole(file_bytes: u64) -> Segment {
    Segment { gpa: Gpa(0), len: file_bytes, file_offset: 0, file_len: file_bytes }
}
