//! How tables write types down: macros for structs and handles.

use super::{Field, Struct, any_handles};
use crate::layout::{self, Width};

/// Defines a constant [`Struct`] with both layouts computed:
/// `structure!(pub SCHED_POLL = "struct sched_poll" { field("ports", …), … });`
#[macro_export]
macro_rules! structure {
    ($(#[$meta:meta])* $vis:vis $name:ident = $c_name:literal { $($field:expr),* $(,)? }) => {
        $(#[$meta])*
        $vis const $name: $crate::Struct = {
            const FIELDS: &[$crate::Field] = &[$($field),*];
            const N: usize = FIELDS.len();
            const W64: $crate::types::StructLayout<N> = $crate::types::StructLayout::of(FIELDS, $crate::Width::Bits64);
            const W32: $crate::types::StructLayout<N> = $crate::types::StructLayout::of(FIELDS, $crate::Width::Bits32);
            $crate::types::new_struct($c_name, FIELDS, &W64, &W32)
        };
    };
}

/// Result of laying out a struct, for [`structure!`](crate::structure).
#[doc(hidden)]
pub struct StructLayout<const N: usize>(layout::Layout<N>);

impl<const N: usize> StructLayout<N> {
    #[doc(hidden)]
    #[must_use]
    pub const fn of(fields: &[Field], width: Width) -> Self {
        Self(layout::lay_out(fields, width))
    }
}

#[doc(hidden)]
#[must_use]
pub const fn new_struct<const N: usize>(
    c_name: &'static str,
    fields: &'static [Field],
    wide: &'static StructLayout<N>,
    narrow: &'static StructLayout<N>,
) -> Struct {
    Struct {
        c_name,
        fields,
        offsets: [&wide.0.offsets, &narrow.0.offsets],
        size: [wide.0.shape.size, narrow.0.shape.size],
        align: [wide.0.shape.align, narrow.0.shape.align],
        has_handles: any_handles(fields),
    }
}

/// A guest handle type: `handle!(In, XEN_STRUCT, count)`; `handle64!` for `XEN_GUEST_HANDLE_64`.
#[macro_export]
macro_rules! handle {
    ($direction:ident, $to:expr, $count:expr) => {
        $crate::Type::Handle(&$crate::Handle {
            to: &$to,
            count: $count,
            direction: $crate::Direction::$direction,
            wide: false,
        })
    };
}

/// A `XEN_GUEST_HANDLE_64`: 8 bytes for every caller.
#[macro_export]
macro_rules! handle64 {
    ($direction:ident, $to:expr, $count:expr) => {
        $crate::Type::Handle(&$crate::Handle {
            to: &$to,
            count: $count,
            direction: $crate::Direction::$direction,
            wide: true,
        })
    };
}

/// A flexible array member: `tail!(Out, Type::Bytes(1), Count::Field("len"))`.
#[macro_export]
macro_rules! tail {
    ($direction:ident, $to:expr, $count:expr) => {
        $crate::Type::Tail(&$crate::Handle {
            to: &$to,
            count: $count,
            direction: $crate::Direction::$direction,
            wide: false,
        })
    };
}
