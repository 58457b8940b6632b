//! `struct xenctl_bitmap` (Xen public/xen.h), once for each way its bits can travel.

use super::prelude::*;

structure!(
    /// The guest supplies the bits.
    pub(super) BITMAP_IN = "struct xenctl_bitmap" {
        field("bitmap", handle64!(In, Type::Bytes(1), Count::FieldBits("nr_bits"))),
        field("nr_bits", Type::U32),
    }
);
structure!(
    /// Xen supplies the bits.
    pub(super) BITMAP_OUT = "struct xenctl_bitmap" {
        field("bitmap", handle64!(Out, Type::Bytes(1), Count::FieldBits("nr_bits"))),
        field("nr_bits", Type::U32),
    }
);
