//! A call to be injected, and what became of it.

/// The most bytes of guest memory an injected call may bring along.
pub const MAX_INJECTED_BYTES: usize = 2048;
/// The most addresses that may have to be filled in.
pub const MAX_RELOCATIONS: usize = 256;

/// Where the address of a place in the brought memory has to be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An argument register, 0-based.
    Register(u8),
    /// A word of the brought memory, by its offset in bytes.
    Memory(u32),
}

/// An address that is known only when the memory has its place in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where it is filled in.
    pub place: Place,
    /// What it points to: an offset in the brought memory, in bytes.
    pub target: u32,
}

/// One call to make in the name of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The engine's name for it, returned with its result.
    pub id: u64,
    /// The domain to borrow a vCPU of.
    pub domain: u16,
    /// Which of its vCPUs; any if `None`.
    pub vcpu: Option<u16>,
    /// Whether registers and memory are laid out for a 64-bit caller. Only such a caller is borrowed.
    pub is_64_bit: bool,
    /// The hypercall's number.
    pub number: u64,
    /// The argument registers.
    pub registers: [u64; 6],
    /// What the arguments point to: at most [`MAX_INJECTED_BYTES`].
    pub memory: Vec<u8>,
    /// At most [`MAX_RELOCATIONS`].
    pub relocations: Vec<Relocation>,
}

/// What became of an injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum InjectionStatus {
    /// The call returned, and the guest is as it was.
    Done = 1,
    /// L1 preempted the call and the guest never came back to it: its domain died, or sleeps.
    Lost = 2,
    /// It was dropped before a vCPU was borrowed.
    Dropped = 3,
    /// The guest has no writable memory for the call's structures where it can be put back.
    NoRoom = 4,
}

impl InjectionStatus {
    pub(crate) const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Done),
            2 => Some(Self::Lost),
            3 => Some(Self::Dropped),
            4 => Some(Self::NoRoom),
            _ => None,
        }
    }
}

/// An injection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    /// As in [`Injection::id`].
    pub id: u64,
    /// When, ticks of L0's TSC.
    pub time_ticks: u64,
    /// What became of it.
    pub status: InjectionStatus,
    /// What the call returned; 0 unless [`InjectionStatus::Done`].
    pub result: i64,
    /// Sequence number of the injected call on this ring.
    pub sequence: u64,
    /// From the call's entry to its return, in ticks of L0's TSC.
    pub duration_ticks: u64,
}

impl Injection {
    /// Words before the relocations and the memory.
    const HEAD_WORDS: usize = 11;
    const ANY_VCPU: u64 = u64::MAX;

    pub(crate) fn to_words(&self) -> Vec<u64> {
        let vcpu = self.vcpu.map_or(Self::ANY_VCPU, u64::from);
        let lengths = self.memory.len() as u64 | (self.relocations.len() as u64) << 32;
        let who = u64::from(self.domain) | u64::from(self.is_64_bit) << 32;
        let mut words = vec![self.id, who, vcpu, self.number];
        words.extend(self.registers);
        words.push(lengths);
        words.extend(self.relocations.iter().map(|relocation| relocation.to_word()));
        words.extend(self.memory.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        }));
        words
    }

    pub(crate) fn from_words(words: &[u64]) -> Option<Self> {
        let [id, who, vcpu, number, registers @ .., lengths] =
            *words.first_chunk::<{ Self::HEAD_WORDS }>()?;
        let (memory_bytes, relocations) = (lengths as u32 as usize, (lengths >> 32) as usize);
        if memory_bytes > MAX_INJECTED_BYTES || relocations > MAX_RELOCATIONS {
            return None;
        }
        let (relocations, memory) = words.get(Self::HEAD_WORDS..)?.split_at_checked(relocations)?;
        let relocations: Vec<Relocation> = relocations
            .iter()
            .map(|word| Relocation::from_word(*word, memory_bytes))
            .collect::<Option<_>>()?;
        if memory.len() != memory_bytes.div_ceil(8) {
            return None;
        }
        let mut memory: Vec<u8> = memory.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.truncate(memory_bytes);
        let vcpu = if vcpu == Self::ANY_VCPU { None } else { Some(u16::try_from(vcpu).ok()?) };
        let (domain, is_64_bit) = (who as u16, who >> 32 & 1 == 1);
        Some(Self { id, domain, vcpu, is_64_bit, number, registers, memory, relocations })
    }
}

impl Relocation {
    /// Set in a relocation's upper half if it concerns memory.
    const IN_MEMORY: u64 = 1 << 31;

    fn to_word(self) -> u64 {
        let place = match self.place {
            Place::Register(index) => u64::from(index),
            Place::Memory(offset) => u64::from(offset) | Self::IN_MEMORY,
        };
        u64::from(self.target) | place << 32
    }

    /// `None` unless both ends lie inside the memory, and the register exists.
    fn from_word(word: u64, memory_bytes: usize) -> Option<Self> {
        let (target, place) = (word as u32, word >> 32);
        let offset = (place & (Self::IN_MEMORY - 1)) as u32;
        let place = if place & Self::IN_MEMORY == 0 {
            Place::Register(u8::try_from(offset).ok().filter(|index| *index < 6)?)
        } else {
            Place::Memory(offset)
        };
        let inside = match place {
            Place::Register(_) => true,
            Place::Memory(offset) => (offset as usize) < memory_bytes,
        };
        (inside && target as usize <= memory_bytes).then_some(Self { place, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sent_is_received(id: u64, domain: u16, vcpu: Option<u16>, is_64_bit: bool, registers: [u64; 6],
            memory in proptest::collection::vec(any::<u8>(), 8..MAX_INJECTED_BYTES), number: u64, register in 0u8..6) {
            let relocations = vec![
                Relocation { place: Place::Register(register), target: 0 },
                Relocation { place: Place::Memory(0), target: memory.len() as u32 },
            ];
            let sent = Injection { id, domain, vcpu, is_64_bit, number, registers, memory, relocations };
            prop_assert_eq!(Injection::from_words(&sent.to_words()), Some(sent));
        }

        #[test]
        fn any_words_are_survived(words in proptest::collection::vec(any::<u64>(), 0..64)) {
            if let Some(injection) = Injection::from_words(&words) {
                prop_assert!(injection.memory.len() <= MAX_INJECTED_BYTES);
            }
        }
    }
}
