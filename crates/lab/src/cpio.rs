//! Writes cpio archives in the "newc" format, as the Linux kernel unpacks them into an initramfs
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! An entry is "070701", thirteen numbers of eight hex digits, the name with a terminating zero, and the data; name and
//! data are each padded to a multiple of four bytes. An entry called "TRAILER!!!" ends the archive.

/// Type bits of a mode (`S_IFREG` and so on).
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Everything in it belongs to root and carries no time.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, name: &str) -> &mut Self {
        self.entry(name, DIRECTORY | 0o755, (0, 0), b"")
    }

    /// Adds a file; `mode` holds its permission bits.
    pub(crate) fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> &mut Self {
        self.entry(name, REGULAR | mode, (0, 0), data)
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub(crate) fn character_device(&mut self, name: &str, major: u32, minor: u32) -> &mut Self {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), b"")
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> &mut Self {
        self.entries += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let (data_length, name_length) = (data.len() as u32, name.len() as u32 + 1);
        let fields =
            [self.entries, mode, 0, 0, links, 0, data_length, 0, 0, device.0, device.1, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new();
        archive.file("hi", 0o755, b"abcde");
        let bytes = archive.finish();
        let header = "070701\
            00000001000081ed00000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000300000000";
        assert_eq!(std::str::from_utf8(&bytes[..110]).unwrap(), header);
        assert_eq!(&bytes[110..116], b"hi\0\0\0\0".get(..6).unwrap());
        let data = 113_usize.next_multiple_of(4);
        assert_eq!(&bytes[data..data + 8], b"abcde\0\0\0");
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn the_archive_ends_with_its_trailer() {
        let mut archive = Archive::new();
        archive.directory("dev").symlink("bin/sh", "busybox").character_device("dev/console", 5, 1);
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
