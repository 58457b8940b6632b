//! The TCG adapter: a QEMU plugin.
