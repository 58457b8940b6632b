//! What a file is, told by its first bytes.

use std::fmt;

use crate::{DumpError, elf, lime};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// An ELF core of a whole machine, as QEMU's `dump-guest-memory` writes it.
    ElfCore,
    /// Ranges with a header each, as LiME and AVML write them.
    Lime,
    /// Nothing but memory: the offset in the file is the guest-physical address.
    Raw,
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ElfCore => "ELF core",
            Self::Lime => "LiME",
            Self::Raw => "raw",
        })
    }
}

/// As many of a file's first bytes as are needed to know it.
pub(crate) const HEAD_BYTES: usize = 16;

/// What to do about a dump in another of QEMU's formats.
const DUMP_AGAIN: &str = "dump again with dump-guest-memory without -z, -l, -s, -R and -w";
/// What to do about a file that is no dump.
pub(crate) const MAKE_DUMP: &str = "make a dump with dump-guest-memory";
const UNPACK: &str = "unpack it first";

/// First bytes of formats that would otherwise be taken for raw memory, what they are, and what to do.
///
/// QEMU's kdump files begin with `makedumpfile`'s header for files that are written in one go, or with `-R` as kdump
/// itself does (QEMU `dump/dump.c`); Windows's with `PAGE` (QEMU `dump/win_dump.c`). AVML's is in its `image.rs`.
const REFUSED: [(&[u8], &str, &str); 14] = [
    (b"KDUMP   ", "a kdump-compressed dump", DUMP_AGAIN),
    (b"DISKDUMP", "a kdump-compressed dump", DUMP_AGAIN),
    (b"makedumpfile\0", "a kdump-compressed dump", DUMP_AGAIN),
    (b"PAGEDU64", "a Windows crash dump", DUMP_AGAIN),
    (b"PAGEDUMP", "a Windows crash dump", DUMP_AGAIN),
    (b"AVML", "a compressed AVML image", "convert it with avml-convert"),
    (b"QEVM", "a saved state of QEMU", MAKE_DUMP),
    (b"LibvirtQemudSave", "a saved state of libvirt", "make a dump with virsh dump --memory-only"),
    (b"QFI\xfb", "a qcow2 disk image", MAKE_DUMP),
    (b"\x1f\x8b", "a gzip file", UNPACK),
    (b"\xfd7zXZ\0", "an xz file", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (b"BZh", "a bzip2 file", UNPACK),
    (b"PK\x03\x04", "a zip file", UNPACK),
];

/// Tells the kind of a file from its first [`HEAD_BYTES`] bytes, or all if it is shorter.
pub(crate) fn recognise(head: &[u8]) -> Result<ImageKind, DumpError> {
    if head.starts_with(&elf::MAGIC) {
        return Ok(ImageKind::ElfCore);
    }
    if head.starts_with(&lime::MAGIC) {
        return Ok(ImageKind::Lime);
    }
    match REFUSED.iter().find(|(magic, ..)| head.starts_with(magic)) {
        Some(&(_, format, advice)) => Err(DumpError::Unsupported { format, advice }),
        None => Ok(ImageKind::Raw),
    }
}
