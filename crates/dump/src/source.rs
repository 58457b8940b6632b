//! Bytes at offsets: a file, or bytes in memory for fuzzing; and small records read from them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::DumpError;

/// Where an image's bytes come from.
pub(crate) trait Source: Send + Sync {
    /// Its length in bytes.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` on; [`io::ErrorKind::UnexpectedEof`] if the source ends before that.
    fn read_exact(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
}

impl Source for Vec<u8> {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let wanted = rest.and_then(|rest| rest.get(..buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(wanted);
        Ok(())
    }
}

/// A record of a fixed size with little-endian fields.
pub(crate) struct Record<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Record<BYTES> {
    /// Reads the record at `offset`; `what` it is goes into the error when the file ends before it does.
    pub(crate) fn read(source: &dyn Source, offset: u64, what: &'static str) -> Result<Self, DumpError> {
        let mut bytes = [0; BYTES];
        source.read_exact(offset, &mut bytes).map_err(|error| match error.kind() {
            // `pread` refuses offsets beyond 2^63 as invalid: no file is that long.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => DumpError::CutOff { what, offset },
            _ => DumpError::Io(error),
        })?;
        Ok(Self(bytes))
    }

    /// All of it.
    pub(crate) const fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.field(at))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }

    /// The offsets come from our own tables, so a field always lies in the record.
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|index| self.0[at + index])
    }
}
