//! The model of L1: its symbols, its structure layout, who is running.
//!
//! L1 is described, not hard-wired. Everything here that depends on a version or a build of Xen is read from
//! the running image itself or from files that are checked against it:
//!
//! ```text
//!   memory + CR3 + RIP --> Image::from_memory --+      xen-syms (optional) --> SymbolFile
//!   boot/xen-*.gz -------> Image::from_file ----+                                  |
//!                                               v                                  v
//!                               embedded::find (SymbolTable)            SymbolTable, DWARF
//!                                               |                                  |
//!                                               +------> Profile::build <----------+
//!                                                             |
//!                          Hooks (where to stop)    Layout, or LayoutHints to discover it with
//! ```
//!
//! A [`Profile`] is plain data: the engine makes it once, the sensor only follows it. All inputs are treated as
//! hostile (an image is guest memory, a symbol file is somebody's file): work is bounded, and nothing panics.
//!
//! Absent on purpose: Xen's own version numbers. The ABI that Xen promises to its guests (the order of
//! `cpu_user_regs`, of a multicall entry) is used where the image itself does not say.

#![forbid(unsafe_code)]

mod build_id;
mod code;
mod discover;
mod dwarf;
pub mod embedded;
#[doc(hidden)]
pub mod fuzzing;
mod hex;
mod hints;
mod hooks;
mod image;
mod image_file;
mod layout;
mod profile;
mod symbol_file;
mod symbols;

pub use build_id::{BuildId, BuildIdError};
pub use code::{CodeMap, Reference, ReferenceKind, VmEntryKind};
pub use discover::{DiscoverError, Running, check_layout, discover_layout, discover_multicall_call};
pub use dwarf::DwarfError;
pub use hints::LayoutHints;
pub use hooks::{CallHook, HookError, Hooks, Site, VmEntry};
pub use image::{Image, ImageError, MAX_IMAGE_BYTES, PageRun};
pub use image_file::ImageFileError;
pub use layout::{DomainLayout, FrameLayout, Layout, LayoutSource, VcpuLayout};
pub use profile::{Profile, ProfileError, SymbolSource};
pub use symbol_file::{SymbolFile, SymbolFileError};
pub use symbols::{Symbol, SymbolKind, SymbolTable};
