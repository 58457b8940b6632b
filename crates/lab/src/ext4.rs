//! Makes ext4 images from directories with `mke2fs -d`, which needs no privileges and no loop device.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::command::{CommandError, run};
use crate::tree::Tree;

/// What one more block group, directories and tables cost at most, for images of any size we make.
const OVERHEAD_BYTES: u64 = 16 << 20;

const BLOCK_BYTES: u64 = 4096;

/// Inodes beyond those that the directory needs, for files made later.
const SPARE_INODES: u64 = 8192;

/// The contents of a directory, measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    data_bytes: u64,
    entries: u64,
}

/// Makes an image at `image` of everything in `dir`, with `spare_bytes` left free. The file is sparse.
pub(crate) fn make(tools: &Tree, dir: &Path, image: &Path, spare_bytes: u64) -> Result<(), CommandError> {
    let start = |source| CommandError::Start { program: format!("mke2fs on {}", dir.display()), source };
    let size = measure(dir).map_err(start)?;
    let inodes = size.entries + SPARE_INODES;
    let data_bytes = size.data_bytes + size.data_bytes / 32 + inodes * 256;
    let blocks = (data_bytes + spare_bytes + OVERHEAD_BYTES).div_ceil(BLOCK_BYTES);
    let mut command = tools.command("usr/sbin/mke2fs");
    command.env("MKE2FS_CONFIG", tools.path("etc/mke2fs.conf"));
    // No journal and no checksums: the image is thrown away, and time under emulation is dear.
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-O", "^has_journal,^metadata_csum"]);
    command.args(["-E", "root_owner=0:0", "-N", &inodes.to_string(), "-d"]);
    command.arg(dir).arg(image).arg(blocks.to_string());
    run(&mut command).map(drop)
}

/// Adds up what a directory holds, in whole blocks.
fn measure(dir: &Path) -> io::Result<Size> {
    let mut size = Size { data_bytes: BLOCK_BYTES, entries: 1 };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let inner = measure(&entry.path())?;
            size.data_bytes += inner.data_bytes;
            size.entries += inner.entries;
        } else {
            size.data_bytes += metadata.size().next_multiple_of(BLOCK_BYTES);
            size.entries += 1;
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_measured_in_blocks() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("inner/one"), b"x").unwrap();
        fs::write(dir.path().join("two"), vec![0; 5000]).unwrap();
        let expected = Size { data_bytes: BLOCK_BYTES * 5, entries: 4 };
        assert_eq!(measure(dir.path()).unwrap(), expected);
    }
}
