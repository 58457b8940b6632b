//! Lists: what holds for one of their elements, or for all.

use hypovisor_verdict::{LoopSpec, MAX_LOOPS, Op, Until};

use super::{Lowering, Ty, Variable};
use crate::compile::language::VALUES;
use crate::compile::names::Names;
use crate::compile::path::{Spot, elements};
use crate::condition::{Expr, Kind};

impl<'l> Lowering<'l> {
    pub(super) fn each(&mut self, target: &Expr, variable: &Expr, condition: &Expr, all: bool) -> Ty {
        let Kind::Name(name) = &variable.kind else {
            return self.misuse(variable.at, "the first argument is a name for the element: `.exists(x, …)`");
        };
        if VALUES.iter().any(|(known, _)| known == name)
            || ["args", "raw_args", "math"].contains(&name.as_str())
            || self.lets.iter().any(|(known, _)| known == name)
            || self.variables.iter().any(|variable| variable.name == *name)
        {
            return self.misuse(variable.at, format!("`{name}` has a meaning already; use another name"));
        }
        if self.variables.len() >= MAX_LOOPS {
            return self
                .misuse(target.at, format!("no more than {MAX_LOOPS} levels of `.exists` and `.all`"));
        }
        let spots = match self.spots(target) {
            Some(Ok(spots)) => spots,
            Some(Err(message)) => return self.misuse(target.at, message),
            None => return self.misuse(target.at, "only arguments have elements"),
        };
        self.first_present(&spots, |lowering, spot| {
            lowering.each_of(target.at, spot, name, condition, all);
            Ty::Bool
        });
        Ty::Bool
    }

    fn each_of(&mut self, at: usize, spot: &Spot, name: &str, condition: &Expr, all: bool) {
        let Some(list) = elements(&self.scope, spot) else {
            self.misuse(at, "this is no list or array, so it has no elements");
            return;
        };
        let side = match self.side(&list.memory, false) {
            Ok(side) => side,
            Err(message) => {
                self.misuse(at, message);
                return;
            }
        };
        list.memory.emit(self.assembler);
        let slot = self.variables.len() as u8;
        let until = list.until.map(|(offset, bytes)| Until { offset, bytes });
        let (size, limit) = (self.scope.bytes(list.ty).max(1), list.limit.unwrap_or(u32::MAX));
        let spec = LoopSpec { slot, side, all, size, limit, until, start: 0, end: 0 };
        let index = self.assembler.begin_loop(spec);
        let (ty, rule, exit) = (list.ty, list.memory.rule, list.memory.exit);
        self.variables.push(Variable { name: name.to_owned(), slot, ty, rule, exit });
        self.truth(condition);
        self.variables.pop();
        self.assembler.end_loop(index);
    }

    pub(super) fn size(&mut self, of: &Expr) -> Ty {
        let spots = match self.spots(of) {
            Some(Ok(spots)) => spots,
            Some(Err(message)) => return self.misuse(of.at, message),
            None => return self.misuse(of.at, "only arguments have a size"),
        };
        self.first_present(&spots, |lowering, spot| {
            let Some(list) = elements(&lowering.scope, spot) else {
                return lowering.misuse(of.at, "this is no list or array, so it has no size");
            };
            let Ok(side) = lowering.side(&list.memory, false) else { return Ty::Bad };
            list.memory.emit(lowering.assembler);
            let (size, limit) = (lowering.scope.bytes(list.ty).max(1), list.limit.unwrap_or(u32::MAX));
            lowering.assembler.emit(Op::Size { side, size, limit });
            Ty::Int(Names::Plain)
        })
    }
}
