//! Lays out instructions, constants and loops of a whole set.

use std::collections::HashMap;

use hypovisor_verdict::{LoopSpec, MAX_OPS, Op, Range, SetBuilder};

/// The most instructions of one program: fewer than a sensor takes, so that none it gets is refused.
const MAX_PROGRAM: u32 = 2048;

/// Instructions under construction.
#[derive(Default)]
pub(crate) struct Assembler {
    pub(crate) set: SetBuilder,
    known: HashMap<i128, u32>,
    start: u32,
    loops: usize,
    /// The latest place that a jump leads to.
    label: u32,
    /// The program under construction has grown too large, or the set has.
    pub(crate) overflow: bool,
}

/// A jump whose aim is not known yet.
#[derive(Clone, Copy)]
pub(crate) struct Hole(u32);

impl Assembler {
    pub(crate) fn begin(&mut self) {
        self.start = self.here();
        self.loops = self.set.loops.len();
        self.label = self.start;
        self.overflow = false;
    }

    /// The program since [`Assembler::begin`].
    pub(crate) fn end(&mut self) -> Range {
        Range { start: self.start, len: self.here() - self.start }
    }

    /// Forgets the program since [`Assembler::begin`].
    pub(crate) fn discard(&mut self) {
        self.set.ops.truncate(self.start as usize);
        self.set.loops.truncate(self.loops);
        self.label = self.start;
        self.overflow = false;
    }

    pub(crate) fn here(&self) -> u32 {
        self.set.ops.len() as u32
    }

    pub(crate) fn emit(&mut self, op: Op) {
        if let Some(Op::Const { index }) = self.set.ops.last().copied()
            && let Some(fused) = op.with_constant(index)
            && self.here() > self.start.max(self.label)
        {
            self.set.ops.pop();
            self.set.ops.push(fused);
            return;
        }
        if self.here() - self.start >= MAX_PROGRAM || self.set.ops.len() >= MAX_OPS {
            self.overflow = true;
        } else {
            self.set.ops.push(op);
        }
    }

    /// Pushes a number.
    pub(crate) fn number(&mut self, value: i128) {
        let index = match self.known.get(&value) {
            Some(index) => *index,
            None => {
                let index = self.constants(&[value]);
                self.known.insert(value, index);
                index
            }
        };
        self.emit(Op::Const { index });
    }

    /// Keeps numbers in a row; returns where the first is.
    pub(crate) fn constants(&mut self, values: &[i128]) -> u32 {
        let start = self.set.constants.len() as u32;
        self.set.constants.extend(values);
        start
    }

    /// A jump to be aimed later.
    pub(crate) fn hole(&mut self, op: Op) -> Hole {
        let hole = Hole(self.here());
        self.emit(op);
        hole
    }

    /// Aims a jump at the next instruction.
    pub(crate) fn land(&mut self, hole: Hole) {
        let here = self.here();
        self.label = here;
        if let Some(op) = self.set.ops.get_mut(hole.0 as usize) {
            *op = match *op {
                Op::JumpIfFalse { .. } => Op::JumpIfFalse { to: here },
                Op::JumpIfTrue { .. } => Op::JumpIfTrue { to: here },
                Op::JumpIfPresent { .. } => Op::JumpIfPresent { to: here },
                Op::Jump { .. } => Op::Jump { to: here },
                Op::Branch { otherwise: 0, end } => Op::Branch { otherwise: here, end },
                Op::Branch { otherwise, .. } => Op::Branch { otherwise, end: here },
                other => other,
            };
        }
    }

    /// Begins a loop; its start is filled in.
    pub(crate) fn begin_loop(&mut self, spec: LoopSpec) -> u32 {
        let index = self.set.loops.len() as u32;
        self.set.loops.push(LoopSpec { start: self.here(), ..spec });
        self.emit(Op::Loop { index });
        index
    }

    pub(crate) fn end_loop(&mut self, index: u32) {
        self.emit(Op::Next { index });
        let end = self.here();
        self.label = end;
        if let Some(spec) = self.set.loops.get_mut(index as usize) {
            spec.end = end;
        }
    }
}
