//! A session's temporary directory. It goes when the session does; one left behind by a killed process is removed when
//! the same user's next session begins.
//!
//! Whoever uses a directory holds a lock on the file `owner` in it, which the kernel drops with the process. The file
//! gets its name only once it is locked, so a directory without it is one that is just being made: it is left alone.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// How the directories' names begin.
const PREFIX: &str = "hypovisor-lab-";

const OWNER: &str = "owner";

/// A directory in use.
pub(crate) struct WorkDir {
    dir: TempDir,
    // Dropped after the directory, so that nobody else tries to remove it too.
    _owner: File,
}

impl WorkDir {
    /// Makes one among the machine's temporary files, after removing what dead processes left there.
    pub(crate) fn new() -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let unnamed = dir.path().join("owner.new");
        let owner = File::create(&unnamed)?;
        owner.lock()?;
        fs::rename(&unnamed, dir.path().join(OWNER))?;
        Ok(Self { dir, _owner: owner })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes directories whose owners are gone. Other users' cannot be looked into, and stay.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let abandoned = File::open(entry.path().join(OWNER)).is_ok_and(|owner| owner.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_directories_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let used = WorkDir::new_in(parent.path()).unwrap();
        let abandoned = parent.path().join("hypovisor-lab-dead");
        let young = parent.path().join("hypovisor-lab-young");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join(OWNER), "").unwrap();
        fs::create_dir(&young).unwrap();
        let next = WorkDir::new_in(parent.path()).unwrap();
        assert!(used.path().exists() && next.path().exists() && young.exists());
        assert!(!abandoned.exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }
}
