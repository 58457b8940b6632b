//! The TCG adapter for QEMU 11.1 and later: plugin API level 7, below which those versions load nothing.

hypovisor_adapter_tcg::plugin!(v7, 7);
