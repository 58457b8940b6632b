//! C types of a hypercall ABI, each with what it means.
//!
//! A [`Type`] says how a value lies in memory *and* how people name it: an integer that is a domain id, a port
//! or a set of flags; a guest handle that leads to so many elements of another type. Build values with the
//! constants and functions here ([`Type::U32`], [`Type::handle`], [`structure!`](crate::structure) …), in
//! constant context, so that layouts are computed when the crate is compiled.

use crate::flags::{Enumeration, FlagSet};
use crate::layout::{self, Width};

mod define;

#[doc(hidden)]
pub use self::define::{StructLayout, new_struct};

/// A C integer type by the name the headers give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int {
    /// `uint8_t`
    U8,
    /// `uint16_t`
    U16,
    /// `uint32_t`, `unsigned int`
    U32,
    /// `uint64_t`: on i386 aligned to 4 bytes only.
    U64,
    /// `uint64_aligned_t`: aligned to 8 bytes everywhere.
    U64Aligned,
    /// `uint64_t` in a packed struct: aligned to 4 bytes everywhere.
    U64Packed,
    /// `unsigned long`, `xen_ulong_t`, `xen_pfn_t`
    Ulong,
    /// `int8_t`
    S8,
    /// `int16_t`
    S16,
    /// `int32_t`, `int`
    S32,
    /// `int64_t`
    S64,
    /// `long`
    Slong,
}

impl Int {
    /// Whether the C type is signed.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64 | Self::Slong)
    }

    /// Size in bytes for a caller of the given width.
    #[must_use]
    pub const fn bytes(self, width: Width) -> u32 {
        layout::int_shape(self, width).size
    }
}

/// What an integer means, and so how it is shown.
#[derive(Clone, Copy, Debug)]
pub enum Show {
    /// A plain number.
    Dec,
    /// A number whose bits matter more than its value.
    Hex,
    /// A virtual or physical address, or an address-like value. JSON: a hex string.
    Address,
    /// A domain id (`domid_t`); the reserved ones by name (DOMID_SELF …).
    Domain,
    /// A vCPU number of a domain.
    Vcpu,
    /// An event channel port.
    Port,
    /// A grant reference.
    GrantRef,
    /// A frame number: MFN, GFN or PFN, whatever the call says. JSON: a hex string.
    Frame,
    /// A truth value.
    Bool,
    /// A duration or a time in nanoseconds.
    Nanoseconds,
    /// Zero, or a negative errno.
    Errno,
    /// One of a list of names.
    Enum(&'static Enumeration),
    /// A set of named bits, possibly with numeric parts.
    Flags(&'static FlagSet),
}

/// An integer with its meaning.
#[derive(Clone, Copy, Debug)]
pub struct Scalar {
    /// The C type.
    pub int: Int,
    /// The meaning.
    pub show: Show,
}

/// Which way the bytes behind a handle, or a field, travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest writes, Xen reads: captured at entry.
    In,
    /// Xen writes: captured when the call has returned.
    Out,
    /// Both: captured at entry and again at return.
    InOut,
}

impl Direction {
    /// Whether the guest supplies the value.
    #[must_use]
    pub const fn is_in(self) -> bool {
        !matches!(self, Self::Out)
    }

    /// Whether Xen supplies the value.
    #[must_use]
    pub const fn is_out(self) -> bool {
        !matches!(self, Self::In)
    }
}

/// How many elements stand behind a handle.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// Exactly one.
    One,
    /// A number the ABI fixes.
    Fixed(u32),
    /// The value of argument register `index` (0-based), masked.
    Arg {
        /// Which argument register.
        index: u8,
        /// Bits of it that count; continuations keep state in the others.
        mask: u64,
    },
    /// As [`Count::Arg`], but one element holds `per` of what the register counts; rounded up.
    ArgPer {
        /// Which argument register.
        index: u8,
        /// How many go into one element.
        per: u32,
    },
    /// The value of a field of the struct that holds the handle.
    Field(&'static str),
    /// As [`Count::Field`], but the field counts bits: `(bits + 7) / 8` bytes.
    FieldBits(&'static str),
    /// As [`Count::Field`], times a constant.
    FieldTimes(&'static str, u32),
    /// As [`Count::Field`], but one element holds so many of what the field counts; rounded down.
    FieldPer(&'static str, u32),
    /// The product of two fields of the struct that holds the handle.
    Product(&'static str, &'static str),
    /// The smaller of two fields of the struct that holds the handle: room and need.
    Least(&'static str, &'static str),
    /// From one field of the struct that holds the handle up to and with another.
    Span(&'static str, &'static str),
    /// Structs up to the first whose field is zero. All `max` are captured; what follows the end is not shown.
    Until {
        /// The field, an integer.
        field: &'static str,
        /// The most there can be.
        max: u32,
    },
    /// A NUL-terminated text of at most so many bytes.
    Text(u32),
    /// A NUL-terminated UTF-16 text of at most so many units of two bytes.
    WideText(u32),
}

/// A guest handle: a pointer to elements of another type.
#[derive(Clone, Copy, Debug)]
pub struct Handle {
    /// The element type.
    pub to: &'static Type,
    /// How many of them.
    pub count: Count,
    /// Who writes them.
    pub direction: Direction,
    /// `XEN_GUEST_HANDLE_64`: 8 bytes, 8-byte aligned, also for 32-bit callers.
    pub wide: bool,
}

/// `of[len]`.
#[derive(Clone, Copy, Debug)]
pub struct Array {
    /// Element type.
    pub of: &'static Type,
    /// Number of elements.
    pub len: u32,
}

/// What picks the live member of a union.
#[derive(Clone, Copy, Debug)]
pub enum Tag {
    /// A field of the struct that holds the union, or else of the struct around that.
    Field(&'static str),
    /// As [`Tag::Field`], only these bits of it.
    Bits {
        /// The field.
        field: &'static str,
        /// The bits that count.
        mask: u64,
    },
    /// The call's sub-op number.
    SubOp,
}

/// One member of a union.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Tag values that select it; empty: it is the member shown when no other matches.
    pub when: &'static [u64],
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// [`Direction::Out`]: what Xen leaves there, when that is another member than the guest supplies. Else the
    /// member is the one that the guest supplies.
    pub direction: Direction,
}

impl Case {
    /// Xen supplies it; the guest supplies another member or none.
    #[must_use]
    pub const fn out(mut self) -> Self {
        self.direction = Direction::Out;
        self
    }
}

/// A union whose live member something else selects.
#[derive(Clone, Copy, Debug)]
pub struct Union {
    /// The selector.
    pub tag: Tag,
    /// The members; one that nothing selects is not shown.
    pub cases: &'static [Case],
    /// Lower bound of the size in bytes, for a union that the headers pad (`uint8_t pad[128]`).
    pub min_size: u32,
}

/// One field of a struct.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The header's name; empty for an anonymous union or struct.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// Who supplies it. Only meaningful inside memory that travels both ways.
    pub direction: Direction,
}

/// A field that the guest supplies; [`Field::out`] and [`Field::inout`] say otherwise.
#[must_use]
pub const fn field(name: &'static str, ty: Type) -> Field {
    Field { name, ty, direction: Direction::In }
}

impl Field {
    /// Xen supplies it.
    #[must_use]
    pub const fn out(mut self) -> Self {
        self.direction = Direction::Out;
        self
    }

    /// The guest supplies it and Xen changes it.
    #[must_use]
    pub const fn inout(mut self) -> Self {
        self.direction = Direction::InOut;
        self
    }
}

/// A C struct. Made by [`structure!`](crate::structure), which computes the layouts.
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    /// The C name, e.g. `struct xen_memory_reservation` or `mmu_update_t`; empty if C has no name for it.
    pub c_name: &'static str,
    /// The fields in order.
    pub fields: &'static [Field],
    /// Byte offset of each field, for 64-bit and 32-bit callers.
    pub offsets: [&'static [u32]; 2],
    /// Size in bytes, for 64-bit and 32-bit callers.
    pub size: [u32; 2],
    /// Alignment in bytes, for 64-bit and 32-bit callers.
    pub align: [u32; 2],
    /// Whether a handle stands somewhere inside, so that capturing has to follow it.
    pub has_handles: bool,
}

impl Struct {
    /// Byte offset of field `index`.
    #[must_use]
    pub fn offset(&self, index: usize, width: Width) -> u32 {
        self.offsets[width.index()].get(index).copied().unwrap_or(0)
    }

    /// Index of the field called `name`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

/// A C type with its meaning.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// An integer.
    Int(Scalar),
    /// A pointer to guest memory.
    Handle(&'static Handle),
    /// A struct.
    Struct(&'static Struct),
    /// A union.
    Union(&'static Union),
    /// An array of fixed length.
    Array(Array),
    /// `char[n]` that holds text.
    Chars(u32),
    /// `n` bytes of no known structure, 1-byte aligned.
    Bytes(u32),
    /// Different types for 64-bit and for 32-bit callers, in this order.
    PerWidth(&'static [Type; 2]),
    /// A flexible array at the end of a struct (`buf[]`): the elements stand right here, and take no room in
    /// the struct's size.
    Tail(&'static Handle),
}

macro_rules! plain_integers {
    ($($name:ident = $int:ident $show:ident: $doc:literal,)*) => {
        impl Type {
            $(
                #[doc = $doc]
                pub const $name: Type = Type::int(Int::$int, Show::$show);
            )*
        }
    };
}

plain_integers! {
    U8 = U8 Dec: "`uint8_t`, a number.",
    U16 = U16 Dec: "`uint16_t`, a number.",
    U32 = U32 Dec: "`uint32_t` or `unsigned int`, a number.",
    U64 = U64 Dec: "`uint64_t`, a number.",
    U64A = U64Aligned Dec: "`uint64_aligned_t`, a number.",
    ULONG = Ulong Dec: "`unsigned long` or `xen_ulong_t`, a number.",
    S8 = S8 Dec: "`int8_t`, a number.",
    S16 = S16 Dec: "`int16_t`, a number.",
    S32 = S32 Dec: "`int32_t` or `int`, a number.",
    S64 = S64 Dec: "`int64_t`, a number.",
    SLONG = Slong Dec: "`long`, a number.",
    HEX8 = U8 Hex: "`uint8_t`, bits.",
    HEX16 = U16 Hex: "`uint16_t`, bits.",
    HEX32 = U32 Hex: "`uint32_t`, bits.",
    HEX64 = U64 Hex: "`uint64_t`, bits.",
    HEX64A = U64Aligned Hex: "`uint64_aligned_t`, bits.",
    HEXLONG = Ulong Hex: "`unsigned long`, bits.",
    ADDRESS = Ulong Address: "`unsigned long`, an address.",
    ADDRESS64 = U64 Address: "`uint64_t`, an address.",
    ADDRESS64A = U64Aligned Address: "`uint64_aligned_t`, an address.",
    DOMID = U16 Domain: "`domid_t`.",
    DOMID32 = U32 Domain: "A domain id held in a `uint32_t`.",
    VCPU = U32 Vcpu: "A vCPU number in a `uint32_t`.",
    PORT = U32 Port: "`evtchn_port_t`.",
    GRANT_REF = U32 GrantRef: "`grant_ref_t`.",
    PFN = Ulong Frame: "`xen_pfn_t`, an `unsigned long`.",
    FRAME64 = U64 Frame: "A frame number in a `uint64_t`.",
    FRAME64A = U64Aligned Frame: "A frame number in a `uint64_aligned_t`.",
    BOOL8 = U8 Bool: "`uint8_t`, a truth value.",
    BOOL32 = U32 Bool: "`uint32_t` or `int`, a truth value.",
    ERRNO32 = S32 Errno: "`int32_t`, zero or a negative errno.",
    NANOSECONDS = U64 Nanoseconds: "`uint64_t`, a time in nanoseconds.",
    NANOSECONDS_A = U64Aligned Nanoseconds: "`uint64_aligned_t`, a time in nanoseconds.",
}

impl Type {
    /// An integer with a meaning.
    #[must_use]
    pub const fn int(int: Int, show: Show) -> Self {
        Self::Int(Scalar { int, show })
    }

    /// An integer that takes one of the values of `of`.
    #[must_use]
    pub const fn enumeration(int: Int, of: &'static Enumeration) -> Self {
        Self::int(int, Show::Enum(of))
    }

    /// An integer made of the flags of `of`.
    #[must_use]
    pub const fn flags(int: Int, of: &'static FlagSet) -> Self {
        Self::int(int, Show::Flags(of))
    }

    /// `of[len]`.
    #[must_use]
    pub const fn array(of: &'static Type, len: u32) -> Self {
        Self::Array(Array { of, len })
    }

    /// Size in bytes for a caller of the given width.
    #[must_use]
    pub const fn bytes(&self, width: Width) -> u32 {
        layout::type_shape(self, width).size
    }

    /// The type that a caller of the given width uses: never [`Type::PerWidth`].
    #[must_use]
    pub const fn for_width(&'static self, width: Width) -> &'static Self {
        match self {
            Self::PerWidth(types) => types[width.index()].for_width(width),
            _ => self,
        }
    }

    /// Whether a handle stands somewhere inside.
    #[must_use]
    pub const fn has_handles(&self) -> bool {
        match self {
            Self::Int(_) | Self::Chars(_) | Self::Bytes(_) => false,
            Self::Handle(_) | Self::Tail(_) => true,
            Self::PerWidth(types) => types[0].has_handles() || types[1].has_handles(),
            Self::Struct(structure) => structure.has_handles,
            Self::Array(array) => array.of.has_handles(),
            Self::Union(union) => {
                let mut i = 0;
                while i < union.cases.len() {
                    if union.cases[i].ty.has_handles() {
                        return true;
                    }
                    i += 1;
                }
                false
            }
        }
    }
}

const fn any_handles(fields: &[Field]) -> bool {
    let mut i = 0;
    while i < fields.len() {
        if fields[i].ty.has_handles() {
            return true;
        }
        i += 1;
    }
    false
}
