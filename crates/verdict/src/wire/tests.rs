//! Sets there and back, and sets that are refused.

use proptest::prelude::*;

use super::*;
use crate::op::Fact;
use crate::set::RuleSet;

/// A set with one rule whose program this is.
fn with_program(ops: Vec<Op>, loops: Vec<LoopSpec>) -> Result<RuleSet, MalformedRules> {
    let program = Range { start: 0, len: ops.len() as u32 };
    let part = Part { rule: RuleIndex(0), step: 0, counts: false };
    let watch =
        Watch { part, number: Some(12), sub_op: Some(11), moment: Moment::Entry, programs: [program; 2] };
    let actions = vec![Action::Deny { errno: 1 }];
    SetBuilder { ops, constants: vec![1, -1, 1 << 100], loops, actions, watches: vec![watch] }.build()
}

const LOOP: LoopSpec =
    LoopSpec { slot: 0, side: Side::Entry, all: true, size: 8, limit: 4, until: None, start: 2, end: 6 };

fn with_loop() -> Vec<Op> {
    vec![
        Op::RawArg { index: 0 },
        Op::Follow { entry: true, exit: false },
        Op::Loop { index: 0 },
        Op::Element { slot: 0 },
        Op::Load { bytes: 8, signed: true, side: Side::Entry },
        Op::Next { index: 0 },
    ]
}

#[test]
fn sound_sets_survive_the_wire() {
    let until = LoopSpec { until: Some(Until { offset: 4, bytes: 2 }), ..LOOP };
    for loops in [vec![LOOP], vec![until]] {
        let set = with_program(with_loop(), loops).unwrap();
        assert_eq!(RuleSet::from_bytes(&set.to_bytes()), Ok(set));
    }
    let empty = RuleSet::default();
    assert_eq!(RuleSet::from_bytes(&empty.to_bytes()), Ok(empty));
}

#[test]
fn unsound_programs_are_refused() {
    let number = Op::Const { index: 0 };
    let domain = Op::Fact { fact: Fact::Domain };
    for (what, ops) in [
        ("nothing left", vec![number, Op::Follow { entry: true, exit: true }]),
        ("two left", vec![number, number]),
        ("taken from nothing", vec![Op::Add {}]),
        ("no such constant", vec![Op::Const { index: 3 }]),
        ("no such register", vec![Op::RawArg { index: 6 }]),
        ("no such integer", vec![Op::Register { index: 0, bytes: 9, signed: false }]),
        ("a jump back", vec![number, Op::Jump { to: 0 }]),
        ("a jump out", vec![number, Op::JumpIfTrue { to: 9 }]),
        ("different heights", vec![number, Op::JumpIfTrue { to: 3 }, domain, Op::Not {}]),
        ("no way there", vec![number, Op::Jump { to: 3 }, number]),
        ("an element without a loop", vec![Op::Element { slot: 0 }, number]),
        ("a loop that does not end", with_loop()[..5].to_vec()),
        ("an end without a loop", vec![number, Op::Next { index: 0 }]),
        ("too high", vec![number; 40]),
        ("constants beyond the last", vec![number, Op::InSet { start: 1, len: u32::MAX }]),
        (
            "a mask without values",
            vec![Op::Tag { bytes: 4, negate: false, len: 0, relative: 0, values: 0 }, number],
        ),
    ] {
        assert!(with_program(ops, vec![LOOP]).is_err(), "{what}");
    }
    for (what, spec) in [
        ("no size", LoopSpec { size: 0, ..LOOP }),
        ("no such variable", LoopSpec { slot: 2, ..LOOP }),
        ("an end elsewhere", LoopSpec { end: 5, ..LOOP }),
        ("a start elsewhere", LoopSpec { start: 1, ..LOOP }),
    ] {
        assert!(with_program(with_loop(), vec![spec]).is_err(), "{what}");
    }
}

#[test]
fn lengths_and_counts_are_checked() {
    let bytes = with_program(with_loop(), vec![LOOP]).unwrap().to_bytes();
    assert_eq!(RuleSet::from_bytes(b"HVRULES0").err(), Some(MalformedRules::Magic));
    for len in 8..bytes.len() {
        assert!(RuleSet::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(RuleSet::from_bytes(&longer).err(), Some(MalformedRules::Length { bytes: longer.len() }));
    let mut huge = bytes;
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(RuleSet::from_bytes(&huge).err(), Some(MalformedRules::TooMany { .. })));
}

proptest! {
    #[test]
    fn every_instruction_survives_the_wire(code in 0_u8..60, a: u8, b: u8, c: u8, x: u32, y: u32) {
        if let Some(op) = Op::decode(Encoded { code, a, b, c, x, y }) {
            prop_assert_eq!(op.encode(), Encoded { code, a, b, c, x, y });
        }
    }

    /// What is let through comes back the same.
    #[test]
    fn what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0_usize..150) {
        let mut set = with_program(with_loop(), vec![LOOP]).unwrap().to_bytes();
        for (slot, byte) in set.iter_mut().skip(at).zip(&bytes) {
            *slot = *byte;
        }
        if let Ok(read) = RuleSet::from_bytes(&set) {
            prop_assert_eq!(read.to_bytes(), set);
        }
    }
}
