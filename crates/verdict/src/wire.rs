//! A rule set as bytes, and the checks that a set has to pass: it runs inside QEMU.
//!
//! ```text
//!  0        8          28            five counts of 4 bytes: actions, watches, instructions, constants, loops
//!  +--------+----------+---------+-----------+----------------+------------+---------+
//!  | magic  | counts   | actions | watches   | instructions   | constants  | loops   |
//!  +--------+----------+---------+-----------+----------------+------------+---------+
//!                       4 each    32 each     12 each          16 each      24 each      all little-endian
//! ```
//!
//! Instructions of a program are checked in order, with the height of the stack that each finds: it is the same on
//! every way there, never below what the instruction takes, and 1 at the end. Jumps go forward and stay inside their
//! program; a loop's end follows its `Next`.

use crate::facts::Moment;
use crate::op::{Encoded, LoopSpec, Op, Range, Side, Until};
use crate::set::{ANY, Action, MAX_OPS, MAX_RULES, MAX_WATCHES, Part, RuleIndex, SetBuilder, Watch};

mod check;

pub(crate) use self::check::check;

const MAGIC: [u8; 8] = *b"HVRULES1";

/// A rule set is not sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRules {
    /// It does not begin as a rule set does.
    #[error("no rule set of this version")]
    Magic,
    /// The bytes end too early, or there are more than the counts say.
    #[error("rule set of {bytes} bytes does not have the length that its counts say")]
    Length {
        /// How many bytes there are.
        bytes: usize,
    },
    /// A table has too many entries.
    #[error("rule set with {count} {what}, more than {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there can be.
        max: usize,
    },
    /// An entry of a table means nothing.
    #[error("{what} {index} of the rule set is malformed")]
    Entry {
        /// Of which table.
        what: &'static str,
        /// Which.
        index: usize,
    },
}

fn entry(what: &'static str, index: usize) -> MalformedRules {
    MalformedRules::Entry { what, index }
}

pub(crate) fn write(tables: &SetBuilder) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let counts = [
        tables.actions.len(),
        tables.watches.len(),
        tables.ops.len(),
        tables.constants.len(),
        tables.loops.len(),
    ];
    for count in counts {
        out.extend((count as u32).to_le_bytes());
    }
    for action in &tables.actions {
        write_action(&mut out, *action);
    }
    for watch in &tables.watches {
        write_watch(&mut out, watch);
    }
    for op in &tables.ops {
        write_op(&mut out, *op);
    }
    for constant in &tables.constants {
        out.extend(constant.to_le_bytes());
    }
    for spec in &tables.loops {
        write_loop(&mut out, spec);
    }
    out
}

fn write_action(out: &mut Vec<u8>, action: Action) {
    let (code, errno) = match action {
        Action::Alert => (0_u16, 0),
        Action::Deny { errno } => (1, errno),
        Action::Pause => (2, 0),
    };
    out.extend(code.to_le_bytes());
    out.extend(errno.to_le_bytes());
}

const COUNTS: u8 = 1;
const AT_RETURN: u8 = 2;
const HAS_SUB_OP: u8 = 4;

fn write_watch(out: &mut Vec<u8>, watch: &Watch) {
    let mut flags = if watch.part.counts { COUNTS } else { 0 };
    flags |= if watch.moment == Moment::Return { AT_RETURN } else { 0 };
    flags |= if watch.sub_op.is_some() { HAS_SUB_OP } else { 0 };
    out.extend(watch.part.rule.0.to_le_bytes());
    out.extend(watch.number.unwrap_or(ANY).to_le_bytes());
    out.extend([watch.part.step, flags, 0, 0]);
    out.extend(watch.sub_op.unwrap_or(0).to_le_bytes());
    for program in watch.programs {
        out.extend(program.start.to_le_bytes());
        out.extend(program.len.to_le_bytes());
    }
}

fn write_op(out: &mut Vec<u8>, op: Op) {
    let Encoded { code, a, b, c, x, y } = op.encode();
    out.extend([code, a, b, c]);
    out.extend(x.to_le_bytes());
    out.extend(y.to_le_bytes());
}

fn write_loop(out: &mut Vec<u8>, spec: &LoopSpec) {
    let until = spec.until.unwrap_or(Until { offset: 0, bytes: 0 });
    out.extend([spec.slot, spec.side as u8, u8::from(spec.all), until.bytes]);
    for word in [spec.size, spec.limit, until.offset, spec.start, spec.end] {
        out.extend(word.to_le_bytes());
    }
}

/// Reads fields one after the other. The total length is checked before, so a missing one reads as 0.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((bytes, rest)) => {
                self.0 = rest;
                *bytes
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn table<T>(
        &mut self,
        what: &'static str,
        count: usize,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Result<Vec<T>, MalformedRules> {
        (0..count).map(|index| read(self).ok_or_else(|| entry(what, index))).collect()
    }
}

pub(crate) fn read(bytes: &[u8]) -> Result<SetBuilder, MalformedRules> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(MalformedRules::Magic)?;
    let mut input = Input(rest);
    let counts: [usize; 5] = std::array::from_fn(|_| input.u32() as usize);
    let limits = [
        ("actions", MAX_RULES),
        ("watches", MAX_WATCHES),
        ("instructions", MAX_OPS),
        ("constants", MAX_OPS),
        ("loops", MAX_OPS),
    ];
    for ((what, max), count) in limits.into_iter().zip(counts) {
        if count > max {
            return Err(MalformedRules::TooMany { what, count, max });
        }
    }
    let sizes = [4, 32, 12, 16, 24];
    let needed: usize = sizes.into_iter().zip(counts).map(|(size, count)| size * count).sum();
    if rest.len() != 20 + needed {
        return Err(MalformedRules::Length { bytes: bytes.len() });
    }
    let [actions, watches, ops, constants, loops] = counts;
    Ok(SetBuilder {
        actions: input.table("action", actions, read_action)?,
        watches: input.table("watch", watches, read_watch)?,
        ops: input.table("instruction", ops, read_op)?,
        constants: input.table("constant", constants, |input| Some(i128::from_le_bytes(input.bytes())))?,
        loops: input.table("loop", loops, read_loop)?,
    })
}

fn read_action(input: &mut Input<'_>) -> Option<Action> {
    match (input.u16(), input.u16()) {
        (0, 0) => Some(Action::Alert),
        (1, errno) => Some(Action::Deny { errno }),
        (2, 0) => Some(Action::Pause),
        _ => None,
    }
}

fn read_watch(input: &mut Input<'_>) -> Option<Watch> {
    let (rule, number) = (input.u16(), input.u16());
    let [step, flags, zero, nought] = input.bytes();
    let sub_op = u64::from_le_bytes(input.bytes());
    let programs = std::array::from_fn(|_| Range { start: input.u32(), len: input.u32() });
    let sound = zero == 0 && nought == 0 && flags & !(COUNTS | AT_RETURN | HAS_SUB_OP) == 0;
    let has_sub_op = flags & HAS_SUB_OP != 0;
    (sound && (has_sub_op || sub_op == 0)).then_some(Watch {
        part: Part { rule: RuleIndex(rule), step, counts: flags & COUNTS != 0 },
        number: (number != ANY).then_some(number),
        sub_op: has_sub_op.then_some(sub_op),
        moment: if flags & AT_RETURN == 0 { Moment::Entry } else { Moment::Return },
        programs,
    })
}

fn read_op(input: &mut Input<'_>) -> Option<Op> {
    let [code, a, b, c] = input.bytes();
    Op::decode(Encoded { code, a, b, c, x: input.u32(), y: input.u32() })
}

fn read_loop(input: &mut Input<'_>) -> Option<LoopSpec> {
    let [slot, side, all, until_bytes] = input.bytes();
    let [size, limit, offset, start, end] = std::array::from_fn(|_| input.u32());
    let until = (until_bytes > 0).then_some(Until { offset, bytes: until_bytes });
    let sound = all <= 1 && (until_bytes > 0 || offset == 0);
    let side = *Side::ALL.get(usize::from(side))?;
    sound.then_some(LoopSpec { slot, side, all: all == 1, size, limit, until, start, end })
}

#[cfg(test)]
mod tests;
