//! The TCG adapter for QEMU 10.0 to 11.0: plugin API level 4, which those versions accept.

hypovisor_adapter_tcg::plugin!(v4, 4);
