//! Hypercall ABIs as data, and decoding of a capture into named fields.
//!
//! One set of tables ([`xen`]) says for every hypercall what it is called, which arguments it takes, and what
//! stands behind the pointers among them. Everything that has to know an ABI is driven by these tables:
//!
//! - [`capture`] tells the sensor which guest memory to copy when a call enters and when it returns;
//! - [`decode`] walks a captured call and hands its fields, by name, to a [`decode::Sink`];
//! - [`text`] and [`json`] are the two sinks that people and programs read.
//!
//! Tables describe C types as the public headers declare them ([`Type`]); offsets are computed from that for
//! 64-bit and for 32-bit callers, and a test compares every size and offset with what gcc makes of the
//! headers of `libxen-dev`.
//!
//! Decoding is total: an unknown number, an odd length, memory that could not be read are values to show,
//! never errors. Nothing recurses on guest data: recursion follows the static types only.

#![forbid(unsafe_code)]

mod call;
pub mod capture;
pub mod decode;
pub mod errno;
mod flags;
#[doc(hidden)]
pub mod fuzzing;
pub mod json;
mod layout;
#[cfg(test)]
mod made_up;
mod scalar;
pub mod text;
#[doc(hidden)]
pub mod types;
pub mod xen;

pub use call::{Abi, Arg, Hypercall, SubOp, SubOpFrom, SubOps};
pub use flags::{Enumeration, FlagSet};
pub use layout::Width;
pub use types::{
    Array, Case, Count, Direction, Field, Handle, Int, Scalar, Show, Struct, Tag, Type, Union, field,
};
