//! Whether a set that came from elsewhere is sound: nothing in it leads outside of it, no program can fail.

use super::{MalformedRules, entry};
use crate::machine::{MAX_LOOPS, MAX_STACK};
use crate::op::{Op, Range};
use crate::set::{Action, MAX_RULES, NUMBERS, SetBuilder, Watch};

/// Checks all tables.
pub(crate) fn check(tables: &SetBuilder) -> Result<(), MalformedRules> {
    if tables.actions.len() > MAX_RULES {
        return Err(MalformedRules::TooMany { what: "actions", count: tables.actions.len(), max: MAX_RULES });
    }
    for (index, action) in tables.actions.iter().enumerate() {
        if let Action::Deny { errno } = action
            && !(1..=4095).contains(errno)
        {
            return Err(entry("action", index));
        }
    }
    for (index, spec) in tables.loops.iter().enumerate() {
        let until = spec.until.is_none_or(|until| (1..=8).contains(&until.bytes));
        if usize::from(spec.slot) >= MAX_LOOPS || spec.size == 0 || !until {
            return Err(entry("loop", index));
        }
    }
    if let Some(index) = tables.constants.iter().position(|constant| *constant == i128::MIN) {
        return Err(entry("constant", index));
    }
    for (index, watch) in tables.watches.iter().enumerate() {
        check_watch(tables, index, watch)?;
    }
    Ok(())
}

fn check_watch(tables: &SetBuilder, index: usize, watch: &Watch) -> Result<(), MalformedRules> {
    let rule = usize::from(watch.part.rule.0) < tables.actions.len();
    let number = watch.number.is_none_or(|number| usize::from(number) < NUMBERS);
    let sub_op = watch.sub_op.is_none() || watch.number.is_some();
    let sorted = index == 0 || tables.watches.get(index - 1).is_some_and(|last| last.key() <= watch.key());
    if !(rule && number && sub_op && sorted) {
        return Err(entry("watch", index));
    }
    for program in watch.programs {
        let end = program.start.checked_add(program.len).filter(|end| *end as usize <= tables.ops.len());
        if end.is_none() {
            return Err(entry("watch", index));
        }
        if program.len > 0 {
            Checker::new(tables, program).program()?;
        }
    }
    Ok(())
}

/// The most instructions a program has.
const MAX_PROGRAM: u32 = 16_384;

/// Checks one program.
struct Checker<'t> {
    tables: &'t SetBuilder,
    program: Range,
    /// The height of the stack in front of each instruction, as far as it is known, and behind the last.
    heights: Vec<Option<u8>>,
    /// The loops that are open, innermost last.
    open: Vec<u32>,
}

impl<'t> Checker<'t> {
    fn new(tables: &'t SetBuilder, program: Range) -> Self {
        let places = if program.len <= MAX_PROGRAM { program.len as usize + 1 } else { 0 };
        Self { tables, program, heights: vec![None; places], open: Vec::new() }
    }

    fn program(mut self) -> Result<(), MalformedRules> {
        if let Some(first) = self.heights.first_mut() {
            *first = Some(0);
        }
        for at in self.program.start..self.program.start + self.program.len {
            if self.instruction(at).is_none() {
                return Err(entry("instruction", at as usize));
            }
        }
        let end = self.heights.last().copied().flatten();
        if end == Some(1) && self.open.is_empty() {
            return Ok(());
        }
        Err(entry("instruction", self.program.start as usize))
    }

    fn instruction(&mut self, at: u32) -> Option<()> {
        let op = *self.tables.ops.get(at as usize)?;
        let height = self.heights.get((at - self.program.start) as usize).copied()??;
        self.operands(op)?;
        let (takes, leaves) = effect(op);
        let after = height.checked_sub(takes)?.checked_add(leaves)?;
        let falls_through = match op {
            Op::JumpIfFalse { to } | Op::JumpIfTrue { to } | Op::JumpIfPresent { to } => {
                self.reach(at, to, height)?;
                true
            }
            Op::Branch { otherwise, end } => {
                self.reach(at, otherwise, after)?;
                self.reach(at, end, height)?;
                true
            }
            Op::Jump { to } => {
                self.reach(at, to, height)?;
                false
            }
            Op::Loop { index } => {
                let spec = self.tables.loops.get(index as usize)?;
                let free = self.open.iter().all(|open| self.slot(*open) != Some(spec.slot));
                if spec.start != at || !free {
                    return None;
                }
                self.open.push(index);
                self.reach(at, spec.end, height + 1)?;
                true
            }
            Op::Next { index } => {
                let spec = self.tables.loops.get(index as usize)?;
                if self.open.pop() != Some(index) || spec.end != at + 1 {
                    return None;
                }
                // As the loop began: the body leaves its condition and nothing else.
                let begin = self.heights.get((spec.start.checked_sub(self.program.start)?) as usize)?;
                if *begin != Some(after) {
                    return None;
                }
                false
            }
            _ => true,
        };
        if falls_through { self.reach(at, at + 1, after) } else { Some(()) }
    }

    fn slot(&self, index: u32) -> Option<u8> {
        Some(self.tables.loops.get(index as usize)?.slot)
    }

    /// Notes that instruction `to` is reached from `at` with so many values on the stack.
    fn reach(&mut self, at: u32, to: u32, height: u8) -> Option<()> {
        if to <= at || usize::from(height) > MAX_STACK {
            return None;
        }
        // Nothing jumps out of a loop but its own end.
        if let Some(open) = self.open.last().and_then(|index| self.tables.loops.get(*index as usize))
            && to > open.end
        {
            return None;
        }
        let known = self.heights.get_mut((to - self.program.start) as usize)?;
        if known.is_some_and(|known| known != height) {
            return None;
        }
        *known = Some(height);
        Some(())
    }

    /// Whether an instruction's operands refer to what there is.
    fn operands(&self, op: Op) -> Option<()> {
        let constants = self.tables.constants.len() as u64;
        let within = |start: u32, len: u32| u64::from(start) + u64::from(len) <= constants;
        let sound = match op {
            Op::Const { index } => within(index, 1),
            Op::Compare { how, index } => how <= 5 && within(index, 1),
            Op::InSet { start, len } => within(start, len),
            Op::Tag { bytes, len, values, .. } => {
                len > 0 && (1..=8).contains(&bytes) && within(values, u32::from(len))
            }
            Op::TagSubOp { len, values, .. } => within(values, u32::from(len)),
            Op::Register { index, bytes, .. } => index < 6 && (1..=8).contains(&bytes),
            Op::RawArg { index } => index < 6,
            Op::Load { bytes, .. } => (1..=8).contains(&bytes),
            Op::Size { size, .. } => size > 0,
            Op::Element { slot } => self.open.iter().any(|open| self.slot(*open) == Some(slot)),
            _ => true,
        };
        sound.then_some(())
    }
}

/// How many values an instruction takes from the stack, and how many it leaves there.
const fn effect(op: Op) -> (u8, u8) {
    match op {
        Op::Const { .. }
        | Op::Absent {}
        | Op::Fact { .. }
        | Op::RawArg { .. }
        | Op::Register { .. }
        | Op::Load { .. }
        | Op::Place {}
        | Op::Size { .. }
        | Op::Changed { .. }
        | Op::AtHand { .. } => (0, 1),
        Op::Element { .. } | Op::Move { .. } | Op::Tag { .. } | Op::TagSubOp { .. } => (0, 0),
        Op::Follow { .. } | Op::JumpIfPresent { .. } | Op::Branch { .. } | Op::Next { .. } => (1, 0),
        Op::JumpIfFalse { .. } | Op::JumpIfTrue { .. } => (1, 1),
        Op::Jump { .. } | Op::Loop { .. } => (0, 0),
        Op::Unreadable { .. }
        | Op::Present {}
        | Op::OrFalse {}
        | Op::Truth {}
        | Op::Not {}
        | Op::Negate {}
        | Op::InXen {}
        | Op::Canonical {}
        | Op::InSet { .. }
        | Op::Compare { .. } => (1, 1),
        _ => (2, 1),
    }
}
