//! What the lab is made of, as data: bundles of Debian packages, each line with why it is there.
//!
//! Versions are not named: exact ones vanish from the archive as updates land. They are resolved when a bundle is
//! fetched and written to its manifest.

use std::fmt;

/// The Xen that is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum XenVersion {
    /// Xen 4.20 of Debian 13, with Linux 6.12 as dom0. Its symbol file carries DWARF.
    #[default]
    V4_20,
    /// Xen 4.17 of Debian 12, with Linux 6.1 as dom0. Its symbol file has a symbol table only.
    V4_17,
}

/// The QEMU that runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QemuVersion {
    /// QEMU 10.0 of Debian 13: plugin API 4.
    #[default]
    V10_0,
    /// QEMU 11.1 of Debian 13's backports: plugin API 7.
    V11_1,
}

impl XenVersion {
    /// The bundle that holds it.
    pub fn bundle(self) -> Bundle {
        match self {
            Self::V4_20 => Bundle::Xen4_20,
            Self::V4_17 => Bundle::Xen4_17,
        }
    }
}

impl QemuVersion {
    /// The bundle that holds it.
    pub fn bundle(self) -> Bundle {
        match self {
            Self::V10_0 => Bundle::Qemu10_0,
            Self::V11_1 => Bundle::Qemu11_1,
        }
    }
}

impl fmt::Display for XenVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V4_20 => "4.20",
            Self::V4_17 => "4.17",
        })
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V10_0 => "10.0",
            Self::V11_1 => "11.1",
        })
    }
}

/// A set of packages that is fetched and unpacked as one, into a tree of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bundle {
    /// Xen 4.20 and the root of its dom0.
    Xen4_20,
    /// Xen 4.17 and the root of its dom0.
    Xen4_17,
    /// QEMU 10.0.
    Qemu10_0,
    /// QEMU 11.1.
    Qemu11_1,
}

/// What dom0's root needs besides Xen's own packages, in either suite.
const DOM0_PACKAGES: [&str; 11] = [
    // The device model of HVM domUs, started by xl.
    "qemu-system-xen",
    // The firmware that hvmloader hands to HVM domUs.
    "seabios",
    // xenstore-read and its like.
    "xenstore-utils",
    // The headers that the hypercall tables are checked against.
    "libxen-dev",
    // The kernel of dom0 and of the ready-made domUs.
    "linux-image-amd64",
    // The shell and small tools of dom0, of its initrd and of the domUs; unpacks modules when images are built.
    "busybox-static",
    // Xen's hotplug scripts are written for it.
    "bash",
    // modprobe in dom0; depmod when images are built.
    "kmod",
    // mke2fs, when images are built.
    "e2fsprogs",
    // flock and losetup as those scripts want them.
    "util-linux",
    // The ip command of the network hotplug scripts.
    "iproute2",
];

/// What makes Xen 4.20.
const XEN_4_20_PACKAGES: [&str; 3] = [
    // The hypervisor itself.
    "xen-hypervisor-4.20-amd64",
    // Its symbols and DWARF.
    "xen-hypervisor-4.20-amd64-dbg",
    // xl, xenstored, xenconsoled, xentrace, xenctx.
    "xen-utils-4.20",
];

/// What makes Xen 4.17.
const XEN_4_17_PACKAGES: [&str; 3] = [
    // The hypervisor itself.
    "xen-hypervisor-4.17-amd64",
    // Its symbol table.
    "xen-hypervisor-4.17-amd64-dbg",
    // xl, xenstored, xenconsoled, xentrace, xenctx.
    "xen-utils-4.17",
];

/// What makes a QEMU.
const QEMU_PACKAGES: [&str; 3] = [
    // The emulator.
    "qemu-system-x86",
    // The firmware of the lab machine.
    "seabios",
    // Boot code of its network cards, which QEMU looks for even without one.
    "ipxe-qemu",
];

impl Bundle {
    /// Its name, which is also its directory's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xen4_20 => "xen-4.20",
            Self::Xen4_17 => "xen-4.17",
            Self::Qemu10_0 => "qemu-10.0",
            Self::Qemu11_1 => "qemu-11.1",
        }
    }

    /// The Debian suite that it comes from.
    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::Xen4_17 => "bookworm",
            Self::Xen4_20 | Self::Qemu10_0 | Self::Qemu11_1 => "trixie",
        }
    }

    /// The suite on top of that one which is preferred, if any.
    pub(crate) fn preferred_suite(self) -> Option<&'static str> {
        (self == Self::Qemu11_1).then_some("trixie-backports")
    }

    /// The packages asked for; what they depend on comes along.
    pub(crate) fn packages(self) -> Vec<&'static str> {
        match self {
            Self::Xen4_20 => [&XEN_4_20_PACKAGES[..], &DOM0_PACKAGES].concat(),
            Self::Xen4_17 => [&XEN_4_17_PACKAGES[..], &DOM0_PACKAGES].concat(),
            Self::Qemu10_0 | Self::Qemu11_1 => QEMU_PACKAGES.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundle_names_each_package_once() {
        for bundle in [Bundle::Xen4_20, Bundle::Xen4_17, Bundle::Qemu10_0, Bundle::Qemu11_1] {
            let mut packages = bundle.packages();
            let asked = packages.len();
            packages.sort_unstable();
            packages.dedup();
            assert_eq!(packages.len(), asked, "{}", bundle.name());
        }
    }
}
