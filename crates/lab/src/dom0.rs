//! Lays out dom0's root file system: the packages' files that a running dom0 can use, our own files, links to busybox
//! for every tool that is missing, and an index of the kernel modules.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::assets::{DOM0_DIRECTORIES, DOM0_FILES};
use crate::command::run;
use crate::initrd;
use crate::prepare::PrepareError;
use crate::tree::Tree;

/// Paths, relative to the root, that are left out with everything below them.
const LEFT_OUT: [&str; 22] = [
    // Documentation, translations and headers: nobody reads them there.
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/iso-codes",
    "usr/share/xml",
    "usr/share/zoneinfo",
    "usr/include",
    // Read by Hypovisor on the host, not by dom0.
    "usr/lib/debug",
    // Kernels and hypervisors; dom0's own kernel is put into lab/boot.
    "boot",
    // What a full Debian would run at boot; /lab/init does here.
    "usr/lib/systemd",
    "usr/lib/udev",
    "etc/systemd",
    "etc/init.d",
    "usr/lib/x86_64-linux-gnu/systemd",
    // Other programs' modules and data, large and unused.
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/share/perl5",
    "usr/lib/firmware",
    // Apt's and dpkg's.
    "var/lib/dpkg",
];

/// Kernel module directories that are taken; the other modules drive hardware that the lab machine does not have.
const MODULES: [&str; 23] = [
    "kernel/arch",
    "kernel/crypto",
    "kernel/fs",
    "kernel/lib",
    "kernel/mm",
    "kernel/drivers/block",
    "kernel/drivers/char",
    "kernel/drivers/virtio",
    "kernel/drivers/vhost",
    "kernel/drivers/xen",
    "kernel/drivers/md",
    "kernel/drivers/scsi",
    "kernel/drivers/target",
    // What KVM asks for on AMD processors, and for itself.
    "kernel/drivers/crypto/ccp",
    "kernel/virt",
    "kernel/net/802",
    "kernel/net/9p",
    "kernel/net/bridge",
    "kernel/net/core",
    "kernel/net/ipv4",
    "kernel/net/llc",
    "kernel/net/netfilter",
    "kernel/net/packet",
];

/// Network drivers that are taken, by the beginning of their paths.
const NETWORK_DRIVERS: [&str; 4] = [
    "kernel/drivers/net/xen-netback",
    "kernel/drivers/net/xen-netfront",
    "kernel/drivers/net/tun",
    "kernel/drivers/net/virtio_net",
];

/// Mode bits that make a program run as its file's owner or group.
const SET_ID_BITS: u32 = 0o6000;

/// A root that is being laid out in `root`, from `tree`.
pub(crate) struct Dom0Root<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) root: &'a Path,
    /// The kernel's release, which names its module directory.
    pub(crate) release: &'a str,
}

impl Dom0Root<'_> {
    /// Lays it all out. Files are hard links into the tree, so nothing may be written through them.
    pub(crate) fn lay_out(&self, kernel: &Path) -> Result<(), PrepareError> {
        let io = PrepareError::io(self.root);
        self.link_all(Path::new("")).and_then(|()| self.add_own(kernel)).map_err(io)?;
        self.link_busybox()?;
        let mut depmod = self.tree.command_as("depmod", "usr/bin/kmod");
        run(depmod.arg("-b").arg(self.root).arg(self.release))?;
        // Made last: it holds modules, found by the index.
        let initrd = initrd::domu(self.tree, &self.modules())?;
        self.write("lab/boot/domu.img", 0o644, &initrd).map_err(PrepareError::io(self.root))
    }

    /// The kernel's module directory, which [`Self::lay_out`] indexes.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("usr/lib/modules").join(self.release)
    }

    fn link_all(&self, relative: &Path) -> io::Result<()> {
        fs::create_dir_all(self.root.join(relative))?;
        for entry in fs::read_dir(self.tree.root().join(relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            let kind = entry.file_type()?;
            if !self.is_wanted(&path, kind.is_dir()) {
                continue;
            }
            let target = self.root.join(&path);
            if kind.is_dir() {
                self.link_all(&path)?;
            } else if kind.is_symlink() {
                symlink(fs::read_link(entry.path())?, target)?;
            } else if kind.is_file() {
                link_file(&entry.path(), &target)?;
            }
        }
        Ok(())
    }

    fn is_wanted(&self, path: &Path, is_dir: bool) -> bool {
        let modules = Path::new("usr/lib/modules").join(self.release);
        match path.strip_prefix(&modules) {
            Ok(module) => is_wanted_module(module, is_dir),
            Err(_) => !LEFT_OUT.iter().any(|left_out| path == Path::new(left_out)),
        }
    }

    fn add_own(&self, kernel: &Path) -> io::Result<()> {
        for dir in DOM0_DIRECTORIES {
            fs::create_dir_all(self.root.join(dir))?;
        }
        for asset in &DOM0_FILES {
            self.write(asset.path, asset.mode, asset.text.as_bytes())?;
        }
        fs::create_dir_all(self.root.join("lab/boot"))?;
        fs::hard_link(kernel, self.root.join("lab/boot/vmlinuz"))?;
        link_afresh("/proc/mounts", &self.root.join("etc/mtab"))?;
        for (link, target) in [("var/run", "/run"), ("var/lock", "/run/lock")] {
            link_afresh(target, &self.root.join(link))?;
        }
        Ok(())
    }

    /// Writes a new file, never through a link into the tree.
    fn write(&self, relative: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        let path = self.root.join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let _ = fs::remove_file(&path);
        fs::write(&path, data)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
    }

    /// Makes busybox answer to the name of every tool of its that no package brought.
    fn link_busybox(&self) -> Result<(), PrepareError> {
        let listing = run(Command::new(self.tree.path("usr/bin/busybox")).arg("--list"))?;
        let bins = ["usr/bin", "usr/sbin"].map(|bin| self.root.join(bin));
        let exists = |applet: &str| bins.iter().any(|bin| bin.join(applet).symlink_metadata().is_ok());
        for applet in String::from_utf8_lossy(&listing).lines().filter(|applet| !exists(applet)) {
            symlink("/usr/bin/busybox", bins[0].join(applet)).map_err(PrepareError::io(self.root))?;
        }
        Ok(())
    }
}

/// Links a file, or copies it without its set-user-id bits. An image made by an ordinary user holds that user's files: a
/// `mount` that takes on its owner's identity would lose root's in dom0.
fn link_file(from: &Path, to: &Path) -> io::Result<()> {
    let mode = from.symlink_metadata()?.permissions().mode();
    if mode & SET_ID_BITS == 0 {
        return fs::hard_link(from, to);
    }
    fs::copy(from, to)?;
    fs::set_permissions(to, Permissions::from_mode(mode & !SET_ID_BITS & 0o7777))
}

fn is_wanted_module(module: &Path, is_dir: bool) -> bool {
    if !module.starts_with("kernel") {
        return true;
    }
    let text = module.to_string_lossy();
    let above = |wanted: &str| is_dir && Path::new(wanted).starts_with(module);
    MODULES.iter().any(|wanted| module.starts_with(wanted) || above(wanted))
        || NETWORK_DRIVERS.iter().any(|wanted| text.starts_with(wanted) || above(wanted))
}

fn link_afresh(target: &str, link: &Path) -> io::Result<()> {
    match link.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(link)?,
        Ok(_) => fs::remove_file(link)?,
        Err(_) => {}
    }
    symlink(target, link)
}

/// The one file in a directory whose name begins so; the release of a kernel is what follows.
pub(crate) fn find_by_prefix(dir: &Path, prefix: &str, suffix: &str) -> Option<(PathBuf, String)> {
    let mut found: Vec<(PathBuf, String)> = fs::read_dir(dir)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let rest = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            Some((entry.path(), rest.to_owned()))
        })
        .collect();
    found.sort();
    found.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_for_the_lab_machine_are_taken() {
        let wanted = |path: &str, is_dir| is_wanted_module(Path::new(path), is_dir);
        assert!(wanted("modules.builtin", false));
        assert!(wanted("kernel/drivers", true));
        assert!(wanted("kernel/drivers/net", true));
        assert!(wanted("kernel/drivers/net/tun.ko.xz", false));
        assert!(wanted("kernel/drivers/xen/xen-gntdev.ko.xz", false));
        assert!(!wanted("kernel/drivers/gpu", true));
        assert!(!wanted("kernel/drivers/net/veth.ko.xz", false));
    }
}
