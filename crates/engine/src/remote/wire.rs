//! Injections and their ends as they travel over the engine's socket.

use hypovisor_event::injection::{Injection, InjectionStatus, Place, Relocation};
use serde::{Deserialize, Serialize};

/// A call to make in a domain's name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InjectionRequest {
    /// The client's name for it, returned with its end.
    pub id: u64,
    /// The domain to borrow a vCPU of.
    pub domain: u16,
    /// Which of its vCPUs; any if left out.
    #[serde(default)]
    pub vcpu: Option<u16>,
    /// Whether it is laid out for a 64-bit caller.
    pub is_64_bit: bool,
    /// The hypercall's number.
    pub number: u64,
    /// The argument registers.
    pub registers: [u64; 6],
    /// What the arguments point to.
    #[serde(default)]
    pub memory: Vec<u8>,
    /// Pairs of a register's number and the offset in `memory` that it points to.
    #[serde(default)]
    pub registers_to: Vec<(u8, u32)>,
    /// Pairs of an offset in `memory` and the offset that the word there points to.
    #[serde(default)]
    pub memory_to: Vec<(u32, u32)>,
}

impl InjectionRequest {
    pub(super) fn into_injection(self, id: u64) -> Injection {
        let registers = self
            .registers_to
            .into_iter()
            .map(|(register, target)| Relocation { place: Place::Register(register), target });
        let memory = self
            .memory_to
            .into_iter()
            .map(|(offset, target)| Relocation { place: Place::Memory(offset), target });
        Injection {
            id,
            domain: self.domain,
            vcpu: self.vcpu,
            is_64_bit: self.is_64_bit,
            number: self.number,
            registers: self.registers,
            relocations: registers.chain(memory).collect(),
            memory: self.memory,
        }
    }
}

/// What became of an injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The call returned, and the guest is as it was.
    Done,
    /// L1 preempted the call and the guest never came back to it.
    Lost,
    /// It was dropped before a vCPU was borrowed.
    Dropped,
    /// The guest's stack never had room for the call's structures.
    NoRoom,
    /// The domain made no hypercall in time, or there is none.
    TimedOut,
    /// The domain was destroyed before it was made, or in the middle.
    DomainGone,
}

impl From<InjectionStatus> for Status {
    fn from(status: InjectionStatus) -> Self {
        match status {
            InjectionStatus::Done => Self::Done,
            InjectionStatus::Lost => Self::Lost,
            InjectionStatus::Dropped => Self::Dropped,
            InjectionStatus::NoRoom => Self::NoRoom,
        }
    }
}

/// How an injection ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// As in [`InjectionRequest::id`].
    pub id: u64,
    /// What became of it.
    pub status: Status,
    /// What the call returned, if it did.
    pub result: Option<i64>,
    /// CPU of L1 that it was made on; with `sequence` the name of its event.
    pub pcpu: u32,
    /// Number of its event on that CPU.
    pub sequence: u64,
    /// From entry to return, in nanoseconds.
    pub duration_ns: u64,
    /// What the arguments pointed to, as L1 left it.
    pub memory: Vec<u8>,
}

impl Ended {
    /// It was not made, or nothing is known of it.
    pub(super) const fn without_result(id: u64, status: Status) -> Self {
        Self { id, status, result: None, pcpu: 0, sequence: 0, duration_ns: 0, memory: Vec::new() }
    }
}
