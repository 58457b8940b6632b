//! A compiled rule set: which conditions concern a call, and what they say of it.
//!
//! A *watch* is one condition for one hypercall, sub-op or every call, with a program for each width of caller. A rule
//! has one for each call it names, and a sequence so many for each of its steps.
//!
//! ```text
//!   by_number[12] ─▶ watches of call 12 without sub-op │ sub-op 0 │ … │ sub-op 28      sorted
//!   any           ─▶ watches of every call
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use hypovisor_abi::SubOpFrom;
use hypovisor_abi::capture::Registers;
use hypovisor_abi::xen::XEN;

use crate::facts::{Facts, Moment};
use crate::machine::{Code, Machine, sub_op_number};
use crate::op::{LoopSpec, Op, Range};
use crate::wire::{self, MalformedRules};

mod round;

use self::round::Round;

/// The most rules a set holds.
pub const MAX_RULES: usize = 4096;
/// The most watches a set holds.
pub const MAX_WATCHES: usize = 65_536;
/// The most instructions, constants and loops a set holds, of each.
pub const MAX_OPS: usize = 4 << 20;
/// A rule can name the hypercalls below this number; of Xen's, 55 is the last.
pub const NUMBERS: usize = 256;
/// The number of a watch that concerns every call.
pub(crate) const ANY: u16 = u16::MAX;

/// Position of a rule in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub u16);

/// What to do with a call that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Tell.
    Alert,
    /// Have the call fail.
    Deny {
        /// The positive errno the guest gets.
        errno: u16,
    },
    /// Stop L1 before the call runs.
    Pause,
}

impl Action {
    /// Whether the sensor has to act before the call runs.
    #[must_use]
    pub const fn blocks(self) -> bool {
        !matches!(self, Self::Alert)
    }
}

/// Which of a rule's conditions a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The rule.
    pub rule: RuleIndex,
    /// The step of its sequence, from 0; 0 in a rule without one.
    pub step: u8,
    /// A match alone does not make the rule match: it counts for a rate or a sequence.
    pub counts: bool,
}

/// A condition for some calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Whose condition it is.
    pub part: Part,
    /// The hypercall's number, below [`NUMBERS`]; `None`: every call.
    pub number: Option<u16>,
    /// The sub-op; `None`: every one, also none.
    pub sub_op: Option<u64>,
    /// When it is judged.
    pub moment: Moment,
    /// The programs for 64-bit and 32-bit callers. An empty one is always true.
    pub programs: [Range; 2],
}

impl Watch {
    pub(crate) fn key(&self) -> (u16, Option<u64>, Part) {
        (self.number.unwrap_or(ANY), self.sub_op, self.part)
    }
}

/// What a condition says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds.
    Match,
    /// It depends on a value that is not at hand.
    Undecided,
    /// It took more than [`MAX_STEPS_PER_RULE`] steps, or most of [`MAX_STEPS_PER_CALL`]: to be switched off.
    OverBudget,
    /// It was not judged, because other conditions had used up the call's steps.
    Skipped,
}

/// Sums over the conditions judged for one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Steps taken.
    pub steps: u32,
    /// Conditions that depend on values that are not at hand.
    pub undecided: u32,
    /// Conditions that were not judged, because others had used up the call's steps.
    pub skipped: u32,
    /// A rule that took too many steps. The caller should [`RuleSet::switch_off`] it and say so.
    pub over_budget: Option<RuleIndex>,
}

/// The tables of a set before they are sorted and checked: what a compiler fills in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetBuilder {
    /// Instructions of all programs.
    pub ops: Vec<Op>,
    /// What they refer to.
    pub constants: Vec<i128>,
    /// What they refer to.
    pub loops: Vec<LoopSpec>,
    /// What each rule does.
    pub actions: Vec<Action>,
    /// The conditions, in any order.
    pub watches: Vec<Watch>,
}

impl SetBuilder {
    /// Sorts and checks the tables.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn build(mut self) -> Result<RuleSet, MalformedRules> {
        self.watches.sort_by_key(Watch::key);
        wire::check(&self)?;
        Ok(RuleSet::of(self))
    }
}

/// A compiled rule set.
#[derive(Debug)]
pub struct RuleSet {
    pub(crate) tables: SetBuilder,
    /// For each number below [`NUMBERS`] its watches.
    by_number: Box<[Range]>,
    /// For each number below [`NUMBERS`] which of its sub-ops have watches, if a register tells the sub-op.
    sub_ops: Box<[SubOps]>,
    /// The watches of every call.
    any: Range,
    /// A bit for each rule that is switched off.
    off: Box<[AtomicU64]>,
}

/// Which sub-operations of a hypercall have watches.
#[derive(Clone, Copy, Debug)]
struct SubOps {
    /// The argument register that holds the sub-op, and the bits of it that count.
    register: u8,
    mask: u64,
    /// A bit for each sub-op below 64; higher ones count as watched.
    watched: u64,
}

impl SubOps {
    /// Nothing is known: every sub-op may be watched.
    const ALL: Self = Self { register: 0, mask: 0, watched: u64::MAX };

    fn of(number: u16, watches: &[Watch]) -> Self {
        let from = XEN.call(u64::from(number)).and_then(|call| call.sub_ops).map(|ops| ops.from);
        let Some(SubOpFrom::Arg { index, mask }) = from else { return Self::ALL };
        let bit = |watch: &Watch| watch.sub_op.filter(|sub_op| *sub_op < 64).map(|sub_op| 1 << sub_op);
        let high_or_every = watches.iter().any(|watch| watch.sub_op.is_none_or(|sub_op| sub_op >= 64));
        let watched = watches.iter().filter_map(bit).fold(0, |all, bit: u64| all | bit);
        Self { register: index, mask, watched: if high_or_every { u64::MAX } else { watched } }
    }

    #[inline]
    fn has(&self, registers: &Registers) -> bool {
        let sub_op = registers.arg(self.register) & self.mask;
        sub_op >= 64 || self.watched & 1 << sub_op != 0
    }
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::of(SetBuilder::default())
    }
}

impl Clone for RuleSet {
    fn clone(&self) -> Self {
        let off = self.off.iter().map(|word| AtomicU64::new(word.load(Ordering::Relaxed))).collect();
        let (by_number, sub_ops) = (self.by_number.clone(), self.sub_ops.clone());
        Self { tables: self.tables.clone(), by_number, sub_ops, any: self.any, off }
    }
}

/// Equal if they judge alike; which rules are switched off does not count.
impl PartialEq for RuleSet {
    fn eq(&self, other: &Self) -> bool {
        self.tables == other.tables
    }
}

impl RuleSet {
    fn of(tables: SetBuilder) -> Self {
        let range = |number: u16| {
            let start = tables.watches.partition_point(|watch| watch.key().0 < number);
            let end = tables.watches.partition_point(|watch| watch.key().0 <= number);
            Range { start: start as u32, len: (end - start) as u32 }
        };
        let by_number = (0..NUMBERS as u16).map(range).collect();
        let any = range(ANY);
        let sub_ops = (0..NUMBERS as u16)
            .map(|number| {
                let Range { start, len } = range(number);
                let watches = tables.watches.get(start as usize..(start + len) as usize);
                SubOps::of(number, watches.unwrap_or(&[]))
            })
            .collect();
        let off = (0..tables.actions.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { tables, by_number, sub_ops, any, off }
    }

    /// Whether there is nothing to judge.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.watches.is_empty()
    }

    /// How many rules there are, also those without a condition to judge here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.actions.len()
    }

    /// Whether any rule concerns calls of this number. The hot path's first question: one look into a table.
    #[must_use]
    #[inline]
    pub fn interested(&self, number: u64) -> bool {
        self.any.len > 0 || self.of_number(number).len > 0
    }

    /// As [`RuleSet::interested`], by the registers: not for calls of a sub-op that no rule concerns.
    #[must_use]
    #[inline]
    pub fn concerns(&self, registers: &Registers) -> bool {
        self.any.len > 0 || (self.of_number(registers.number).len > 0 && self.concerns_sub_op(registers))
    }

    #[inline]
    fn concerns_sub_op(&self, registers: &Registers) -> bool {
        let number = usize::try_from(registers.number).ok();
        number.and_then(|number| self.sub_ops.get(number)).is_none_or(|sub_ops| sub_ops.has(registers))
    }

    #[inline]
    fn of_number(&self, number: u64) -> Range {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.by_number.get(number))
            .copied()
            .unwrap_or_default()
    }

    /// What to do with a call that `rule` matches; [`Action::Alert`] beyond the last.
    #[must_use]
    pub fn action(&self, rule: RuleIndex) -> Action {
        self.tables.actions.get(usize::from(rule.0)).copied().unwrap_or(Action::Alert)
    }

    /// Has `rule` never match again in this set.
    pub fn switch_off(&self, rule: RuleIndex) {
        if let Some(word) = self.off.get(usize::from(rule.0 / 64)) {
            word.fetch_or(1 << (rule.0 % 64), Ordering::Relaxed);
        }
    }

    /// Whether `rule` is switched off.
    #[must_use]
    pub fn is_off(&self, rule: RuleIndex) -> bool {
        let word = self.off.get(usize::from(rule.0 / 64)).map_or(0, |word| word.load(Ordering::Relaxed));
        word & 1 << (rule.0 % 64) != 0
    }

    /// Judges the conditions that concern a call at this moment. `matched` hears of rules whose condition alone makes
    /// them match: not of those with a rate or a sequence.
    pub fn judge(&self, facts: &Facts<'_>, moment: Moment, matched: &mut dyn FnMut(RuleIndex)) -> Judged {
        self.judge_parts(facts, moment, &mut |part, standing| {
            if standing == Standing::Match && !part.counts {
                matched(part.rule);
            }
        })
    }

    /// As [`RuleSet::judge`], with what each condition says unless it does not hold.
    pub fn judge_parts(
        &self,
        facts: &Facts<'_>,
        moment: Moment,
        heard: &mut dyn FnMut(Part, Standing),
    ) -> Judged {
        let mut judged = Judged::default();
        let own = self.of_number(facts.call.registers.number);
        if own.len == 0 && self.any.len == 0 {
            return judged;
        }
        let (concerned, sub_op) = self.concerned(own, facts);
        if !concerned.iter().any(|watches| watches.iter().any(|watch| watch.moment == moment)) {
            return judged;
        }
        let code =
            Code { ops: &self.tables.ops, constants: &self.tables.constants, loops: &self.tables.loops };
        let mut machine = Machine::new(code, facts, moment, sub_op);
        let mut round = Round { set: self, machine: &mut machine, facts, moment, costliest: (0, None) };
        for watches in concerned {
            for watch in watches {
                if let Some(standing) = round.watch(watch, &mut judged) {
                    heard(watch.part, standing);
                }
            }
        }
        judged
    }

    /// The watches of the call without its sub-op, those of its sub-op, and those of every call; and the sub-op, if it
    /// had to be found out.
    fn concerned(&self, own: Range, facts: &Facts<'_>) -> ([&[Watch]; 3], Option<Option<u64>>) {
        let own = self.watches(own);
        let (whole, by_sub_op) = own.split_at(own.partition_point(|watch| watch.sub_op.is_none()));
        let sub_op = (!by_sub_op.is_empty()).then(|| sub_op_number(facts.call));
        let of_sub_op = sub_op.flatten().map_or(&[][..], |number| {
            let start = by_sub_op.partition_point(|watch| watch.sub_op < Some(number));
            let end = by_sub_op.partition_point(|watch| watch.sub_op <= Some(number));
            by_sub_op.get(start..end).unwrap_or(&[])
        });
        ([whole, of_sub_op, self.watches(self.any)], sub_op)
    }

    fn watches(&self, range: Range) -> &[Watch] {
        let start = range.start as usize;
        self.tables.watches.get(start..start + range.len as usize).unwrap_or(&[])
    }

    /// The set's wire form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::write(&self.tables)
    }

    /// Reads the wire form and checks all of it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedRules> {
        let tables = wire::read(bytes)?;
        wire::check(&tables)?;
        Ok(Self::of(tables))
    }
}
