//! Fetches bundles: resolves, downloads, unpacks, and writes down which versions it got.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::apt::{Apt, PackageFile};
use crate::bundle::Bundle;
use crate::cache::{CacheError, Lab, publish};
use crate::command::{CommandError, find, run};
use crate::progress::{Progress, Unit};
use crate::tree::Tree;

/// The layout of a bundle in the cache; raised when it changes, so that older ones are fetched anew.
const LAYOUT: u32 = 1;

/// A bundle could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The cache is unusable.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A program is missing or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// This machine's apt knows no Debian mirror.
    #[error(
        "no Debian mirror in this machine's apt configuration; set HYPOVISOR_DEBIAN_MIRROR to one's address"
    )]
    NoMirror,
    /// The archive's signatures cannot be checked.
    #[error("{0} is missing; install the Debian package debian-archive-keyring")]
    NoKeyring(&'static str),
    /// The archive could not be reached, or does not have what is needed.
    #[error(
        "cannot fetch from the Debian mirror (is there a network? HYPOVISOR_DEBIAN_MIRROR names another): {complaint}"
    )]
    Network {
        /// What apt said.
        complaint: String,
    },
    /// apt found nothing to download.
    #[error("apt found no packages for {0}")]
    NothingToFetch(&'static str),
}

/// What a fetched bundle holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    layout: u32,
    /// The suite it came from.
    pub suite: String,
    requested: Vec<String>,
    /// Every package in it, with its version.
    pub packages: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a bundle's manifest; `None` where there is none, or one of another layout or package list.
    pub(crate) fn read(bundle: Bundle, dir: &Path) -> Option<Self> {
        let text = fs::read(dir.join("manifest.json")).ok()?;
        let manifest: Self = serde_json::from_slice(&text).ok()?;
        let current = manifest.layout == LAYOUT && manifest.requested == bundle.packages();
        current.then_some(manifest)
    }

    fn new(bundle: Bundle, plan: &[PackageFile]) -> Self {
        Self {
            layout: LAYOUT,
            suite: bundle.preferred_suite().unwrap_or(bundle.suite()).to_owned(),
            requested: bundle.packages().into_iter().map(str::to_owned).collect(),
            packages: plan.iter().map(|file| (file.name.clone(), file.version.clone())).collect(),
        }
    }
}

impl Lab {
    /// Fetches a bundle, unless the cache has it already.
    ///
    /// Needs `apt-get`, `dpkg-deb` and a Debian mirror, but no privileges. Others who fetch into the same cache wait.
    pub fn fetch(&self, bundle: Bundle, progress: &mut dyn Progress) -> Result<(Tree, Manifest), FetchError> {
        if let Some(found) = self.fetched(bundle) {
            return Ok(found);
        }
        let _lock = self.lock(progress)?;
        if let Some(found) = self.fetched(bundle) {
            return Ok(found);
        }
        let room = self.room("bundles")?;
        let stage = self.stage(&room)?;
        self.fetch_into(stage.path(), bundle, progress)?;
        publish(stage, &room.join(bundle.name()))?;
        self.fetched(bundle).ok_or(FetchError::NothingToFetch(bundle.name()))
    }

    /// The bundle, if the cache has it.
    pub fn fetched(&self, bundle: Bundle) -> Option<(Tree, Manifest)> {
        let dir = self.dir().join("bundles").join(bundle.name());
        let manifest = Manifest::read(bundle, &dir)?;
        Some((Tree::new(dir.join("tree")), manifest))
    }

    fn fetch_into(
        &self,
        stage: &Path,
        bundle: Bundle,
        progress: &mut dyn Progress,
    ) -> Result<(), FetchError> {
        let state = self.room("apt")?.join(bundle.preferred_suite().unwrap_or(bundle.suite()));
        let downloads = stage.join("downloads");
        let apt = Apt::new(bundle, state, downloads.clone())?;
        progress.step(&format!("{}: package lists", bundle.name()), Unit::Items, None);
        apt.update()?;
        let plan = apt.plan()?;
        let total: u64 = plan.iter().map(|file| file.size_bytes).sum();
        progress.step(&format!("{}: download", bundle.name()), Unit::Bytes, Some(total));
        apt.download(|percent| progress.done((total as f64 * percent / 100.0) as u64))?;
        let files = apt.downloaded()?;
        progress.step(&format!("{}: unpack", bundle.name()), Unit::Items, Some(files.len() as u64));
        let tree = Tree::new(stage.join("tree"));
        unpack(&files, tree.root(), progress)?;
        tree.merge_usr().map_err(CacheError::io(tree.root()))?;
        fs::remove_dir_all(&downloads).map_err(CacheError::io(&downloads))?;
        let manifest = serde_json::to_vec_pretty(&Manifest::new(bundle, &plan)).map_err(io::Error::from);
        let path = stage.join("manifest.json");
        manifest.and_then(|text| fs::write(&path, text)).map_err(CacheError::io(&path))?;
        progress.finish();
        Ok(())
    }
}

/// Unpacks packages into one directory, as many at once as there are processors.
fn unpack(files: &[PathBuf], into: &Path, progress: &mut dyn Progress) -> Result<(), FetchError> {
    let dpkg_deb = find("dpkg-deb", "dpkg")?;
    fs::create_dir_all(into).map_err(CacheError::io(into))?;
    let workers = thread::available_parallelism().map_or(1, usize::from).min(8);
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    thread::scope(|scope| {
        let (done, finished) = channel();
        for _ in 0..workers {
            let done = done.clone();
            scope.spawn(|| unpack_some(files, into, &dpkg_deb, &next, &failure, done));
        }
        drop(done);
        for (count, ()) in (1..).zip(finished) {
            progress.done(count);
        }
    });
    let failure = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failure.map_or(Ok(()), |error| Err(FetchError::Command(error)))
}

/// One worker: takes the next package until there is none, or until one has failed.
fn unpack_some(
    files: &[PathBuf],
    into: &Path,
    dpkg_deb: &Path,
    next: &AtomicUsize,
    failure: &Mutex<Option<CommandError>>,
    done: Sender<()>,
) {
    while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
        if let Err(error) = run(Command::new(dpkg_deb).arg("-x").arg(file).arg(into)) {
            next.store(files.len(), Ordering::Relaxed);
            failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
            return;
        }
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_another_package_list_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let plan = [PackageFile { name: "seabios".into(), version: "1.16.3-2".into(), size_bytes: 1 }];
        let manifest = Manifest::new(Bundle::Qemu10_0, &plan);
        fs::write(dir.path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert_eq!(Manifest::read(Bundle::Qemu10_0, dir.path()), Some(manifest));
        assert_eq!(Manifest::read(Bundle::Xen4_20, dir.path()), None);
    }
}
