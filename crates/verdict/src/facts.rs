//! What a condition is judged on.

use hypovisor_abi::decode::Call;
use hypovisor_event::record::Caller;

/// What kind of guest a domain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GuestKind {
    /// Paravirtualised.
    Pv = 0,
    /// Hardware-virtualised, without an emulated machine.
    Pvh = 1,
    /// Hardware-virtualised, with an emulated machine.
    Hvm = 2,
    /// Not known.
    #[default]
    Unknown = 3,
}

impl GuestKind {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Pv, Self::Pvh, Self::Hvm, Self::Unknown];

    /// The name in rules and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
            Self::Unknown => "unknown",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// It returned a result.
    Returned = 0,
    /// Xen interrupted it and has the guest issue it again.
    Preempted = 1,
    /// The guest goes on elsewhere, as after `iret`.
    Resumed = 2,
    /// No return was seen.
    Unfinished = 3,
}

impl Outcome {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Returned, Self::Preempted, Self::Resumed, Self::Unfinished];

    /// The name in rules and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Preempted => "preempted",
            Self::Resumed => "resumed",
            Self::Unfinished => "unfinished",
        }
    }
}

/// When conditions are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Moment {
    /// Before L1 runs the call.
    Entry = 0,
    /// When it has ended.
    Return = 1,
}

/// How a call ended, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// What it returned; `None` unless it did.
    pub result: Option<i64>,
    /// From entry to end, in nanoseconds, if that is known.
    pub duration_ns: Option<u64>,
}

/// A call, and what is known of it besides its registers and memory.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Registers and captured memory. At [`Moment::Entry`] the memory captured after the call is not looked at.
    pub call: &'a Call<'a>,
    /// Who makes it, and from where.
    pub caller: Caller,
    /// The CPU of Xen that it was made on.
    pub pcpu: u32,
    /// What kind of guest the caller is.
    pub kind: GuestKind,
    /// Whether the caller is privileged (the control domain).
    pub privileged: bool,
    /// Whether it is an inner call of a multicall.
    pub inner: bool,
    /// Whether it continues a preempted call.
    pub continuation: bool,
    /// Whether more guest memory belongs to the call than was copied.
    pub cut: bool,
    /// How it ended; `None` at entry.
    pub end: Option<End>,
}
