//! The build id of a Xen: what a live patch is bound to.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::Object as _;

/// SHA-1, which Xen's build asks the linker for.
const BYTES: usize = 20;

/// A build id of 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuildId([u8; BYTES]);

/// A file does not tell its build id.
#[derive(Debug, thiserror::Error)]
pub enum BuildIdError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no ELF file, or a broken one.
    #[error("{} is no ELF file: {source}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: object::Error,
    },
    /// It has none of this length.
    #[error("{} has no build id of {BYTES} bytes", path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
}

impl BuildId {
    /// Reads it from an ELF file, such as `xen-syms` ([`crate::Prepared::xen_symbols`]).
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no ELF file, or has no build id of 20 bytes.
    pub fn read(path: &Path) -> Result<Self, BuildIdError> {
        let path_buf = || path.to_owned();
        let bytes = fs::read(path).map_err(|source| BuildIdError::Read { path: path_buf(), source })?;
        let not_elf = |source| BuildIdError::NotElf { path: path_buf(), source };
        let file = object::File::parse(&*bytes).map_err(not_elf)?;
        let id = file.build_id().map_err(not_elf)?;
        let id = id.and_then(|id| id.try_into().ok());
        id.map(Self).ok_or_else(|| BuildIdError::None { path: path_buf() })
    }

    /// As the elements of an array in C.
    pub(super) fn as_initializer(&self) -> String {
        self.0.map(|byte| format!("{byte:#04x}")).join(",")
    }
}

impl From<[u8; BYTES]> for BuildId {
    fn from(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
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
