//! The scripts and configurations that go into the lab machine, and where they go.

/// The first process of dom0, in its initrd.
pub(crate) const DOM0_INITRD_INIT: &str = include_str!("../assets/dom0-initrd.sh");

/// The first process of the ready-made domUs, in their initrd.
pub(crate) const DOMU_INIT: &str = include_str!("../assets/domu-init.sh");

/// A file of dom0's root.
pub(crate) struct Asset {
    pub(crate) path: &'static str,
    pub(crate) mode: u32,
    pub(crate) text: &'static str,
}

const fn script(path: &'static str, text: &'static str) -> Asset {
    Asset { path, mode: 0o755, text }
}

const fn text(path: &'static str, text: &'static str) -> Asset {
    Asset { path, mode: 0o644, text }
}

/// What is put into dom0's root on top of the packages.
pub(crate) const DOM0_FILES: [Asset; 11] = [
    script("lab/init", include_str!("../assets/dom0-init.sh")),
    script("lab/bin/lab-work", include_str!("../assets/lab-work.sh")),
    script("lab/bin/lab-domus", include_str!("../assets/lab-domus.sh")),
    text("lab/domu/pv.cfg", include_str!("../assets/pv.cfg")),
    text("lab/domu/pvh.cfg", include_str!("../assets/pvh.cfg")),
    text("lab/domu/hvm.cfg", include_str!("../assets/hvm.cfg")),
    text("etc/passwd", "root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    text("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    text("etc/hosts", "127.0.0.1 localhost lab\n"),
    text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    // No ballooning of dom0: its memory is set on Xen's command line. No locks left over by guests that died with QEMU.
    text("etc/xen/xl.conf", "autoballoon=\"off\"\n"),
];

/// Directories that dom0's root has to have, besides those that come with files.
pub(crate) const DOM0_DIRECTORIES: [&str; 16] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "mnt",
    "home",
    "lab/files",
    "lab/control",
    "lab/boot",
    "var/lib/xen",
    "var/lib/xen/dump",
    "var/log/xen/console",
    "var/lib/xenstored",
    "usr/local/bin",
];
