//! `handles_in_xen()` and its like: every guest handle of a call, wherever it stands.

use hypovisor_abi::SubOpFrom;
use hypovisor_abi::capture::MAX_FOLLOWED_ELEMENTS;
use hypovisor_abi::types::{Direction, Type};
use hypovisor_verdict::{LoopSpec, MAX_LOOPS, Op, Side};

use super::assembler::Assembler;
use super::path::{Memory, Spot, elements, first_buffer, member, of_field, pointee};
use super::scope::Scope;

/// Pushes whether any guest handle among the call's captured arguments passes `test`. Never absent.
pub(crate) fn any_handle(scope: &Scope, assembler: &mut Assembler, free_slot: usize, test: &[Op]) {
    let mut walk = Walk { scope, assembler, slot: free_slot, test };
    walk.assembler.number(0);
    for (index, arg) in scope.placed() {
        if let Type::Handle(handle) = arg.ty.for_width(scope.width) {
            walk.pointer(&Spot::Pointer { index, handle });
        }
    }
    if let Some(SubOpFrom::FirstBuffer { index, ty }) = scope.sub_op_from() {
        walk.inside(&first_buffer(scope, index, ty));
    }
}

struct Walk<'w> {
    scope: &'w Scope,
    assembler: &'w mut Assembler,
    /// The next free loop variable.
    slot: usize,
    test: &'w [Op],
}

impl Walk<'_> {
    /// Adds a pointer to what is on the stack, and what stands behind it.
    fn pointer(&mut self, spot: &Spot) {
        match spot {
            Spot::Pointer { index, .. } => self.assembler.emit(Op::RawArg { index: *index }),
            Spot::Memory { memory, .. } => {
                memory.emit(self.assembler);
                let bytes = self.scope.width.word_bytes() as u8;
                self.assembler.emit(Op::Load { bytes, signed: false, side: Side::Either });
            }
            Spot::Register { .. } => return,
        }
        for op in self.test.iter().chain(&[Op::OrFalse {}, Op::Or {}]) {
            self.assembler.emit(*op);
        }
        self.behind(spot);
    }

    fn behind(&mut self, spot: &Spot) {
        let Some((memory, handle)) = pointee(self.scope, spot) else { return };
        if !handle.to.has_handles() {
            return;
        }
        if elements(self.scope, spot).is_some() {
            self.each(spot);
        } else {
            self.inside(&Spot::Memory { memory, ty: handle.to.for_width(self.scope.width) });
        }
    }

    fn each(&mut self, spot: &Spot) {
        let Some(list) = elements(self.scope, spot) else { return };
        if self.slot >= MAX_LOOPS {
            return;
        }
        let slot = self.slot as u8;
        list.memory.emit(self.assembler);
        let limit = list.limit.unwrap_or(u32::MAX).min(MAX_FOLLOWED_ELEMENTS as u32);
        let side = Side::Either;
        let size = self.scope.bytes(list.ty).max(1);
        let spec = LoopSpec { slot, side, all: false, size, limit, until: None, start: 0, end: 0 };
        let index = self.assembler.begin_loop(spec);
        self.slot += 1;
        self.assembler.number(0);
        let memory = Memory::element(slot, list.memory.rule, list.memory.exit);
        self.inside(&Spot::Memory { memory, ty: list.ty });
        self.slot -= 1;
        self.assembler.end_loop(index);
        for op in [Op::OrFalse {}, Op::Or {}] {
            self.assembler.emit(op);
        }
    }

    fn inside(&mut self, spot: &Spot) {
        let Spot::Memory { memory, ty } = spot else { return };
        match ty.for_width(self.scope.width) {
            Type::Handle(_) => self.pointer(spot),
            // Its place is the struct's own, which has been looked at.
            Type::Tail(_) => self.behind(spot),
            Type::Struct(structure) => {
                for index in 0..structure.fields.len() {
                    if structure.fields[index].ty.has_handles() {
                        let memory = of_field(self.scope, memory, structure, index);
                        let ty = structure.fields[index].ty.for_width(self.scope.width);
                        self.inside(&Spot::Memory { memory, ty });
                    }
                }
            }
            Type::Union(union) => {
                let supplied = union.cases.iter().filter(|case| case.direction != Direction::Out);
                for case in supplied.filter(|case| case.ty.has_handles()) {
                    if let Some(spot) = member(self.scope, memory, union, case) {
                        self.inside(&spot);
                    }
                }
            }
            Type::Array(array) if array.of.has_handles() => self.each(spot),
            _ => {}
        }
    }
}
