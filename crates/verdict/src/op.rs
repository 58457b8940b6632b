//! The instructions of a compiled condition.
//!
//! The machine has a stack of integers and one *cursor*: a place in captured guest memory. A field path
//! `args.arg.in.nr_extents` is `Register`, `Follow`, `Move`, `Load`: push the argument, pop it and put the cursor on
//! the segment captured there, go on by so many bytes, push the integer that stands there. What fails on the way leaves
//! no cursor, and loading from none pushes *absent*.
//!
//! Truth values are the integers 0 and 1. All jumps go forward; only [`Op::Next`] goes back, once per element.

/// A value that is known of every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fact {
    /// Id of the calling domain.
    Domain = 0,
    /// Its vCPU.
    Vcpu,
    /// The CPU of Xen.
    Pcpu,
    /// Truth value.
    Privileged,
    /// Number of the [`GuestKind`](crate::GuestKind).
    Kind,
    /// Number of the `CallerMode`.
    Mode,
    /// Privilege level.
    Cpl,
    /// Code segment selector.
    Cs,
    /// Where the guest goes on.
    Rip,
    /// Its stack pointer.
    Rsp,
    /// The hypercall's number.
    Number,
    /// The sub-op's number; absent if there is none.
    SubOp,
    /// Truth value.
    Inner,
    /// Truth value.
    Continuation,
    /// Truth value.
    Cut,
    /// The result; absent unless the call returned.
    Result,
    /// The positive errno that the result stands for, 0 if it is none; absent unless the call returned.
    Errno,
    /// Number of the [`Outcome`](crate::Outcome); absent at entry.
    Outcome,
    /// Nanoseconds; absent at entry.
    Duration,
    /// As [`Fact::SubOp`], and absent if the tables have no sub-op of that number.
    KnownSubOp,
}

impl Fact {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Domain,
        Self::Vcpu,
        Self::Pcpu,
        Self::Privileged,
        Self::Kind,
        Self::Mode,
        Self::Cpl,
        Self::Cs,
        Self::Rip,
        Self::Rsp,
        Self::Number,
        Self::SubOp,
        Self::Inner,
        Self::Continuation,
        Self::Cut,
        Self::Result,
        Self::Errno,
        Self::Outcome,
        Self::Duration,
        Self::KnownSubOp,
    ];

    /// Whether it is known only when the call has ended.
    #[must_use]
    pub const fn needs_end(self) -> bool {
        matches!(self, Self::Result | Self::Errno | Self::Outcome | Self::Duration)
    }
}

/// Which of the two captures a value is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// The one at entry.
    Entry = 0,
    /// The one after the call.
    Exit = 1,
    /// The one at entry, or else the other: pointers, which are always the guest's.
    Either = 2,
}

impl Side {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Entry, Self::Exit, Self::Either];
}

/// A run of entries in a set's constants or instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// How many.
    pub len: u32,
}

/// A list that ends at the first element whose field is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// Where the field stands in the element, in bytes.
    pub offset: u32,
    /// Its size in bytes.
    pub bytes: u8,
}

/// A loop over the elements at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopSpec {
    /// Which of the loop variables, below [`MAX_LOOPS`](crate::MAX_LOOPS).
    pub slot: u8,
    /// The capture whose length counts.
    pub side: Side,
    /// True if every element has to meet the condition, false if one is enough.
    pub all: bool,
    /// Bytes of an element, not 0.
    pub size: u32,
    /// The most elements there are; `u32::MAX` if only the capture says.
    pub limit: u32,
    /// What ends the list, if something in it does.
    pub until: Option<Until>,
    /// The loop's first instruction, [`Op::Loop`].
    pub start: u32,
    /// The instruction behind the loop.
    pub end: u32,
}

macro_rules! ops {
    ($(
        $(#[$meta:meta])*
        $code:literal $name:ident { $($field:ident: $ty:ty = $slot:ident),* },
    )*) => {
        /// One instruction.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op {
            $($(#[$meta])* $name { $(
                #[allow(missing_docs, reason = "the instruction says what its operands are")]
                $field: $ty
            ),* },)*
        }

        impl Op {
            /// The wire form: a code, three bytes and two words.
            pub(crate) fn encode(self) -> Encoded {
                #[allow(unused_mut, reason = "some have no operands")]
                let mut encoded = Encoded::default();
                match self {
                    $(Self::$name { $($field),* } => {
                        encoded.code = $code;
                        $(encoded.$slot = Operand::into_slot($field);)*
                    })*
                }
                encoded
            }

            /// The instruction of a wire form; `None` if there is none.
            pub(crate) fn decode(encoded: Encoded) -> Option<Self> {
                let op = match encoded.code {
                    $($code => Self::$name { $($field: Operand::from_slot(encoded.$slot)?),* },)*
                    _ => return None,
                };
                (op.encode() == encoded).then_some(op)
            }
        }
    };
}

impl Op {
    /// A comparison of the top with the constant `index`, in place of `Const` and this instruction.
    #[must_use]
    pub const fn with_constant(self, index: u32) -> Option<Self> {
        let how = match self {
            Self::Equal {} => 0,
            Self::NotEqual {} => 1,
            Self::Less {} => 2,
            Self::LessOrEqual {} => 3,
            Self::Greater {} => 4,
            Self::GreaterOrEqual {} => 5,
            _ => return None,
        };
        Some(Self::Compare { how, index })
    }
}

/// An instruction on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) code: u8,
    pub(crate) a: u8,
    pub(crate) b: u8,
    pub(crate) c: u8,
    pub(crate) x: u32,
    pub(crate) y: u32,
}

trait Operand<S>: Sized {
    fn into_slot(self) -> S;
    fn from_slot(slot: S) -> Option<Self>;
}

impl Operand<u8> for u8 {
    fn into_slot(self) -> u8 {
        self
    }
    fn from_slot(slot: u8) -> Option<Self> {
        Some(slot)
    }
}

impl Operand<u8> for bool {
    fn into_slot(self) -> u8 {
        u8::from(self)
    }
    fn from_slot(slot: u8) -> Option<Self> {
        Some(slot != 0)
    }
}

impl Operand<u8> for Fact {
    fn into_slot(self) -> u8 {
        self as u8
    }
    fn from_slot(slot: u8) -> Option<Self> {
        Self::ALL.get(usize::from(slot)).copied()
    }
}

impl Operand<u8> for Side {
    fn into_slot(self) -> u8 {
        self as u8
    }
    fn from_slot(slot: u8) -> Option<Self> {
        Self::ALL.get(usize::from(slot)).copied()
    }
}

impl Operand<u32> for u32 {
    fn into_slot(self) -> u32 {
        self
    }
    fn from_slot(slot: u32) -> Option<Self> {
        Some(slot)
    }
}

impl Operand<u32> for i32 {
    fn into_slot(self) -> u32 {
        self.cast_unsigned()
    }
    fn from_slot(slot: u32) -> Option<Self> {
        Some(slot.cast_signed())
    }
}

ops! {
    /// Pushes a constant.
    0 Const { index: u32 = x },
    /// Pushes absent.
    1 Absent {},
    /// Pushes what is known of every call.
    2 Fact { fact: Fact = a },
    /// Pushes an argument register, cut to the caller's width.
    3 RawArg { index: u8 = a },
    /// Pushes an argument as a C integer; 8 bytes of a 32-bit caller come from two registers.
    4 Register { index: u8 = a, bytes: u8 = b, signed: bool = c },
    /// Puts the cursor on a loop's element.
    5 Element { slot: u8 = a },
    /// Pops a pointer and puts the cursor on what was captured there, at entry, after the call, or both.
    6 Follow { entry: bool = a, exit: bool = b },
    /// Moves the cursor on.
    7 Move { bytes: u32 = x },
    /// Drops the cursor unless the integer `relative` bytes from it, masked by the first of `len` constants, is among
    /// the others (or is not, with `negate`).
    8 Tag { bytes: u8 = a, negate: bool = b, len: u8 = c, relative: i32 = x, values: u32 = y },
    /// As `Tag`, on the sub-op number and without a mask.
    9 TagSubOp { negate: bool = b, len: u8 = c, values: u32 = y },
    /// Pushes the integer at the cursor.
    10 Load { bytes: u8 = a, signed: bool = b, side: Side = c },
    /// Pushes the cursor's guest address, cut to the caller's width.
    11 Place {},
    /// Pushes how many elements of `size` bytes stand at the cursor, `limit` at most.
    12 Size { side: Side = a, size: u32 = x, limit: u32 = y },
    /// Pops a pointer; pushes whether its memory could not be read to the end.
    13 Unreadable { entry: bool = a, exit: bool = b },
    /// Pushes whether the `bytes` bytes at the cursor differ before and after the call.
    14 Changed { bytes: u32 = x },
    /// Pushes whether a byte stands at the cursor. Never absent.
    15 AtHand { side: Side = a },
    /// Pops a value; pushes whether it was at hand.
    16 Present {},
    /// Replaces absent by false.
    17 OrFalse {},
    /// Whether the integer is not 0.
    18 Truth {},
    /// Logical negation.
    19 Not {},
    /// Arithmetic negation.
    20 Negate {},
    /// Exact; absent beyond 127 bits.
    21 Add {},
    /// Exact; absent beyond 127 bits.
    22 Subtract {},
    /// Exact; absent beyond 127 bits.
    23 Multiply {},
    /// Cut towards zero; absent by 0.
    24 Divide {},
    /// Has the sign of the dividend; absent by 0.
    25 Remainder {},
    /// Of two's complement.
    26 BitAnd {},
    /// Of two's complement.
    27 BitOr {},
    /// Of two's complement.
    28 BitXor {},
    /// Exact; absent beyond 127 bits or for a negative shift.
    29 ShiftLeft {},
    /// Arithmetic; absent for a negative shift.
    30 ShiftRight {},
    /// The smaller one.
    31 Least {},
    /// The larger one.
    32 Greatest {},
    /// Comparison.
    33 Equal {},
    /// Comparison.
    34 NotEqual {},
    /// Comparison.
    35 Less {},
    /// Comparison.
    36 LessOrEqual {},
    /// Comparison.
    37 Greater {},
    /// Comparison.
    38 GreaterOrEqual {},
    /// Of three-valued logic.
    39 And {},
    /// Of three-valued logic.
    40 Or {},
    /// Whether a PV caller's address lies in Xen's part of its address space.
    41 InXen {},
    /// Whether an address is canonical for the caller's width.
    42 Canonical {},
    /// Whether a value is among `len` constants.
    43 InSet { start: u32 = x, len: u32 = y },
    /// Goes on elsewhere if the top is false; keeps it.
    44 JumpIfFalse { to: u32 = x },
    /// Goes on elsewhere if the top is true; keeps it.
    45 JumpIfTrue { to: u32 = x },
    /// Goes on elsewhere if the top is at hand; else drops it.
    46 JumpIfPresent { to: u32 = x },
    /// Pops a truth value: true goes on, false goes to `otherwise`, absent is left there and goes to `end`.
    47 Branch { otherwise: u32 = x, end: u32 = y },
    /// Goes on elsewhere.
    48 Jump { to: u32 = x },
    /// Begins a loop over the elements at the cursor; without one its outcome is absent.
    49 Loop { index: u32 = x },
    /// Pops the condition's value for this element; goes back, or pushes the loop's outcome.
    50 Next { index: u32 = x },
    /// A comparison with a constant: `Const` and `Equal` (0) to `GreaterOrEqual` (5) in one.
    51 Compare { how: u8 = a, index: u32 = x },
}
