//! Whatever a guest passes: capturing stays within its bounds, and decoding is total.

mod checks;

use hypovisor_abi::Width;
use hypovisor_abi::capture::{
    MAX_SEGMENT_BYTES, MAX_SEGMENTS, Phase, Piece, Reader, Registers, Segments, UNREADABLE, capture,
};
use hypovisor_abi::decode::Call;
use hypovisor_abi::fuzzing::{Copier, Rendered, decode_call};
use hypovisor_abi::xen::XEN;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Where made-up memory lies: few enough addresses that pointers often hit, and the ends of the address space.
const PAGES: [u64; 6] = [0x1000, 0x1008, 0x2000, 0xffff_fff8, 0xffff_8000_0000_0000, u64::MAX - 15];

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..64_u64,
        4 => any::<Index>().prop_map(|index| PAGES[index.index(PAGES.len())]),
        1 => any::<u64>(),
        1 => any::<u32>().prop_map(u64::from),
        1 => Just(u64::MAX),
    ]
}

fn registers() -> impl Strategy<Value = Registers> {
    let number = prop_oneof![20 => 0..57_u64, 1 => any::<u64>()];
    (number, proptest::array::uniform6(word()), any::<bool>()).prop_map(|(number, args, narrow)| Registers {
        number,
        args,
        width: if narrow { Width::Bits32 } else { Width::Bits64 },
    })
}

fn memory() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(word(), 0..80).prop_map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect()),
        vec(0..40_u32, 0..160).prop_map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect()),
        vec(any::<u8>(), 0..300),
    ]
}

/// Segments whose headers are right, or nearly.
fn segments() -> impl Strategy<Value = Vec<u8>> {
    let segment = (word(), word(), memory(), any::<bool>(), -1..2_i32);
    vec(segment, 0..6).prop_map(|list| {
        let mut wire = Vec::new();
        for (gva, requested, bytes, unreadable, off) in list {
            let captured = (bytes.len() as u32).saturating_add_signed(off / 2);
            wire.extend(gva.to_le_bytes());
            wire.extend((requested as u32).to_le_bytes());
            wire.extend((captured | if unreadable { UNREADABLE } else { 0 }).to_le_bytes());
            wire.extend(&bytes);
            wire.resize(wire.len().next_multiple_of(8), 0);
        }
        wire
    })
}

fn render(registers: Registers, entry: &[u8], exit: &[u8]) -> Rendered {
    Rendered::of(&XEN, &Call { registers, entry: Segments(entry), exit: Segments(exit) })
}

/// A reader that says whatever it was told to, and counts.
struct Hostile {
    words: Vec<u64>,
    next: std::cell::Cell<usize>,
    room: usize,
    asked: usize,
}

impl Reader for Hostile {
    fn capture(&mut self, _gva: u64, _len: u64) -> Option<Piece> {
        self.asked += 1;
        (self.asked <= self.room).then_some(Piece(self.asked))
    }

    fn capture_text(&mut self, gva: u64, max: u32) -> Option<Piece> {
        self.capture(gva, u64::from(max))
    }

    fn integer(&self, _piece: Piece, _offset: u64, _bytes: u32) -> Option<u64> {
        let next = self.next.get();
        self.next.set(next + 1);
        self.words.get(next % self.words.len().max(1)).copied()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_segments_decode(registers in registers(), entry in segments(), exit in segments()) {
        checks::well_formed(&render(registers, &entry, &exit));
    }

    #[test]
    fn any_bytes_decode(registers in registers(), entry in vec(any::<u8>(), 0..200), exit in memory()) {
        checks::well_formed(&render(registers, &entry, &exit));
    }

    #[test]
    fn any_fuzz_input_decodes(data in vec(any::<u8>(), 0..400)) {
        if let Some(rendered) = decode_call(&data) {
            checks::well_formed(&rendered);
        }
    }

    #[test]
    fn capturing_asks_for_no_more_than_there_may_be(
        registers in registers(), words in vec(word(), 0..40), room in 0..2 * MAX_SEGMENTS, exit in any::<bool>()
    ) {
        let mut reader = Hostile { words, next: 0.into(), room, asked: 0 };
        let phase = if exit { Phase::Exit } else { Phase::Entry };
        capture(&XEN, &registers, phase, &mut reader);
        prop_assert!(reader.asked <= room.min(MAX_SEGMENTS) + 1);
        prop_assert!(reader.next.get() < 100_000, "{} words read", reader.next.get());
    }

    #[test]
    fn a_capture_is_bounded_and_can_be_read(registers in registers(), memory in memory()) {
        let turn = memory.len().max(1) as u64 * 2;
        let mut copier = Copier::new(|gva: u64| memory.get((gva % turn) as usize).copied());
        capture(&XEN, &registers, Phase::Entry, &mut copier);
        let wire = copier.out;
        prop_assert_eq!(Segments(&wire).iter().count(), copier.pieces.len());
        prop_assert!(copier.pieces.len() <= MAX_SEGMENTS);
        prop_assert!(copier.pieces.iter().all(|(_, len)| *len <= MAX_SEGMENT_BYTES as usize));
        checks::well_formed(&render(registers, &wire, &wire));
    }

    /// If Xen changes nothing, nothing is shown as changed; and what can be read is not called unreadable.
    #[test]
    fn unchanged_memory_shows_no_change(registers in registers(), mut memory in memory()) {
        // No arrow may stand in the guest's own texts.
        memory.iter_mut().filter(|byte| **byte == b'>').for_each(|byte| *byte = b'?');
        memory.push(0);
        let len = memory.len() as u64;
        let copy = |phase| {
            let mut copier = Copier::new(|gva: u64| memory.get((gva % len) as usize).copied());
            capture(&XEN, &registers, phase, &mut copier);
            copier.out
        };
        let rendered = render(registers, &copy(Phase::Entry), &copy(Phase::Exit));
        checks::well_formed(&rendered);
        prop_assert!(!rendered.full.contains("->"), "{}", rendered.full);
        prop_assert!(!rendered.full.contains("unreadable"), "{}", rendered.full);
    }

    /// What the guest has put into its memory is what is read, whatever the caller's width.
    #[test]
    fn a_call_comes_back_as_it_was_passed(
        dom in 0..0x7ff0_u16, remote in 0..0x7ff0_u16, port in any::<u32>(), narrow in any::<bool>()
    ) {
        let width = if narrow { Width::Bits32 } else { Width::Bits64 };
        let registers = Registers { number: 32, args: [6, 0x1000, 0, 0, 0, 0], width };
        let mut before = [dom.to_le_bytes(), remote.to_le_bytes()].concat();
        before.extend([0xee; 4]);
        let mut after = before.clone();
        after[4..].copy_from_slice(&port.to_le_bytes());
        let copy = |memory: &[u8], phase| {
            let byte = |gva: u64| memory.get(gva.checked_sub(0x1000)? as usize).copied();
            let mut copier = Copier::new(byte);
            capture(&XEN, &registers, phase, &mut copier);
            copier.out
        };
        let (entry, exit) = (copy(&before, Phase::Entry), copy(&after, Phase::Exit));
        let start = format!("event_channel_op(cmd=EVTCHNOP_alloc_unbound, arg={{dom={dom}, remote_dom={remote}");
        prop_assert_eq!(render(registers, &entry, &[]).full, format!("{start}}})"));
        prop_assert_eq!(render(registers, &entry, &exit).full, format!("{start}, port={port}}})"));
    }
}
