//! The cache directory, and the lock that keeps two hypovisors from filling it at once.
//!
//! ```text
//!     <cache>/lock                          held while anything is fetched or built
//!     <cache>/apt/<suite>/                  apt's own lists, per suite
//!     <cache>/bundles/<name>/tree/          an unpacked bundle
//!     <cache>/bundles/<name>/manifest.json  what it holds, with versions
//!     <cache>/images/<xen>-<stamp>/         the images built from it
//! ```
//!
//! Whatever is being made is made in a directory whose name begins with a dot and renamed when it is complete.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::progress::{Progress, Unit};

/// Names the cache directory, overriding the usual place.
const DIR_VARIABLE: &str = "HYPOVISOR_LAB_DIR";

/// How the names of directories under construction begin.
const STAGE_PREFIX: &str = ".stage-";

/// The cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither variable that leads to a cache directory is set.
    #[error("no place for the lab's files: set HYPOVISOR_LAB_DIR or HOME")]
    NoPlace,
    /// The file system refused.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory in question.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl CacheError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// The lab: a cache of real hypervisors, ready to boot.
#[derive(Clone, Debug)]
pub struct Lab {
    dir: PathBuf,
}

impl Lab {
    /// The lab at `$HYPOVISOR_LAB_DIR`, else at `$XDG_CACHE_HOME/hypovisor/lab`, else at `~/.cache/hypovisor/lab`.
    pub fn open() -> Result<Self, CacheError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = variable(DIR_VARIABLE)
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("hypovisor/lab")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/hypovisor/lab")))
            .ok_or(CacheError::NoPlace)?;
        Self::at(&dir)
    }

    /// The lab in this directory, which is made if it is missing.
    pub fn at(dir: &Path) -> Result<Self, CacheError> {
        fs::create_dir_all(dir).map_err(CacheError::io(dir))?;
        let dir = fs::canonicalize(dir).map_err(CacheError::io(dir))?;
        Ok(Self { dir })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory inside the lab, made if it is missing.
    pub(crate) fn room(&self, name: &str) -> Result<PathBuf, CacheError> {
        let room = self.dir.join(name);
        fs::create_dir_all(&room).map_err(CacheError::io(&room))?;
        Ok(room)
    }

    /// Waits until nobody else fills this lab, and keeps others out until the file is dropped.
    pub(crate) fn lock(&self, progress: &mut dyn Progress) -> Result<File, CacheError> {
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(CacheError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.step("waiting for another hypovisor", Unit::Items, None);
                file.lock().map_err(CacheError::io(&path))?;
            }
            Err(TryLockError::Error(source)) => return Err(CacheError::Io { path, source }),
        }
        Ok(file)
    }

    /// An empty directory in `room` to make something in. Remains of earlier, killed attempts are removed: the caller
    /// holds the lock.
    pub(crate) fn stage(&self, room: &Path) -> Result<TempDir, CacheError> {
        for entry in fs::read_dir(room).map_err(CacheError::io(room))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGE_PREFIX) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        tempfile::Builder::new().prefix(STAGE_PREFIX).tempdir_in(room).map_err(CacheError::io(room))
    }
}

/// Makes what was staged the one at `place`, replacing what stood there.
pub(crate) fn publish(stage: TempDir, place: &Path) -> Result<(), CacheError> {
    if place.exists() {
        fs::remove_dir_all(place).map_err(CacheError::io(place))?;
    }
    let stage = stage.keep();
    fs::rename(&stage, place).map_err(CacheError::io(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_stage_replaces_what_stood_there_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::at(dir.path()).unwrap();
        let _lock = lab.lock(&mut Silent).unwrap();
        let room = lab.room("bundles").unwrap();
        fs::create_dir(room.join(".stage-killed")).unwrap();
        for text in ["old", "new"] {
            let stage = lab.stage(&room).unwrap();
            fs::write(stage.path().join("file"), text).unwrap();
            publish(stage, &room.join("it")).unwrap();
        }
        assert_eq!(fs::read_to_string(room.join("it/file")).unwrap(), "new");
        assert_eq!(fs::read_dir(&room).unwrap().count(), 1);
    }
}
