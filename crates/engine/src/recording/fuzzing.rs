//! Reading a segment made of arbitrary bytes.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::MemfdFlags;

use super::rows::SegmentReader;

/// A few bytes can stand for any number of equal rows; so many tell enough.
const MAX_ROWS: usize = 1 << 16;

/// Reads bytes as a segment, to its end or to the first thing that is wrong with it.
pub(crate) fn read_segment(data: &[u8]) -> Result<usize, String> {
    let file = in_memory(data).map_err(|error| error.to_string())?;
    let mut segment =
        SegmentReader::from_file(Path::new("segment"), file).map_err(|error| error.to_string())?;
    let mut rows = 0;
    while rows < MAX_ROWS {
        let block = segment.block().map_err(|error| error.to_string())?;
        if block.is_empty() {
            break;
        }
        rows += block.len();
    }
    Ok(rows)
}

fn in_memory(data: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("segment", MemfdFlags::CLOEXEC)?);
    file.write_all(data)?;
    Ok(file)
}
