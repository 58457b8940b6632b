//! An unpacked bundle: a root file system that is never entered, only read, and whose programs run in place.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directories that Debian merged into `/usr`. Debian 12's packages still unpack outside of it.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Where libraries live below the root.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The root of an unpacked bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory it was unpacked into.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside it, given relative to its root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Its dynamic loader, with which its programs run on machines whose own libraries are older or newer.
    pub(crate) fn loader(&self) -> PathBuf {
        self.path("usr/lib64/ld-linux-x86-64.so.2")
    }

    /// Its library directory.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.path(LIBRARIES)
    }

    /// One of its programs, run with its own loader and libraries.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.loader());
        command.arg("--library-path").arg(self.libraries()).arg(self.path(program));
        command
    }

    /// The same for a program that does what the name it is called by says. A tree's links for such names may be
    /// absolute, and would lead out of it.
    pub(crate) fn command_as(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new(self.loader());
        command.arg("--argv0").arg(name).arg("--library-path").arg(self.libraries()).arg(self.path(program));
        command
    }

    /// Moves what was unpacked outside of `/usr` into it and leaves links, as every Debian system has it.
    pub(crate) fn merge_usr(&self) -> io::Result<()> {
        for name in MERGED {
            let (old, new) = (self.path(name), self.path("usr").join(name));
            fs::create_dir_all(&new)?;
            if old.is_symlink() {
                fs::remove_file(&old)?;
            } else if old.is_dir() {
                merge(&old, &new)?;
            }
            symlink(format!("usr/{name}"), &old)?;
        }
        Ok(())
    }
}

/// Moves the contents of one directory into another, and removes it.
fn merge(from: &Path, into: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = into.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), &target)?;
        }
    }
    fs::remove_dir(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path().to_owned());
        for name in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "sbin"] {
            fs::create_dir_all(tree.path(name)).unwrap();
        }
        fs::write(tree.path("lib/x86_64-linux-gnu/a"), "").unwrap();
        fs::write(tree.path("usr/lib/x86_64-linux-gnu/b"), "").unwrap();
        fs::write(tree.path("sbin/depmod"), "").unwrap();
        tree.merge_usr().unwrap();
        for name in ["lib/x86_64-linux-gnu/a", "lib/x86_64-linux-gnu/b", "usr/sbin/depmod"] {
            assert!(tree.path(name).exists(), "{name}");
        }
        assert!(tree.path("lib").is_symlink());
    }
}
