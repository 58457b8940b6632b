//! The same image from the file that the boot loader loads.
//!
//! `/boot/xen-*.gz` is a gzipped ELF32 container made by Xen's `mkelf32`: one segment at the physical address Xen
//! was linked for, and no symbols. Where the image runs is not written in the container, but the image is full of
//! pointers into itself: the region they point to most often is its own. Physical addresses repeat the offset in
//! that region (Xen's linker script places `__XEN_VIRT_START` at physical 0).

use std::collections::HashMap;
use std::io::Read;

use hypovisor_machine::{Gpa, Gva, PAGE_SIZE};
use object::elf::{FileHeader32, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::{Image, MAX_IMAGE_BYTES, PageRun};

/// Most segments a container may have; `mkelf32` makes one.
const MAX_SEGMENTS: usize = 16;

/// Why a file is not a bootable Xen image.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The gzip stream is broken.
    #[error("cannot unpack the image: {0}")]
    Gzip(#[from] std::io::Error),
    /// The file or its segments are larger than any Xen.
    #[error("the image is larger than {MAX_IMAGE_BYTES} bytes")]
    TooLarge,
    /// Not an ELF32 multiboot container, or a broken one.
    #[error("not a multiboot ELF32 image: {0}")]
    Elf(#[from] object::read::Error),
    /// The container loads nothing.
    #[error("the image has no loadable segment")]
    Empty,
    /// More segments than any Xen has.
    #[error("the image has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// Nothing in the image points into a region it could run in.
    #[error("the image does not tell which virtual addresses it runs at")]
    NoVirtualBase,
}

impl Image {
    /// Reads `/boot/xen-*.gz`, or the ELF32 container inside it.
    ///
    /// # Errors
    /// When the file cannot be unpacked, is no such container, or does not tell its virtual addresses.
    pub fn from_file(file: &[u8]) -> Result<Self, ImageFileError> {
        let unpacked = if file.starts_with(&[0x1f, 0x8b]) { gunzip(file)? } else { file.to_vec() };
        let (start, bytes) = load_segments(&unpacked)?;
        let region = own_region(&bytes).ok_or(ImageFileError::NoVirtualBase)?;
        let base = region.offset(start);
        let run = PageRun { gva: base, gpa: Gpa(start), len: bytes.len() as u64 };
        Ok(Self::new(base, bytes, vec![run]))
    }
}

fn gunzip(file: &[u8]) -> Result<Vec<u8>, ImageFileError> {
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(file).take(MAX_IMAGE_BYTES + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > MAX_IMAGE_BYTES {
        return Err(ImageFileError::TooLarge);
    }
    Ok(unpacked)
}

/// The loadable segments as one run of bytes, and the physical address of its first.
fn load_segments(elf: &[u8]) -> Result<(u64, Vec<u8>), ImageFileError> {
    let header = FileHeader32::<object::Endianness>::parse(elf)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, elf)?;
    if segments.len() > MAX_SEGMENTS {
        return Err(ImageFileError::TooManySegments);
    }
    let loads: Vec<_> = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD).collect();
    let extent = |segment: &&object::elf::ProgramHeader32<object::Endianness>| {
        let start = u64::from(segment.p_paddr(endian));
        (start, start + u64::from(segment.p_memsz(endian)))
    };
    let start = loads.iter().map(|s| extent(s).0).min().ok_or(ImageFileError::Empty)? & !(PAGE_SIZE - 1);
    let end = loads.iter().map(|s| extent(s).1).max().ok_or(ImageFileError::Empty)?;
    let len = end.checked_sub(start).filter(|len| *len <= MAX_IMAGE_BYTES).ok_or(ImageFileError::TooLarge)?;
    let mut bytes = vec![0; len as usize];
    for segment in loads {
        let data = segment.data(endian, elf).map_err(|()| ImageFileError::Empty)?;
        let target = bytes.get_mut((extent(&segment).0 - start) as usize..).unwrap_or_default();
        let len = data.len().min(target.len());
        target[..len].copy_from_slice(&data[..len]);
    }
    Ok((start, bytes))
}

/// The 1 GiB region of the upper half that most aligned words of the image point into.
fn own_region(bytes: &[u8]) -> Option<Gva> {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for word in bytes.as_chunks::<8>().0 {
        let value = u64::from_le_bytes(*word);
        // All ones is -1, and small negative numbers lie in the last region: never an image's.
        if value >> 47 == 0x1_ffff && value >> 30 != u64::MAX >> 30 {
            *votes.entry(value >> 30).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|(region, count)| (*count, *region)).map(|(region, _)| Gva(region << 30))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gzip_bomb_is_refused() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::copy(&mut std::io::repeat(0).take(MAX_IMAGE_BYTES + 1), &mut encoder).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(matches!(Image::from_file(&bomb), Err(ImageFileError::TooLarge)));
    }

    proptest! {
        #[test]
        fn random_files_are_refused_quietly(mut bytes in proptest::collection::vec(any::<u8>(), 0..512), magic: bool) {
            if magic && bytes.len() > 16 {
                bytes[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
            }
            prop_assert!(Image::from_file(&bytes).is_err());
        }
    }
}
