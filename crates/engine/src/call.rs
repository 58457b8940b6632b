//! One observed hypercall, complete.

use hypovisor_abi::capture::{Registers, Segments};
use hypovisor_abi::decode;
use hypovisor_event::injection::Injected;
use hypovisor_event::record::Caller;
use hypovisor_event::verdict::Intervention;

/// Names a call within a session: the physical CPU it was made on and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId {
    /// Physical CPU of L1, which is the ring.
    pub pcpu: u32,
    /// Sequence number on that ring, without gaps.
    pub sequence: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this value (RAX as the guest sees it).
    Returned(i64),
    /// The guest goes on at another place, with other registers: `iret` has no result.
    Resumed,
    /// Xen preempted it and has the guest issue it again; the re-issued call is its continuation.
    Preempted,
    /// No return was seen: L1 crashed or stopped in it, the domain was destroyed, or the result was lost.
    Unfinished,
}

impl Outcome {
    /// The returned value.
    #[must_use]
    pub const fn result(self) -> Option<i64> {
        match self {
            Self::Returned(result) => Some(result),
            Self::Resumed | Self::Preempted | Self::Unfinished => None,
        }
    }

    /// Whether the call returned an errno.
    #[must_use]
    pub fn failed(self) -> bool {
        self.result().is_some_and(hypovisor_abi::errno::is_error)
    }
}

/// One observed hypercall.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its name in the session.
    pub id: CallId,
    /// When it entered, in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// From entry to return, in nanoseconds; `None` if no return was seen.
    pub duration_ns: Option<u64>,
    /// Who made it.
    pub caller: Caller,
    /// The multicall that it is an inner call of.
    pub parent: Option<CallId>,
    /// The preempted call that it continues. Such a call is not a new one of the guest's.
    pub continues: Option<CallId>,
    /// Number and arguments.
    pub registers: Registers,
    /// Guest memory copied at entry, in wire form.
    pub entry_segments: &'a [u8],
    /// Guest memory copied after the call, in wire form.
    pub exit_segments: &'a [u8],
    /// More memory belongs to the call than was copied.
    pub cut: bool,
    /// What the sensor did with it.
    pub intervention: Intervention,
    /// How it ended.
    pub outcome: Outcome,
}

impl<'a> Call<'a> {
    /// What the ABI's decoder needs.
    #[must_use]
    pub const fn captured(&self) -> decode::Call<'a> {
        decode::Call {
            registers: self.registers,
            entry: Segments(self.entry_segments),
            exit: Segments(self.exit_segments),
        }
    }
}

/// Events that were lost on one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The ring.
    pub pcpu: u32,
    /// When there was room again, in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// The first call that may be missing.
    pub first_sequence: u64,
    /// Calls of which nothing was recorded.
    pub calls: u64,
    /// Calls recorded without their result.
    pub results: u64,
}

/// Takes calls as they complete: those of one ring in the order they entered, a multicall before its inner calls.
///
/// Before that, [`CallSink::entered`] tells of each call when it enters, in the order of time over all rings. A sink
/// that wraps another one forwards both.
pub trait CallSink {
    /// Why a call cannot be taken.
    type Error;

    /// A call has entered: what it returns is not known yet, [`Call::outcome`] is [`Outcome::Unfinished`], and there is
    /// no memory copied after it. [`CallSink::call`] follows once it has returned, or never if L1 crashes in it and
    /// the engine is killed then. [`Call::time_ns`] is the same both times, and greater than that of the call before.
    ///
    /// # Errors
    /// As [`CallSink::call`].
    fn entered(&mut self, _call: &Call<'_>) -> Result<(), Self::Error> {
        Ok(())
    }

    /// One call.
    ///
    /// # Errors
    /// When it cannot be taken; the session ends then.
    fn call(&mut self, call: &Call<'_>) -> Result<(), Self::Error>;

    /// An injection on CPU `pcpu` has ended; `memory` is what the call brought along, as L1 left it.
    ///
    /// # Errors
    /// As [`CallSink::call`].
    fn injected(&mut self, _pcpu: u32, _injected: &Injected, _memory: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Events were lost.
    ///
    /// # Errors
    /// As [`CallSink::call`].
    fn loss(&mut self, loss: &Loss) -> Result<(), Self::Error>;
}
