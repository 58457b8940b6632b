//! The GNU build id: a note that names one link of one program.
//!
//! The linker places it in the image (`.note.gnu.build-id`, kept by Xen for live patching), so that memory can be
//! asked which build it holds. Note format: ELF gABI, "Note Section"; type 3 is `NT_GNU_BUILD_ID` (binutils).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Name size 4, descriptor size (checked apart), type 3, name "GNU\0".
const NAME_SIZE: [u8; 4] = 4u32.to_le_bytes();
const NT_GNU_BUILD_ID: [u8; 4] = 3u32.to_le_bytes();
const NAME: [u8; 4] = *b"GNU\0";
/// Where the descriptor starts, counted from the note.
const HEADER_BYTES: usize = 16;
/// The shortest and longest descriptors linkers write: 8 bytes (`fast`) to 32 (SHA-256).
const DESCRIPTOR_BYTES: std::ops::RangeInclusive<usize> = 8..=32;

/// A build id of 8 to 32 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BuildId(Vec<u8>);

/// Why a text is not a build id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildIdError {
    /// Text that is not an even number of hexadecimal digits of a plausible length.
    #[error("{0:?} is not a build id")]
    Malformed(String),
}

impl BuildId {
    /// Takes the descriptor of a note; `None` if no linker writes one of that length.
    #[must_use]
    pub fn from_descriptor(bytes: &[u8]) -> Option<Self> {
        DESCRIPTOR_BYTES.contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// Finds the first build-id note in `bytes`, at any 4-byte boundary.
    #[must_use]
    pub fn find(bytes: &[u8]) -> Option<Self> {
        (0..bytes.len()).step_by(4).find_map(|at| Self::parse_note(bytes.get(at..)?))
    }

    fn parse_note(note: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = note.first_chunk()?;
        let is_build_id =
            header[0..4] == NAME_SIZE && header[8..12] == NT_GNU_BUILD_ID && header[12..] == NAME;
        if !is_build_id {
            return None;
        }
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        Self::from_descriptor(note.get(HEADER_BYTES..HEADER_BYTES.checked_add(size)?)?)
    }

    /// The bytes of the descriptor.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

impl std::str::FromStr for BuildId {
    type Err = BuildIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || BuildIdError::Malformed(text.to_owned());
        let pairs = text.as_bytes().chunks(2).map(|pair| {
            let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(digits, 16).ok()
        });
        let bytes: Vec<u8> = pairs.collect::<Option<_>>().ok_or_else(malformed)?;
        Self::from_descriptor(&bytes).ok_or_else(malformed)
    }
}

impl Serialize for BuildId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BuildId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(descriptor: &[u8]) -> Vec<u8> {
        let size = (descriptor.len() as u32).to_le_bytes();
        [&NAME_SIZE[..], &size, &NT_GNU_BUILD_ID, &NAME, descriptor].concat()
    }

    #[test]
    fn a_note_is_found_among_other_bytes() {
        let bytes = [vec![0x11; 12], note(&[0xab; 20]), vec![9; 3]].concat();
        assert_eq!(BuildId::find(&bytes).unwrap().to_string(), "ab".repeat(20));
    }

    #[test]
    fn truncated_or_oversized_notes_are_not_build_ids() {
        let whole = note(&[0xab; 20]);
        assert!((0..whole.len()).all(|end| BuildId::find(&whole[..end]).is_none()));
        assert_eq!(BuildId::find(&note(&[1; 64])), None);
    }

    #[test]
    fn text_and_back() {
        let id: BuildId = "0123456789abcdef".parse().unwrap();
        assert_eq!(id.to_string(), "0123456789abcdef");
        assert!("012".parse::<BuildId>().is_err());
        assert!("é123456789abcdef".parse::<BuildId>().is_err());
    }
}
