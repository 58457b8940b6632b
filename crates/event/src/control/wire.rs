//! Messages as bytes: little-endian words, the first of which is the message's kind.

use hypovisor_machine::{Gpa, Gva, MAX_RAM_RANGES, PAGE_SIZE, RamRange};

use super::{
    ControlError, FrameLayout, HELLO_WORDS, Hello, Hook, HookKind, MAX_HOOKS, MAX_NOTE_BYTES,
    MAX_WATCHED_RUNS, Message, SensorState, SystemChange, SystemRegister,
};
use crate::injection::Injection;

pub(super) mod kind {
    pub(in super::super) const HELLO: u64 = 1;
    pub(in super::super) const RAM_LAYOUT: u64 = 2;
    pub(in super::super) const NEED_HOOKS: u64 = 3;
    pub(in super::super) const HOOKS: u64 = 4;
    pub(in super::super) const NEED_LAYOUT: u64 = 5;
    pub(in super::super) const LAYOUT: u64 = 6;
    pub(in super::super) const REFUSE: u64 = 7;
    pub(in super::super) const NOTE: u64 = 8;
    pub(in super::super) const RULES: u64 = 9;
    pub(in super::super) const INJECT: u64 = 10;
    pub(in super::super) const CANCEL_INJECTION: u64 = 11;
    pub(in super::super) const RELEASE: u64 = 12;
    pub(in super::super) const DOMAIN_KIND: u64 = 13;
    pub(in super::super) const DOMAIN_ENDED: u64 = 14;
    pub(in super::super) const OWN_RAM: u64 = 15;
    pub(in super::super) const ASK_AGAIN: u64 = 16;
    pub(in super::super) const SYSTEM_CHANGE: u64 = 17;
    pub(in super::super) const WATCH_WRITES: u64 = 18;
    pub(in super::super) const WRITTEN: u64 = 19;
    pub(in super::super) const RESET: u64 = 20;
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let words = |words: Vec<u64>| words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
        match self {
            Self::Hello(hello, note) => {
                let Hello { protocol, pid, plugin_api, vcpus, ring_bytes, state } = *hello;
                let head = vec![kind::HELLO, protocol, pid, plugin_api, vcpus, ring_bytes, state as u64];
                [words(head), note.clone()].concat()
            }
            Self::RamLayout { backend, ranges } => {
                words([kind::RAM_LAYOUT, *backend].into_iter().chain(range_words(ranges)).collect())
            }
            Self::OwnRam(ranges) => words([kind::OWN_RAM].into_iter().chain(range_words(ranges)).collect()),
            Self::NeedHooks { vcpu, cr3, rip } => words(vec![kind::NEED_HOOKS, *vcpu, *cr3, rip.0]),
            Self::NeedLayout { vcpu, cr3, frame } => words(vec![kind::NEED_LAYOUT, *vcpu, *cr3, frame.0]),
            Self::Hooks(hooks, layout) => {
                let layout = layout.map_or([u64::MAX; LAYOUT_WORDS], FrameLayout::words);
                let hooks = hooks.iter().flat_map(|hook| [hook.kind as u64, hook.gva.0]);
                words([kind::HOOKS].into_iter().chain(layout).chain(hooks).collect())
            }
            Self::Layout(layout) => words([kind::LAYOUT].into_iter().chain(layout.words()).collect()),
            Self::AskAgain => words(vec![kind::ASK_AGAIN]),
            Self::SystemChange(SystemChange { register, before, now, rip }) => {
                words(vec![kind::SYSTEM_CHANGE, *register as u64, *before, *now, rip.0])
            }
            Self::WatchWrites(runs) => {
                let runs = runs.iter().flat_map(|(start, len)| [start.0, *len]);
                words([kind::WATCH_WRITES].into_iter().chain(runs).collect())
            }
            Self::Written(page) => words(vec![kind::WRITTEN, page.0]),
            Self::Reset => words(vec![kind::RESET]),
            Self::Refuse => words(vec![kind::REFUSE]),
            Self::Note(note) => [words(vec![kind::NOTE]), note.clone()].concat(),
            Self::Rules { enforce, bytes } => words(vec![kind::RULES, u64::from(*enforce), *bytes]),
            Self::Inject(injection) => words([vec![kind::INJECT], injection.to_words()].concat()),
            Self::CancelInjection { id } => words(vec![kind::CANCEL_INJECTION, *id]),
            Self::Release => words(vec![kind::RELEASE]),
            Self::DomainKind { domain, kind } => {
                words(vec![kind::DOMAIN_KIND, u64::from(*domain), u64::from(*kind)])
            }
            Self::DomainEnded { domain } => words(vec![kind::DOMAIN_ENDED, u64::from(*domain)]),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let kind = words.first().copied().unwrap_or(0);
        Self::decode_words(&words, bytes).ok_or(ControlError::Malformed(kind))
    }

    fn decode_words(words: &[u64], bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| words.get(index).copied();
        Some(match word(0)? {
            kind::HELLO => Self::Hello(Hello::from_words(words)?, bytes.get(HELLO_WORDS * 8..)?.to_vec()),
            kind::RAM_LAYOUT => Self::RamLayout { backend: word(1)?, ranges: ranges(words.get(2..)?)? },
            kind::OWN_RAM => Self::OwnRam(ranges(words.get(1..)?)?),
            kind::NEED_HOOKS => Self::NeedHooks { vcpu: word(1)?, cr3: word(2)?, rip: Gva(word(3)?) },
            kind::NEED_LAYOUT => Self::NeedLayout { vcpu: word(1)?, cr3: word(2)?, frame: Gva(word(3)?) },
            kind::HOOKS => {
                let (layout, hooks) = words.get(1..)?.split_at_checked(LAYOUT_WORDS)?;
                let layout = (layout[0] != u64::MAX).then(|| FrameLayout::from_words(layout));
                let (hooks, rest) = hooks.as_chunks::<2>();
                let hook =
                    |[kind, gva]: &[u64; 2]| Some(Hook { kind: HookKind::from_word(*kind)?, gva: Gva(*gva) });
                let hooks: Vec<Hook> = hooks.iter().map(hook).collect::<Option<_>>()?;
                let sane = rest.is_empty() && hooks.len() <= MAX_HOOKS;
                // A layout that is given must be a whole one.
                sane.then_some(Self::Hooks(hooks, layout.map_or(Some(None), |known| known.map(Some))?))?
            }
            kind::LAYOUT => Self::Layout(FrameLayout::from_words(words.get(1..)?)?),
            kind::ASK_AGAIN => Self::AskAgain,
            kind::SYSTEM_CHANGE => Self::SystemChange(SystemChange {
                register: SystemRegister::from_word(word(1)?)?,
                before: word(2)?,
                now: word(3)?,
                rip: Gva(word(4)?),
            }),
            kind::WATCH_WRITES => Self::WatchWrites(page_runs(words.get(1..)?)?),
            kind::WRITTEN => Self::Written(Gpa(word(1)?)),
            kind::RESET => Self::Reset,
            kind::REFUSE => Self::Refuse,
            kind::NOTE => Self::Note(bytes.get(8..).filter(|note| note.len() <= MAX_NOTE_BYTES)?.to_vec()),
            kind::RULES => Self::Rules { enforce: word(1)? == 1, bytes: word(2)? },
            kind::INJECT => Self::Inject(Injection::from_words(words.get(1..)?)?),
            kind::CANCEL_INJECTION => Self::CancelInjection { id: word(1)? },
            kind::RELEASE => Self::Release,
            kind::DOMAIN_ENDED => Self::DomainEnded { domain: word(1)?.try_into().ok()? },
            kind::DOMAIN_KIND => {
                Self::DomainKind { domain: word(1)?.try_into().ok()?, kind: word(2)?.try_into().ok()? }
            }
            _ => return None,
        })
    }
}

fn range_words(ranges: &[RamRange]) -> impl Iterator<Item = u64> {
    ranges.iter().flat_map(|range| [range.gpa.0, range.len, range.file_offset])
}

fn page_runs(words: &[u64]) -> Option<Vec<(Gpa, u64)>> {
    let (runs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() || runs.len() > MAX_WATCHED_RUNS {
        return None;
    }
    let is_whole = |word: u64| word.is_multiple_of(PAGE_SIZE);
    let run = |[start, len]: &[u64; 2]| {
        start.checked_add(*len)?;
        (is_whole(*start) && is_whole(*len)).then_some((Gpa(*start), *len))
    };
    runs.iter().map(run).collect()
}

fn ranges(words: &[u64]) -> Option<Vec<RamRange>> {
    let (ranges, rest) = words.as_chunks::<3>();
    if !rest.is_empty() || ranges.len() > MAX_RAM_RANGES {
        return None;
    }
    let range = |[gpa, len, file_offset]: &[u64; 3]| {
        gpa.checked_add(*len)?;
        file_offset.checked_add(*len)?;
        Some(RamRange { gpa: Gpa(*gpa), len: *len, file_offset: *file_offset })
    };
    ranges.iter().map(range).collect()
}

impl Hello {
    fn from_words(words: &[u64]) -> Option<Self> {
        let state = match words.get(6)? {
            0 => SensorState::Fresh,
            1 => SensorState::Armed,
            2 => SensorState::Watching,
            3 => SensorState::Idle,
            _ => return None,
        };
        let [_, protocol, pid, plugin_api, vcpus, ring_bytes] = *words.first_chunk()?;
        Some(Self { protocol, pid, plugin_api, vcpus, ring_bytes, state })
    }
}

/// Words of a [`FrameLayout`].
const LAYOUT_WORDS: usize = 7;

impl FrameLayout {
    /// Offsets beyond this are not believed: no structure of a hypervisor is that large.
    const LIMIT: u64 = 1 << 16;

    fn words(self) -> [u64; LAYOUT_WORDS] {
        [
            self.processor_id,
            self.current_vcpu,
            self.vcpu_id,
            self.vcpu_domain,
            self.domain_id,
            self.multicall_call,
            self.vcpu_vmcb,
        ]
        .map(u64::from)
    }

    fn from_words(words: &[u64]) -> Option<Self> {
        let [processor_id, current_vcpu, vcpu_id, vcpu_domain, domain_id, multicall_call, vcpu_vmcb] =
            *words.first_chunk()?;
        let checked = |word: u64| u32::try_from(word).ok().filter(|_| word < Self::LIMIT);
        Some(Self {
            processor_id: checked(processor_id)?,
            current_vcpu: checked(current_vcpu)?,
            vcpu_id: checked(vcpu_id)?,
            vcpu_domain: checked(vcpu_domain)?,
            domain_id: checked(domain_id)?,
            multicall_call: checked(multicall_call)?,
            vcpu_vmcb: checked(vcpu_vmcb)?,
        })
    }
}
