//! Memory images of the machine that a hypervisor (L1) ran on.
//!
//! ```text
//!   FILE --> format: which kind? --+--> elf: segments, and registers from the notes --+
//!                                  +--> lime: segments                                +--> MemoryImage
//!                                  +--> raw: one segment, from 0 to the file's end ---+       |
//!                                                                                     PhysicalMemory
//!                                      without registers: PageTables finds CR3 <--------------+
//! ```
//!
//! A file is hostile: every count and length in it is checked before it is used, what is kept of it has fixed
//! bounds, and nothing panics. Memory is read from the file when it is asked for, never mapped: a file that is cut
//! short meanwhile gives [`hypovisor_machine::MemoryError::NoRam`] and not a signal.
//!
//! Absent on purpose: compressed formats (a page of a damaged or hostile one could cost any amount of work), and
//! 32-bit and big-endian machines, which no hypervisor of ours runs on. They are told by name.

#![deny(unsafe_code)]

mod elf;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod lime;
mod notes;
mod search;
mod segments;
mod source;

pub use error::DumpError;
pub use format::ImageKind;
pub use image::MemoryImage;
pub use search::{PageTables, find_page_tables};
pub use segments::{MAX_FILE_BYTES, MAX_RANGES};
