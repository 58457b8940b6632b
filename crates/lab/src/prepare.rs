//! Builds from the fetched bundles what a machine boots: hypervisor, dom0's kernel, initrd and root image.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::assets::{DOM0_FILES, DOM0_INITRD_INIT, DOMU_INIT};
use crate::bundle::{QemuVersion, XenVersion};
use crate::cache::{CacheError, Lab, publish};
use crate::command::CommandError;
use crate::dom0::{Dom0Root, find_by_prefix};
use crate::ext4;
use crate::fetch::{FetchError, Manifest};
use crate::initrd;
use crate::probe::{KvmProbe, probe_kvm};
use crate::progress::{Progress, Unit};
use crate::stamp::Stamp;
use crate::tree::Tree;

/// Raised when this code builds something else from the same parts.
const RECIPE: u32 = 7;

/// Room that dom0 has for files of its own. The image is sparse, and what dom0 writes is thrown away.
const SPARE_BYTES: u64 = 2 << 30;

/// The lab machine's parts could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Fetching failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The cache is unusable.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A bundle does not hold what its packages used to.
    #[error("no {what} in {}", dir.display())]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// Where.
        dir: PathBuf,
    },
}

impl PrepareError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let make = CacheError::io(path);
        move |source| Self::Cache(make(source))
    }
}

/// Everything that a machine boots from, in the cache.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Which Xen it is.
    pub xen: XenVersion,
    /// Which QEMU it is.
    pub qemu: QemuVersion,
    /// Xen's bundle: hypervisor, symbols, headers, dom0's packages.
    pub xen_tree: Tree,
    /// What Xen's bundle holds.
    pub xen_manifest: Manifest,
    /// QEMU's bundle.
    pub qemu_tree: Tree,
    /// What QEMU's bundle holds.
    pub qemu_manifest: Manifest,
    images: PathBuf,
}

impl Prepared {
    /// The hypervisor, as it is loaded.
    pub fn xen_image(&self) -> PathBuf {
        self.images.join("xen")
    }

    /// The hypervisor's ELF file with its symbols, and with DWARF where the version has it.
    pub fn xen_symbols(&self) -> PathBuf {
        self.xen_tree.path(&format!("usr/lib/debug/boot/xen-syms-{}-amd64", self.xen))
    }

    /// Xen's public headers.
    pub fn xen_headers(&self) -> PathBuf {
        self.xen_tree.path("usr/include/xen")
    }

    /// dom0's kernel.
    pub fn dom0_kernel(&self) -> PathBuf {
        self.images.join("vmlinuz")
    }

    /// dom0's initrd.
    pub fn dom0_initrd(&self) -> PathBuf {
        self.images.join("dom0.initrd")
    }

    /// dom0's root disk. It is shared: it may only be used with QEMU's `snapshot=on`.
    pub fn dom0_root(&self) -> PathBuf {
        self.images.join("dom0.ext4")
    }
}

impl Prepared {
    /// Whether this machine's KVM runs a guest, with the lab's QEMU.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn probe_kvm(&self) -> io::Result<KvmProbe> {
        probe_kvm(crate::machine::launch(self).to_command())
    }
}

impl Lab {
    /// Fetches and builds what the cache does not have yet.
    pub fn prepare(
        &self,
        xen: XenVersion,
        qemu: QemuVersion,
        progress: &mut dyn Progress,
    ) -> Result<Prepared, PrepareError> {
        let (xen_tree, xen_manifest) = self.fetch(xen.bundle(), progress)?;
        let (qemu_tree, qemu_manifest) = self.fetch(qemu.bundle(), progress)?;
        let images = self.images(xen, &xen_tree, &xen_manifest, progress)?;
        Ok(Prepared { xen, qemu, xen_tree, xen_manifest, qemu_tree, qemu_manifest, images })
    }

    fn images(
        &self,
        xen: XenVersion,
        tree: &Tree,
        manifest: &Manifest,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, PrepareError> {
        let room = self.room("images")?;
        let prefix = format!("xen-{xen}-");
        let place = room.join(format!("{prefix}{}", stamp(manifest)));
        if place.is_dir() {
            return Ok(place);
        }
        let _lock = self.lock(progress)?;
        if place.is_dir() {
            return Ok(place);
        }
        progress.step(&format!("xen-{xen}: build images"), Unit::Items, Some(4));
        let stage = self.stage(&room)?;
        build(xen, tree, stage.path(), progress)?;
        remove_others(&room, &prefix);
        publish(stage, &place)?;
        progress.finish();
        Ok(place)
    }
}

/// Builds the images of one Xen into `out`.
fn build(xen: XenVersion, tree: &Tree, out: &Path, progress: &mut dyn Progress) -> Result<(), PrepareError> {
    let boot = tree.path("boot");
    let missing = |what| PrepareError::Missing { what, dir: boot.clone() };
    unpack_gzip(&boot.join(format!("xen-{xen}-amd64.gz")), &out.join("xen"))?;
    let (kernel, release) = find_by_prefix(&boot, "vmlinuz-", "").ok_or_else(|| missing("Linux kernel"))?;
    fs::copy(&kernel, out.join("vmlinuz")).map_err(PrepareError::io(&kernel))?;
    progress.done(1);
    let root = out.join("root");
    let dom0 = Dom0Root { tree, root: &root, release: &release };
    dom0.lay_out(&out.join("vmlinuz"))?;
    progress.done(2);
    let path = out.join("dom0.initrd");
    fs::write(&path, initrd::dom0(tree, &dom0.modules())?).map_err(PrepareError::io(&path))?;
    progress.done(3);
    ext4::make(tree, &root, &out.join("dom0.ext4"), SPARE_BYTES)?;
    fs::remove_dir_all(&root).map_err(PrepareError::io(&root))?;
    progress.done(4);
    Ok(())
}

/// Everything that the images are built from.
fn stamp(manifest: &Manifest) -> String {
    let mut stamp = Stamp::new();
    stamp.add(&RECIPE.to_le_bytes());
    for (name, version) in &manifest.packages {
        stamp.add(name.as_bytes());
        stamp.add(version.as_bytes());
    }
    for asset in &DOM0_FILES {
        stamp.add(asset.path.as_bytes());
        stamp.add(asset.text.as_bytes());
    }
    stamp.add(DOM0_INITRD_INIT.as_bytes());
    stamp.add(DOMU_INIT.as_bytes());
    stamp.text()
}

fn unpack_gzip(from: &Path, into: &Path) -> Result<(), PrepareError> {
    let source = File::open(from).map_err(PrepareError::io(from))?;
    let mut target = File::create(into).map_err(PrepareError::io(into))?;
    io::copy(&mut GzDecoder::new(source), &mut target).map_err(PrepareError::io(from))?;
    Ok(())
}

/// Removes images of the same Xen built from older parts. A machine that runs from them keeps its open files.
fn remove_others(room: &Path, prefix: &str) {
    let entries = fs::read_dir(room).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}
