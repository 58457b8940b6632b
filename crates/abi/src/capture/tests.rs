//! What is captured, and what never is.

use super::{
    MAX_SEGMENT_BYTES, MAX_SEGMENTS, Phase, Piece, Plan, Reader, Segments, UNREADABLE, Wanted, capture,
};
use crate::made_up::{ABI, BUFFERS, Guest, IN_OUT, LISTS, MEMORY, REGISTER, TAIL, UNKNOWN, registers};

fn addresses(wire: &[u8]) -> Vec<(u64, u32, usize)> {
    Segments(wire).iter().map(|s| (s.gva, s.requested, s.bytes.len())).collect()
}

fn list(items: u64, nr: u32, kind: u32, u: u64) -> Vec<u8> {
    let mut bytes = items.to_le_bytes().to_vec();
    bytes.extend(nr.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(u.to_le_bytes());
    bytes
}

#[test]
fn handles_in_handles_are_followed() {
    let mut item = 3_u64.to_le_bytes().to_vec();
    item.extend(0x3000_u64.to_le_bytes());
    let guest = Guest::default()
        .with(0x1000, list(0x2000, 1, 2, 0x4000))
        .with(0x2000, item)
        .with(0x3000, [1, 2, 3])
        .with(0x4000, b"hi\0garbage");
    let wire = guest.capture(&registers(LISTS, &[0x1000, 1]), Phase::Entry);
    assert_eq!(addresses(&wire), [(0x1000, 24, 24), (0x2000, 16, 16), (0x3000, 3, 3), (0x4000, 16, 3)]);
}

#[test]
fn the_union_member_that_the_tag_does_not_pick_is_not_followed() {
    let guest = Guest::default().with(0x1000, list(0, 0, 1, 0x4000)).with(0x4000, b"hi\0");
    let wire = guest.capture(&registers(LISTS, &[0x1000, 1]), Phase::Entry);
    assert_eq!(addresses(&wire), [(0x1000, 24, 24)]);
}

#[test]
fn a_union_that_the_sub_op_in_memory_picks_is_followed() {
    let guest = Guest::default().words(0x1000, &[5, 4, 0x2000, 0]).with(0x2000, [9; 4]);
    let wire = guest.capture(&registers(MEMORY, &[0x1000]), Phase::Entry);
    assert_eq!(addresses(&wire), [(0x1000, 16, 16), (0x2000, 4, 4)]);
}

#[test]
fn the_first_buffer_is_captured_as_what_it_holds() {
    let guest = Guest::default()
        .words(0x1000, &[0x2000, 0, 4, 0, 0x3000, 0, 2, 0])
        .words(0x2000, &[3, 1, 2])
        .with(0x3000, [8; 4]);
    let wire = guest.capture(&registers(BUFFERS, &[1, 2, 0x1000]), Phase::Entry);
    assert_eq!(addresses(&wire), [(0x1000, 32, 32), (0x2000, 12, 12), (0x3000, 2, 2)]);
}

#[test]
fn a_tail_is_captured_where_the_struct_ends() {
    let guest = Guest::default().words(0x1000, &[2, 10, 11, 12, 13]);
    let wire = guest.capture(&registers(TAIL, &[0x1000]), Phase::Entry);
    assert_eq!(addresses(&wire), [(0x1000, 4, 4), (0x1004, 16, 16)]);
}

#[test]
fn what_cannot_be_read_is_marked() {
    let guest = Guest::default().with(0x1000, [0; 10]);
    let wire = guest.capture(&registers(LISTS, &[0x1000, 1]), Phase::Entry);
    let segment = Segments(&wire).find(0x1000).unwrap();
    assert!(segment.unreadable);
    assert_eq!((segment.requested, segment.bytes.len()), (24, 10));
    let nothing = Guest::default().capture(&registers(LISTS, &[0x1000, 1]), Phase::Entry);
    assert_eq!(
        Segments(&nothing).iter().map(|s| (s.bytes.len(), s.unreadable)).collect::<Vec<_>>(),
        [(0, true)]
    );
}

#[test]
fn null_empty_and_unknown_need_nothing() {
    let guest = Guest::default();
    for (number, args) in
        [(LISTS, [0, 1]), (LISTS, [0x1000, 0]), (UNKNOWN, [0x1000, 1]), (REGISTER, [9, 0x1000])]
    {
        assert!(guest.capture(&registers(number, &args), Phase::Entry).is_empty());
    }
    let plan = Plan::new(&ABI);
    assert!(!plan.wanted(&registers(LISTS, &[0, 1])).entry);
    assert_eq!(plan.wanted(&registers(UNKNOWN, &[1, 1])), Wanted::default());
    assert!(plan.wanted(&registers(IN_OUT, &[1])).exit);
}

#[test]
fn a_list_of_segments_ends_at_the_first_that_does_not_fit() {
    let mut wire =
        Guest::default().with(0x1000, [7; 64]).capture(&registers(IN_OUT, &[0x1000]), Phase::Entry);
    let whole = wire.len();
    wire.extend(0x2000_u64.to_le_bytes());
    wire.extend(8_u32.to_le_bytes());
    wire.extend((8 | UNREADABLE).to_le_bytes());
    wire.extend([1; 7]);
    assert_eq!(Segments(&wire).iter().count(), 1);
    for cut in 0..whole {
        assert_eq!(Segments(&wire[..cut]).iter().count(), 0);
    }
}

/// Grants everything, and says of every word that it is this.
struct Hostile {
    word: u64,
    asked: Vec<u64>,
    room: usize,
}

impl Reader for Hostile {
    fn capture(&mut self, _gva: u64, len: u64) -> Option<Piece> {
        self.asked.push(len);
        (self.asked.len() <= self.room).then_some(Piece(0))
    }

    fn capture_text(&mut self, gva: u64, max: u32) -> Option<Piece> {
        self.capture(gva, u64::from(max))
    }

    fn integer(&self, _piece: Piece, _offset: u64, _bytes: u32) -> Option<u64> {
        Some(self.word)
    }
}

#[test]
fn a_reader_that_never_refuses_is_not_asked_for_ever() {
    for word in [1, 2, 0x1000, u64::MAX] {
        let mut reader = Hostile { word, asked: Vec::new(), room: usize::MAX };
        capture(&ABI, &registers(LISTS, &[0x1000, u64::MAX]), Phase::Entry, &mut reader);
        assert!(reader.asked.len() <= MAX_SEGMENTS + 1, "{} pieces", reader.asked.len());
    }
}

#[test]
fn nothing_is_asked_for_behind_a_refusal() {
    let mut reader = Hostile { word: 2, asked: Vec::new(), room: 3 };
    capture(&ABI, &registers(LISTS, &[0x1000, 8]), Phase::Entry, &mut reader);
    assert_eq!(reader.asked.len(), 4);
}

#[test]
fn a_huge_count_is_cut_by_the_reader_and_kept_as_wish() {
    let guest = Guest::default().with(0x1000, vec![0; 2 * MAX_SEGMENT_BYTES as usize]);
    let wire = guest.capture(&registers(LISTS, &[0x1000, u64::MAX]), Phase::Entry);
    assert_eq!(addresses(&wire)[0], (0x1000, u32::MAX, MAX_SEGMENT_BYTES as usize));
}
