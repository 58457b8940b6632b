//! Places in captured memory: how the cursor gets to their base, how far from it they are, and which side of the call
//! has their value.

use hypovisor_abi::types::{Direction, Struct};
use hypovisor_verdict::Op;

use crate::compile::assembler::Assembler;

/// An instruction whose constants have no place yet.
#[derive(Clone, Debug)]
pub(crate) enum Code {
    Op(Op),
    /// The first value is the mask.
    Tag {
        bytes: u8,
        negate: bool,
        relative: i32,
        values: Vec<i128>,
    },
    TagSubOp {
        negate: bool,
        values: Vec<i128>,
    },
}

/// Which side of the call a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Only what was captured at entry.
    Entry,
    /// Only what was captured after the call.
    Exit,
    /// What each field's direction says.
    Marked,
    /// As `Marked`, but what the guest supplies Xen also changes.
    Both,
}

impl Rule {
    /// What a field, or a member of a union, with this direction has.
    pub(super) const fn with(self, direction: Direction, aggregate: bool) -> Self {
        match (self, direction) {
            (Self::Entry | Self::Exit, _) => self,
            (_, Direction::Out) => Self::Exit,
            (_, Direction::InOut) => Self::Both,
            (Self::Marked, Direction::In) => {
                if aggregate {
                    self
                } else {
                    Self::Entry
                }
            }
            (Self::Both, Direction::In) => self,
        }
    }

    pub(crate) const fn before(self) -> bool {
        !matches!(self, Self::Exit)
    }
}

/// A place in captured memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// Puts the cursor on the base.
    pub(crate) code: Vec<Code>,
    /// From the base.
    pub(crate) offset: u32,
    /// The structs around it with their offsets, innermost last.
    pub(super) holders: Vec<(u32, &'static Struct)>,
    pub(crate) rule: Rule,
    /// Captured after the call as well.
    pub(crate) exit: bool,
    /// The base is what begins with the sub-op number.
    pub(super) sub_op_here: bool,
}

impl Memory {
    pub(super) fn at(&self, offset: u32) -> Self {
        Self { offset: self.offset.saturating_add(offset), ..self.clone() }
    }

    /// The element of a loop.
    pub(crate) fn element(slot: u8, rule: Rule, exit: bool) -> Self {
        let code = vec![Code::Op(Op::Element { slot })];
        Self { code, offset: 0, holders: Vec::new(), rule, exit, sub_op_here: false }
    }

    /// No place at all: following a null pointer leaves none.
    pub(crate) fn nowhere(rule: Rule, exit: bool) -> Self {
        let code = vec![Code::Op(Op::Absent {}), Code::Op(Op::Follow { entry: true, exit: true })];
        Self { code, offset: 0, holders: Vec::new(), rule, exit, sub_op_here: false }
    }

    /// Puts the cursor there.
    pub(crate) fn emit(&self, assembler: &mut Assembler) {
        for code in &self.code {
            match code {
                Code::Op(op) => assembler.emit(*op),
                Code::Tag { bytes, negate, relative, values } => {
                    let (start, len) = (assembler.constants(values), values.len() as u8);
                    let (bytes, negate, relative) = (*bytes, *negate, *relative);
                    assembler.emit(Op::Tag { bytes, negate, len, relative, values: start });
                }
                Code::TagSubOp { negate, values } => {
                    let (start, len) = (assembler.constants(values), values.len() as u8);
                    assembler.emit(Op::TagSubOp { negate: *negate, len, values: start });
                }
            }
        }
        if self.offset > 0 {
            assembler.emit(Op::Move { bytes: self.offset });
        }
    }
}
