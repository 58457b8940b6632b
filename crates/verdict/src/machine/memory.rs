//! Instructions on captured memory: putting the cursor somewhere, and asking what is there.

use hypovisor_abi::capture::Segment;

use super::Machine;
use super::cursor::{Cursor, integer};
use crate::facts::Moment;
use crate::op::{Op, Side};

/// What following a pointer costs: a search through the segments.
const FOLLOW_STEPS: u32 = 4;

impl<'a> Machine<'a, '_> {
    pub(super) fn element(&self, slot: u8) -> Option<Cursor<'a>> {
        let state = self.loops.get(usize::from(slot)).copied().flatten()?;
        Some(state.base)
    }

    /// The segments captured at a guest address: at entry, and after the call.
    fn segments(&mut self, gva: i128, entry: bool, exit: bool) -> Option<[Option<Segment<'a>>; 2]> {
        self.steps += FOLLOW_STEPS;
        let gva = u64::try_from(gva).ok().filter(|gva| *gva != 0)?;
        let call = self.facts.call;
        let at_entry = if entry { call.entry.find(gva) } else { None };
        let at_exit = if exit && self.moment == Moment::Return { call.exit.find(gva) } else { None };
        (at_entry.is_some() || at_exit.is_some()).then_some([at_entry, at_exit])
    }

    pub(super) fn follow(&mut self, entry: bool, exit: bool) {
        let gva = self.pop();
        self.cursor = self.segments(gva, entry, exit).map(|sides| {
            let bytes = sides.map(|side| side.map_or(&[][..], |segment| segment.bytes));
            let requested = sides.map(|side| side.map_or(0, |segment| segment.requested));
            Cursor { entry: bytes[0], exit: bytes[1], requested, gva: gva as u64, offset: 0 }
        });
    }

    pub(super) fn tag(&mut self, op: Op) {
        let (selected, negate) = match op {
            Op::Tag { bytes, negate, len, relative, values } => {
                let word = self.cursor.and_then(|mut cursor| {
                    cursor.offset = cursor.offset.checked_add_signed(i64::from(relative))?;
                    integer(cursor.bytes(Side::Either), bytes, false)
                });
                let Some((mask, values)) = self.constants(values, u32::from(len)).split_first() else {
                    return;
                };
                (word.map(|word| values.contains(&(word & mask))), negate)
            }
            Op::TagSubOp { negate, len, values } => {
                let number = self.sub_op().map(i128::from);
                let values = self.constants(values, u32::from(len));
                (number.map(|number| values.contains(&number)), negate)
            }
            _ => return,
        };
        if selected.is_none_or(|selected| selected == negate) {
            self.cursor = None;
        }
    }

    /// What is asked of memory other than an integer.
    pub(super) fn memory(&mut self, op: Op) -> Option<i128> {
        match op {
            Op::Place {} => {
                let cursor = self.cursor?;
                let gva = cursor.gva.wrapping_add(cursor.offset);
                let narrow = self.facts.call.registers.width.word_bytes() == 4;
                Some(i128::from(if narrow { gva & 0xffff_ffff } else { gva }))
            }
            Op::Size { side, size, limit } => {
                let len = self.cursor?.bytes(side).len() as u64;
                Some(i128::from((len / u64::from(size.max(1))).min(u64::from(limit))))
            }
            Op::Unreadable { entry, exit } => {
                let gva = self.pop();
                if gva == 0 {
                    return Some(0);
                }
                let sides = self.segments(gva, entry, exit)?;
                Some(i128::from(sides.iter().flatten().any(|segment| segment.unreadable)))
            }
            Op::Changed { bytes } => {
                self.steps += bytes / 64;
                let cursor = self.cursor?;
                let part = |side| cursor.bytes(side).get(..bytes as usize);
                Some(i128::from(part(Side::Entry)? != part(Side::Exit)?))
            }
            Op::AtHand { side } => {
                Some(i128::from(self.cursor.is_some_and(|cursor| !cursor.bytes(side).is_empty())))
            }
            _ => None,
        }
    }
}
