//! What sensor and engine say to each other besides events.
//!
//! A Unix socket of type `SOCK_SEQPACKET`, listened on by the sensor: one engine at a time, and a new one may
//! connect whenever the last is gone. Messages are rare (a handful per session), so they are plain words:
//! the first is the kind, and a message that does not parse ends the connection.
//!
//! ```text
//!   engine                                   sensor
//!     │ ◀────────────── Hello (+ rings, RAM backends as descriptors) ──┤  on connect
//!     ├── RamLayout ──────────────────────────────────────────────────▶│  TCG
//!     │ ◀────────────── OwnRam ────────────────────────────────────────┤  KVM
//!     │ ◀────────────── NeedHooks { vcpu, cr3, rip } ──────────────────┤  first code in the kernel half
//!     ├── Hooks ──────────────────────────────────────────────────────▶│  or AskAgain, or Refuse
//!     │ ◀────────────── NeedLayout { vcpu, cr3, frame } ───────────────┤  first hypercall, if still unknown
//!     ├── Layout ─────────────────────────────────────────────────────▶│  or Refuse
//!     ├── Note (any time: kept for the next engine, returned in Hello) ▶│
//!     ├── Rules (any time: + the compiled rules as a descriptor) ─────▶│
//!     ├── Inject (any time; its end comes through a ring) ────────────▶│
//!     ├── CancelInjection, Release, DomainKind, DomainEnded ──────────▶│
//!     │ ◀────────────── SystemChange (any time) ───────────────────────┤
//!     ├── WatchWrites (any time) ─────────────────────────────────────▶│
//!     │ ◀────────────── Written (KVM: once for each page, until asked  │
//!     │                 again; TCG: SystemChange when it is executed) ─┤
//!     │ ◀────────────── Reset, and later NeedHooks again ──────────────┤
//! ```
//!
//! While a `Need…` is open the asking vCPU waits, for a bounded time.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hypovisor_machine::{Gpa, Gva, RamRange};
use rustix::net::{self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer};
use rustix::net::{SendAncillaryMessage, SendFlags};

use crate::injection::Injection;

mod system;
mod wire;

pub use system::{SystemChange, SystemRegister};

/// Version of records, rings and messages together; sensor and engine must have the same.
pub const PROTOCOL: u64 = 8;
/// The most bytes one message has.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The most bytes of a [`Message::Note`], so that it fits behind the words of the [`Message::Hello`] that returns it.
pub const MAX_NOTE_BYTES: usize = MAX_MESSAGE_BYTES - HELLO_WORDS * 8;
/// Words of a [`Message::Hello`] before the note.
const HELLO_WORDS: usize = 7;
/// The most descriptors one message carries.
const MAX_FDS: usize = 8;
/// The most hooks a [`Message::Hooks`] can set.
pub const MAX_HOOKS: usize = 64;

/// The most runs of pages a [`Message::WatchWrites`] names.
pub const MAX_WATCHED_RUNS: usize = 256;

/// What happens at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum HookKind {
    /// First instruction of the PV hypercall handler; RDI: the guest's frame.
    PvEntry = 1,
    /// Where it returns to.
    PvExit = 2,
    /// First instruction of the HVM hypercall handler; RDI: the guest's frame.
    HvmEntry = 3,
    /// Where it returns to; RAX tells whether the call was preempted.
    HvmExit = 4,
    /// First instruction of the function that runs one inner call of a multicall; RDI: the multicall's state.
    InnerEntry = 5,
    /// Where it returns to.
    InnerExit = 6,
    /// A VMRUN; RAX: the VMCB's physical address.
    Vmrun = 7,
}

impl HookKind {
    const ALL: [Self; 7] = [
        Self::PvEntry,
        Self::PvExit,
        Self::HvmEntry,
        Self::HvmExit,
        Self::InnerEntry,
        Self::InnerExit,
        Self::Vmrun,
    ];

    fn from_word(word: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == word)
    }
}

/// Where L1 is to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What happens there.
    pub kind: HookKind,
    /// The instruction's virtual address.
    pub gva: Gva,
}

/// Where L1 keeps what the sensor reads on every call. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    /// From the guest's frame to the number of the physical CPU.
    pub processor_id: u32,
    /// From the guest's frame to the pointer to the current `struct vcpu`.
    pub current_vcpu: u32,
    /// In `struct vcpu`: the vCPU's number.
    pub vcpu_id: u32,
    /// In `struct vcpu`: the pointer to its `struct domain`.
    pub vcpu_domain: u32,
    /// In `struct domain`: its id.
    pub domain_id: u32,
    /// In a multicall's state: the `struct multicall_entry` that runs.
    pub multicall_call: u32,
    /// In `struct vcpu`: the physical address of its VMCB; 0 if that is not known, or the processor has none.
    pub vcpu_vmcb: u32,
}

/// What the sensor tells on connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`PROTOCOL`] of the sensor.
    pub protocol: u64,
    /// The QEMU process.
    pub pid: u64,
    /// Level of QEMU's plugin API that the TCG adapter speaks; 0 for the KVM adapter.
    pub plugin_api: u64,
    /// vCPUs of L1, so rings.
    pub vcpus: u64,
    /// Bytes of each ring.
    pub ring_bytes: u64,
    /// How far the sensor is.
    pub state: SensorState,
}

/// How far a sensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum SensorState {
    /// It waits for an engine to describe L1's RAM.
    Fresh = 0,
    /// It waits for L1 to start.
    Armed = 1,
    /// It watches.
    Watching = 2,
    /// It was told not to, or nobody answered in time: L1 runs unmonitored.
    Idle = 3,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Sensor: who it is. Descriptors: the rings; then, under TCG, each memfd of the process that may be L1's RAM, and
    /// under KVM the process's own `/proc/self/mem`, opened for reading.
    Hello(Hello, Vec<u8>),
    /// Engine: which of the RAM descriptors (0-based) it is, and where its bytes stand.
    RamLayout {
        /// Index among the RAM descriptors of the Hello.
        backend: u64,
        /// The runs of addresses.
        ranges: Vec<RamRange>,
    },
    /// Sensor under KVM, before it asks anything: where L1's RAM stands in QEMU's own address space.
    OwnRam(Vec<RamRange>),
    /// Sensor: L1 runs its first code in the kernel half; where are the hooks?
    NeedHooks {
        /// The asking vCPU.
        vcpu: u64,
        /// Its page tables.
        cr3: u64,
        /// Its instruction pointer.
        rip: Gva,
    },
    /// Engine: the hooks, and the layout if it is known already.
    Hooks(Vec<Hook>, Option<FrameLayout>),
    /// Sensor: a vCPU stands at its first hypercall; what does L1's memory look like?
    NeedLayout {
        /// The asking vCPU.
        vcpu: u64,
        /// Its page tables.
        cr3: u64,
        /// The guest's frame.
        frame: Gva,
    },
    /// Engine: the layout.
    Layout(FrameLayout),
    /// Engine: there is no hypervisor where that vCPU stands; ask again when L1's kernel runs next.
    AskAgain,
    /// Engine: leave L1 alone.
    Refuse,
    /// Engine: keep this for the engine that comes after me.
    Note(Vec<u8>),
    /// Engine: judge calls by these rules from now on. Descriptor: a memfd with the compiled rules; none: no rules.
    Rules {
        /// Whether calls are really refused and L1 really stopped, or only what would have been is noted.
        enforce: bool,
        /// Bytes in the memfd.
        bytes: u64,
    },
    /// Engine: what kind of guest a domain is, which the sensor cannot see.
    DomainKind {
        /// Its id.
        domain: u16,
        /// As `hypovisor_verdict::GuestKind` numbers them.
        kind: u8,
    },
    /// Engine: a domain was destroyed, so nothing of it is waited for any more.
    DomainEnded {
        /// Its id.
        domain: u16,
    },
    /// Engine: make this call when the domain next makes one.
    Inject(Injection),
    /// Engine: forget this injection if it has not begun.
    CancelInjection {
        /// As in [`Injection::id`].
        id: u64,
    },
    /// Sensor: L1 sets a register that it had set for good.
    SystemChange(SystemChange),
    /// Engine: tell when somebody writes to these runs of whole pages (first address and bytes), or executes them changed.
    WatchWrites(Vec<(Gpa, u64)>),
    /// Sensor: somebody is about to write to this page. It is told again only after [`Message::WatchWrites`] named it again.
    Written(Gpa),
    /// Sensor: L1 begins anew; it will ask for hooks again.
    Reset,
    /// Engine: L1 was stopped for a paused call and goes on by somebody's order; the call may run now.
    Release,
}

/// Why talking to the other side failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket failed.
    #[error("control socket: {0}")]
    Socket(#[from] rustix::io::Errno),
    /// The other side is gone.
    #[error("the other side closed the control socket")]
    Closed,
    /// It sent something that is no message.
    #[error("the other side sent a malformed control message of kind {0}")]
    Malformed(u64),
    /// A message would be longer than the other side accepts.
    #[error("a control message of {0} bytes is too long")]
    TooLong(usize),
}

/// Sends one message and the descriptors that go with it.
///
/// # Errors
/// [`ControlError`] when the other side is gone or the message is too long.
pub fn send(socket: impl AsFd, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
    let bytes = message.encode();
    if bytes.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_FDS {
        return Err(ControlError::TooLong(bytes.len()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// As [`send`], without descriptors; does not wait for room. Whether the message went out.
pub fn try_send(socket: impl AsFd, message: &Message) -> bool {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    net::send(socket, &message.encode(), flags).is_ok()
}

/// Waits for one message and the descriptors that came with it.
///
/// # Errors
/// [`ControlError::Closed`] at the end of the connection, [`ControlError`] when it fails or makes no sense.
pub fn receive(socket: impl AsFd) -> Result<(Message, Vec<OwnedFd>), ControlError> {
    let mut bytes = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = net::recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(ControlError::Closed);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((Message::decode(&bytes[..received.bytes])?, fds))
}

#[cfg(test)]
mod tests;
