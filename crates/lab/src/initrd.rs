//! Builds the two initrds: dom0's, which only finds and mounts the root disk, and the domUs', which is all they have.
//! Both hold kernel modules, and in `modules/order` the order to load them in.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::assets::{DOM0_INITRD_INIT, DOMU_INIT};
use crate::command::run;
use crate::cpio::Archive;
use crate::prepare::PrepareError;
use crate::tree::Tree;

/// What dom0 needs to mount its root: modules by name, in the order to load them. One that is built into the kernel, or
/// that this kernel does not have, is passed over.
const ROOT_MODULES: [&str; 5] = [
    // ext4 and its helpers ask for this checksum by its algorithm's name, which no module index shows.
    "crc32c_generic",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "ext4",
];

/// What the domUs need for disk and network: their halves of the paravirtual drivers.
const DOMU_MODULES: [&str; 2] = ["xen_blkfront", "xen_netfront"];

/// The initrd of the ready-made domUs: busybox, one script, and drivers. `modules` is a module directory indexed by depmod.
pub(crate) fn domu(tree: &Tree, modules: &Path) -> Result<Vec<u8>, PrepareError> {
    with_modules(tree, DOMU_INIT, modules, &DOMU_MODULES)
}

/// The initrd of dom0. `modules` is the module directory of the root it is for, indexed by depmod.
pub(crate) fn dom0(tree: &Tree, modules: &Path) -> Result<Vec<u8>, PrepareError> {
    with_modules(tree, DOM0_INITRD_INIT, modules, &ROOT_MODULES)
}

fn with_modules(tree: &Tree, init: &str, modules: &Path, names: &[&str]) -> Result<Vec<u8>, PrepareError> {
    let index_path = modules.join("modules.dep");
    let index = fs::read_to_string(&index_path).map_err(PrepareError::io(&index_path))?;
    let mut archive = base(tree, init)?;
    archive.directory("modules");
    let mut order = String::new();
    for file in load_order(&index, names) {
        let path = modules.join(&file);
        let name = file.rsplit('/').next().unwrap_or(&file).trim_end_matches(".xz");
        archive.file(&format!("modules/{name}"), 0o644, &module(tree, &path)?);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// What both begin with.
fn base(tree: &Tree, init: &str) -> Result<Archive, PrepareError> {
    let path = tree.path("usr/bin/busybox");
    let busybox = fs::read(&path).map_err(PrepareError::io(&path))?;
    let mut archive = Archive::new();
    for dir in ["bin", "dev", "proc", "root", "sys", "tmp"] {
        archive.directory(dir);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &busybox).symlink("bin/sh", "busybox").file(
        "init",
        0o755,
        init.as_bytes(),
    );
    Ok(archive)
}

/// A module's plain bytes; busybox's insmod does not unpack.
fn module(tree: &Tree, path: &Path) -> Result<Vec<u8>, PrepareError> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        return Ok(run(Command::new(tree.path("usr/bin/busybox")).args(["xz", "-dc"]).arg(path))?);
    }
    fs::read(path).map_err(PrepareError::io(path))
}

/// The module files to load, dependencies first, each once. `index` is depmod's `modules.dep`: a file, a colon, and the
/// files it depends on, the one to load first standing last.
fn load_order(index: &str, names: &[&str]) -> Vec<String> {
    let rows: HashMap<String, (&str, &str)> = index
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (module_name(file), (file, needs)))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for (file, needs) in names.iter().filter_map(|name| rows.get(*name)) {
        for next in needs.split_whitespace().rev().chain([*file]) {
            if !order.iter().any(|known| known == next) {
                order.push(next.to_owned());
            }
        }
    }
    order
}

/// A module's name as the kernel has it: its file's, without endings, and with underscores.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_need() {
        let index = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
                     kernel/drivers/block/virtio_blk.ko.xz:\n\
                     kernel/lib/crc16.ko.xz:\nkernel/fs/jbd2/jbd2.ko.xz:\n";
        let order = load_order(index, &["virtio_pci", "virtio_blk", "ext4", "crc16"]);
        let expected = [
            "kernel/drivers/block/virtio_blk.ko.xz",
            "kernel/lib/crc16.ko.xz",
            "kernel/fs/jbd2/jbd2.ko.xz",
            "kernel/fs/ext4/ext4.ko.xz",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn module_names_are_the_kernels() {
        assert_eq!(module_name("kernel/drivers/xen/xen-gntdev.ko.xz"), "xen_gntdev");
    }
}
