//! The stack machine that evaluates a condition.
//!
//! Total by construction: every access to stack, constants, instructions and captured bytes is checked, and each
//! instruction costs at least one step of a budget. A program that `wire` has let through never meets a failing check.

use hypovisor_abi::SubOpFrom;
use hypovisor_abi::capture::register_sub_op;
use hypovisor_abi::decode::{Call, identify};
use hypovisor_abi::errno;
use hypovisor_abi::xen::XEN;

use crate::facts::{Facts, Moment};
use crate::op::{Fact, LoopSpec, Op, Range};

mod arithmetic;
mod cursor;
mod loops;
mod memory;

use self::cursor::{Cursor, integer};
use self::loops::LoopState;

/// Steps that one condition may take for one call: at some 3 ns each, 50 µs.
pub const MAX_STEPS_PER_RULE: u32 = 16_384;
/// Steps that all conditions together may take for one call.
pub const MAX_STEPS_PER_CALL: u32 = 65_536;
/// Values on the stack.
pub const MAX_STACK: usize = 32;
/// Loops inside each other.
pub const MAX_LOOPS: usize = 2;

/// Stands for a value that is not at hand. No C integer, and no exact result that is kept, is that small.
const ABSENT: i128 = i128::MIN;

/// A condition's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    Yes,
    No,
    Undecided,
    OverBudget,
}

/// What the instructions of a set refer to.
#[derive(Clone, Copy)]
pub(crate) struct Code<'s> {
    pub(crate) ops: &'s [Op],
    pub(crate) constants: &'s [i128],
    pub(crate) loops: &'s [LoopSpec],
}

/// Evaluates conditions of one call, one after the other.
pub(crate) struct Machine<'a, 's> {
    code: Code<'s>,
    facts: &'a Facts<'a>,
    moment: Moment,
    /// Found out when it is first asked for.
    sub_op: Option<Option<u64>>,
    stack: [i128; MAX_STACK],
    height: usize,
    cursor: Option<Cursor<'a>>,
    loops: [Option<LoopState<'a>>; MAX_LOOPS],
    /// Steps taken for the condition.
    pub(crate) steps: u32,
}

impl<'a, 's> Machine<'a, 's> {
    pub(crate) const fn new(
        code: Code<'s>,
        facts: &'a Facts<'a>,
        moment: Moment,
        sub_op: Option<Option<u64>>,
    ) -> Self {
        Self {
            code,
            facts,
            moment,
            sub_op,
            stack: [0; MAX_STACK],
            height: 0,
            cursor: None,
            loops: [None; MAX_LOOPS],
            steps: 0,
        }
    }

    /// Runs a program. `budget` bounds the steps.
    pub(crate) fn run(&mut self, program: Range, budget: u32) -> Truth {
        self.height = 0;
        self.cursor = None;
        self.steps = 0;
        let mut at = program.start;
        let end = program.start.saturating_add(program.len);
        while at < end {
            self.steps += 1;
            if self.steps > budget {
                return Truth::OverBudget;
            }
            let Some(op) = self.code.ops.get(at as usize) else { return Truth::Undecided };
            at = self.step(*op, at);
        }
        match self.pop() {
            ABSENT => Truth::Undecided,
            0 => Truth::No,
            _ => Truth::Yes,
        }
    }

    /// The call's sub-op number.
    pub(crate) fn sub_op(&mut self) -> Option<u64> {
        if self.sub_op.is_none() {
            self.sub_op = Some(sub_op_number(self.facts.call));
        }
        self.sub_op.flatten()
    }

    #[inline]
    fn push(&mut self, value: i128) {
        if let Some(slot) = self.stack.get_mut(self.height) {
            *slot = value;
            self.height += 1;
        }
    }

    #[inline]
    fn pop(&mut self) -> i128 {
        self.height = self.height.saturating_sub(1);
        self.stack.get(self.height).copied().unwrap_or(ABSENT)
    }

    #[inline]
    fn top(&self) -> i128 {
        self.height.checked_sub(1).and_then(|top| self.stack.get(top)).copied().unwrap_or(ABSENT)
    }

    fn push_some(&mut self, value: Option<i128>) {
        self.push(value.unwrap_or(ABSENT));
    }

    /// Carries out one instruction; returns which comes next.
    #[inline(always)]
    fn step(&mut self, op: Op, at: u32) -> u32 {
        match op {
            Op::Const { index } => {
                let value = self.constant(index);
                self.push(value);
            }
            Op::Absent {} => self.push(ABSENT),
            Op::Fact { fact } => {
                let value = self.fact(fact);
                self.push_some(value);
            }
            Op::RawArg { index } => self.push(i128::from(self.facts.call.registers.arg(index))),
            Op::Register { index, bytes, signed } => self.push(self.register(index, bytes, signed)),
            Op::Element { slot } => self.cursor = self.element(slot),
            Op::Follow { entry, exit } => self.follow(entry, exit),
            Op::Move { bytes } => self.cursor = self.cursor.map(|cursor| cursor.moved(u64::from(bytes))),
            Op::Tag { .. } | Op::TagSubOp { .. } => self.tag(op),
            Op::Load { bytes, signed, side } => {
                let value = self.cursor.and_then(|cursor| integer(cursor.bytes(side), bytes, signed));
                self.push_some(value);
            }
            Op::Place {}
            | Op::Size { .. }
            | Op::Unreadable { .. }
            | Op::Changed { .. }
            | Op::AtHand { .. } => {
                let value = self.memory(op);
                self.push_some(value);
            }
            Op::JumpIfFalse { to } if self.top() == 0 => return to,
            Op::JumpIfTrue { to } if self.top() == 1 => return to,
            Op::JumpIfPresent { to } if self.top() != ABSENT => return to,
            Op::JumpIfFalse { .. } | Op::JumpIfTrue { .. } => {}
            Op::JumpIfPresent { .. } => {
                self.pop();
            }
            Op::Branch { otherwise, end } => return self.branch(at, otherwise, end),
            Op::Jump { to } => return to,
            Op::Loop { index } => return self.begin(index, at),
            Op::Next { index } => return self.next(index),
            Op::Equal {} => self.compare(|left, right| left == right),
            Op::NotEqual {} => self.compare(|left, right| left != right),
            Op::Less {} => self.compare(|left, right| left < right),
            Op::LessOrEqual {} => self.compare(|left, right| left <= right),
            Op::Greater {} => self.compare(|left, right| left > right),
            Op::GreaterOrEqual {} => self.compare(|left, right| left >= right),
            Op::Compare { how, index } => self.compare_with_constant(how, index),
            Op::And {} => self.join(0),
            Op::Or {} => self.join(1),
            _ => self.compute(op),
        }
        at + 1
    }

    /// `? :`: which comes next for the condition on the stack.
    #[inline(always)]
    fn branch(&mut self, at: u32, otherwise: u32, end: u32) -> u32 {
        match self.pop() {
            ABSENT => {
                self.push(ABSENT);
                end
            }
            0 => otherwise,
            _ => at + 1,
        }
    }

    /// `how` numbers the comparisons as [`Op::Compare`] says.
    #[inline(always)]
    fn compare_with_constant(&mut self, how: u8, index: u32) {
        let (right, left) = (self.constant(index), self.pop());
        let holds = match how {
            0 => left == right,
            1 => left != right,
            2 => left < right,
            3 => left <= right,
            4 => left > right,
            _ => left >= right,
        };
        self.push(if left == ABSENT { ABSENT } else { i128::from(holds) });
    }

    #[inline]
    fn compare(&mut self, holds: impl FnOnce(i128, i128) -> bool) {
        let (right, left) = (self.pop(), self.pop());
        let known = left != ABSENT && right != ABSENT;
        self.push(if known { i128::from(holds(left, right)) } else { ABSENT });
    }

    /// And, or or: `decisive` is the truth value that one side is enough for.
    #[inline]
    fn join(&mut self, decisive: i128) {
        let (right, left) = (self.pop(), self.pop());
        let value = if left == decisive || right == decisive {
            decisive
        } else if left == ABSENT || right == ABSENT {
            ABSENT
        } else {
            1 - decisive
        };
        self.push(value);
    }

    #[inline]
    fn constant(&self, index: u32) -> i128 {
        self.code.constants.get(index as usize).copied().unwrap_or(ABSENT)
    }

    fn constants(&self, start: u32, len: u32) -> &'s [i128] {
        let start = start as usize;
        self.code.constants.get(start..start.saturating_add(len as usize)).unwrap_or(&[])
    }

    fn fact(&mut self, fact: Fact) -> Option<i128> {
        let caller = &self.facts.caller;
        let end = self.facts.end.as_ref().filter(|_| self.moment == Moment::Return);
        Some(match fact {
            Fact::Domain => i128::from(caller.domain),
            Fact::Vcpu => i128::from(caller.vcpu),
            Fact::Pcpu => i128::from(self.facts.pcpu),
            Fact::Privileged => i128::from(self.facts.privileged),
            Fact::Kind => self.facts.kind as i128,
            Fact::Mode => caller.mode as i128,
            Fact::Cpl => i128::from(caller.cpl),
            Fact::Cs => i128::from(caller.cs),
            Fact::Rip => i128::from(caller.rip),
            Fact::Rsp => i128::from(caller.rsp),
            Fact::Number => i128::from(self.facts.call.registers.number),
            Fact::SubOp => i128::from(self.sub_op()?),
            Fact::Inner => i128::from(self.facts.inner),
            Fact::Continuation => i128::from(self.facts.continuation),
            Fact::Cut => i128::from(self.facts.cut),
            Fact::Result => i128::from(end?.result?),
            Fact::Errno => {
                let result = end?.result?;
                if errno::is_error(result) { -i128::from(result) } else { 0 }
            }
            Fact::Outcome => end?.outcome as i128,
            Fact::Duration => i128::from(end?.duration_ns?),
            Fact::KnownSubOp => i128::from(identify(&XEN, self.facts.call).sub_op?.number),
        })
    }

    fn register(&self, index: u8, bytes: u8, signed: bool) -> i128 {
        let registers = &self.facts.call.registers;
        let low = registers.arg(index);
        let wide = bytes == 8 && registers.width.word_bytes() == 4;
        let word = if wide { low | registers.arg(index.saturating_add(1)) << 32 } else { low };
        integer(&word.to_le_bytes(), bytes, signed).unwrap_or(ABSENT)
    }
}

/// The sub-op number of a call, from its registers if it stands there.
pub(crate) fn sub_op_number(call: &Call<'_>) -> Option<u64> {
    let hypercall = XEN.call(call.registers.number)?;
    match hypercall.sub_ops?.from {
        SubOpFrom::Arg { .. } => register_sub_op(hypercall, &call.registers),
        SubOpFrom::Memory { .. } | SubOpFrom::FirstBuffer { .. } => identify(&XEN, call).sub_op_number,
    }
}
