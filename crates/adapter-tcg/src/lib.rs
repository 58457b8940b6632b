//! The TCG adapter: what the QEMU plugins of every API level share.
//!
//! QEMU tells the plugin of every block of guest code that it translates. Where a hook's address is among the
//! instructions, the plugin has a callback inserted in front of it: an exact hook that changes no byte of the guest,
//! costs nothing elsewhere and a call of a C function where it is hit.
//!
//! ```text
//!   Unarmed ──engine tells RAM──▶ Probing ──first code in the kernel half──▶ Watching
//!                                              asks the engine for hooks       └─ or Idle
//! ```
//!
//! A guest of L1 may put code of its own at a hook's virtual address. It stands elsewhere in RAM, and the plugin
//! sees where: the distance between virtual address and host address is the same for all of L1's text, and is
//! learned from the first hook translated, before any guest of L1 can run.
//!
//! Nothing here may harm QEMU: callbacks catch panics (and then leave L1 alone for good), and each level's
//! signatures stand in [`sys`], checked against a real QEMU of that level by the lab tests.

mod plugin;
mod stacks;
pub mod sys;
mod system;
mod vcpu;

pub use plugin::{Callbacks, install};

/// Defines the two symbols that QEMU looks for in a plugin, for one API level.
#[macro_export]
macro_rules! plugin {
    ($module:ident, $level:literal) => {
        /// The plugin API level that QEMU checks before it loads the plugin.
        #[expect(unsafe_code, reason = "QEMU finds the symbol by this name")]
        // SAFETY: no other symbol of this library has the name.
        #[unsafe(no_mangle)]
        pub static qemu_plugin_version: core::ffi::c_int = $level;

        /// Called by QEMU once, before the machine is made.
        ///
        /// # Safety
        /// Called by QEMU with arguments as its plugin API describes them.
        #[expect(unsafe_code, reason = "QEMU finds the symbol by this name and passes C strings")]
        // SAFETY: no other symbol of this library has the name.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn qemu_plugin_install(
            id: u64,
            info: *const $crate::sys::Info,
            argc: core::ffi::c_int,
            argv: *const *const core::ffi::c_char,
        ) -> core::ffi::c_int {
            let callbacks = $crate::sys::$module::callbacks(id);
            // SAFETY: passed on as QEMU gave them.
            unsafe { $crate::install($level, &callbacks, info, argc, argv) }
        }
    };
}
