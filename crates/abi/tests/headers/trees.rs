//! Finding the headers: in the lab's cache, and in the trees that `HYPOVISOR_XEN_TREES` names.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories between the lab's cache and the root of an unpacked tree, at most.
const MAX_DEPTH: usize = 3;

/// The versions to compare with: number of the domctl interface, and the release of Debian's that has it.
const WANTED: [(u64, &str); 2] = [(0x17, "Xen 4.20"), (0x15, "Xen 4.17")];

/// One set of headers.
pub(crate) struct Tree {
    /// The directory that holds `xen/xen.h`.
    pub(crate) include: PathBuf,
    version: &'static str,
}

impl Tree {
    /// Whether the tables follow this version where versions differ.
    pub(crate) fn is_primary(&self) -> bool {
        self.version == WANTED[0].1
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version)
    }
}

/// One tree of each wanted version.
pub(crate) fn find() -> Vec<Tree> {
    let mut includes = Vec::new();
    for root in env::split_paths(&env::var_os("HYPOVISOR_XEN_TREES").unwrap_or_default()) {
        search(&root, 0, &mut includes);
    }
    if let Some(lab) = lab() {
        search(&lab, MAX_DEPTH, &mut includes);
    }
    WANTED
        .iter()
        .map(|(interface, version)| {
            let include = includes.iter().find(|include| domctl_interface(include) == Some(*interface));
            let Some(include) = include else {
                panic!(
                    "no headers of {version} found: run `hypovisor lab fetch` (or set HYPOVISOR_XEN_TREES)"
                );
            };
            Tree { include: include.clone(), version }
        })
        .collect()
}

/// The lab's cache directory, as `hypovisor-lab` finds it.
fn lab() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    variable("HYPOVISOR_LAB_DIR")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("hypovisor/lab")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/hypovisor/lab")))
}

/// Collects `usr/include` of every tree at most `depth` directories below `dir`.
fn search(dir: &Path, depth: usize, includes: &mut Vec<PathBuf>) {
    let include = dir.join("usr/include");
    if include.join("xen/xen.h").is_file() {
        includes.push(include);
    } else if depth > 0 {
        let mut dirs: Vec<PathBuf> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir() && !path.is_symlink())
            .collect();
        dirs.sort();
        for dir in dirs {
            search(&dir, depth - 1, includes);
        }
    }
}

fn domctl_interface(include: &Path) -> Option<u64> {
    let header = fs::read_to_string(include.join("xen/domctl.h")).ok()?;
    let line = header.lines().find_map(|line| line.strip_prefix("#define XEN_DOMCTL_INTERFACE_VERSION"))?;
    u64::from_str_radix(line.trim().strip_prefix("0x")?, 16).ok()
}
