//! What a session does once dom0 is up, and the disk that tells dom0 about it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cpio::Archive;

/// The control disk is a multiple of this: QEMU rounds a raw disk down to whole sectors, and Linux complains of disks
/// that are too small for any partition table.
const DISK_UNIT_BYTES: usize = 64 * 1024;

/// A kind of ready-made domU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomuKind {
    /// Paravirtualised.
    Pv,
    /// In a hardware container, without a device model.
    Pvh,
    /// Fully virtualised, with QEMU in dom0 as its device model.
    Hvm,
}

impl fmt::Display for DomuKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
        })
    }
}

impl FromStr for DomuKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pv" => Ok(Self::Pv),
            "pvh" => Ok(Self::Pvh),
            "hvm" => Ok(Self::Hvm),
            other => Err(format!("no kind of domU is called {other:?}; there are pv, pvh and hvm")),
        }
    }
}

/// What is done in dom0 before it powers off. By default: nothing, the machine boots and powers off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The ready-made domUs to start. Without a script each one boots, works a little and shuts down, and the next one
    /// follows; with a script they are all started first and stay up.
    pub domus: Vec<DomuKind>,
    /// A program run as root in dom0: with what its first line names, else with busybox's sh.
    pub script: Option<PathBuf>,
    /// A directory of the host that dom0 sees, as it is now and read-only, at `/lab/files`.
    pub files: Option<PathBuf>,
    /// Whether the machine stays up when the work is done, until the observer ends the session.
    pub stay_up: bool,
}

impl Work {
    /// The control disk: an archive that dom0's init unpacks. `shares` tells it of the host's files.
    pub(crate) fn control_disk(&self, shares: &[u8]) -> io::Result<Vec<u8>> {
        let mut archive = Archive::new();
        archive.file("shares", 0o644, shares);
        archive.file("settings", 0o644, self.settings().as_bytes());
        if let Some(script) = &self.script {
            archive.file("script", 0o755, &read_script(script)?);
        }
        let mut disk = archive.finish();
        disk.resize(disk.len().next_multiple_of(DISK_UNIT_BYTES), 0);
        Ok(disk)
    }

    /// The settings as shell variables.
    fn settings(&self) -> String {
        let domus: Vec<String> = self.domus.iter().map(DomuKind::to_string).collect();
        format!("domus='{}'\nstay={}\n", domus.join(" "), u8::from(self.stay_up))
    }
}

fn read_script(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shell_variables() {
        let work = Work { domus: vec![DomuKind::Pv, DomuKind::Hvm], stay_up: true, ..Work::default() };
        assert_eq!(work.settings(), "domus='pv hvm'\nstay=1\n");
        assert_eq!(Work::default().control_disk(&[]).unwrap().len() % DISK_UNIT_BYTES, 0);
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in [DomuKind::Pv, DomuKind::Pvh, DomuKind::Hvm] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("xen".parse::<DomuKind>().is_err());
    }
}
