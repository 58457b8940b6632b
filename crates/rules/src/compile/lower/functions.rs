//! Calls as the parser has them: operators are handed on to their module, the language's functions compiled here.

use hypovisor_verdict::{Op, Side};

use super::operators::{arithmetic, comparison};
use super::paths::is_aggregate;
use super::{Lowering, Ty};
use crate::compile::handles::any_handle;
use crate::compile::language::FUNCTIONS;
use crate::compile::names::Names;
use crate::compile::path::{Spot, pointee};
use crate::condition::{Expr, Kind};
use crate::suggest::did_you_mean;

impl<'l> Lowering<'l> {
    pub(super) fn call(&mut self, expr: &Expr, target: Option<&Expr>, name: &str, args: &[Expr]) -> Ty {
        match (target, name, args) {
            (None, "_&&_", [left, right]) => self.join(left, right, Op::JumpIfFalse { to: 0 }, Op::And {}),
            (None, "_||_", [left, right]) => self.join(left, right, Op::JumpIfTrue { to: 0 }, Op::Or {}),
            (None, "!_", [of]) => {
                self.truth(of);
                self.assembler.emit(Op::Not {});
                Ty::Bool
            }
            (None, "-_", [of]) => {
                self.int(of);
                self.assembler.emit(Op::Negate {});
                Ty::Int(Names::Plain)
            }
            (None, "_?_:_", [condition, yes, no]) => self.conditional(expr.at, condition, yes, no),
            (None, "@in", [of, list]) => self.in_list(of, list),
            (None, _, [left, right]) if comparison(name).is_some() => self.compare(expr, name, left, right),
            (None, _, [left, right]) if arithmetic(name).is_some() => {
                self.int(left);
                self.int(right);
                if let Some(op) = arithmetic(name) {
                    self.assembler.emit(op);
                }
                Ty::Int(Names::Plain)
            }
            (Some(target), "exists" | "all", [variable, condition]) => {
                self.each(target, variable, condition, name == "all")
            }
            (Some(Expr { kind: Kind::Name(math), .. }), _, args) if math == "math" => {
                self.math(expr.at, name, args)
            }
            (Some(target), "size", []) => self.size(target),
            (None, _, args) => self.function(expr.at, name, args),
            (Some(_), ..) => {
                let known = ["exists", "all", "size"];
                self.misuse(expr.at, format!("unknown function `.{name}`{}", did_you_mean(name, known)))
            }
        }
    }

    fn function(&mut self, at: usize, name: &str, args: &[Expr]) -> Ty {
        match (name, args) {
            ("in_xen" | "canonical", [of]) => {
                self.int(of);
                self.assembler.emit(if name == "in_xen" { Op::InXen {} } else { Op::Canonical {} });
                Ty::Bool
            }
            ("handles_in_xen", []) => self.any_handle(&[Op::InXen {}]),
            ("handles_not_canonical", []) => self.any_handle(&[Op::Canonical {}, Op::Not {}]),
            ("any_handle", [Expr { kind: Kind::Name(of), .. }]) if of == "in_xen" => {
                self.any_handle(&[Op::InXen {}])
            }
            ("has_flag", [of, flag]) => self.has_flag(of, flag),
            ("has", [of]) => self.has(of),
            ("unreadable", [of]) => self.unreadable(of),
            ("changed", [of]) => self.changed(of),
            ("size", [of]) => self.size(of),
            ("after", [of]) => match self.spots(of) {
                Some(Ok(spots)) => self.value_of(of.at, &spots, true),
                Some(Err(message)) => self.misuse(of.at, message),
                None => self.misuse(of.at, "`after` needs a path below `args`"),
            },
            ("min", args) => self.math(at, "least", args),
            ("max", args) => self.math(at, "greatest", args),
            _ => self.unknown_function(at, name, args.len()),
        }
    }

    fn unknown_function(&mut self, at: usize, name: &str, count: usize) -> Ty {
        let bare = |signature: &'static str| signature.split('(').next().unwrap_or(signature);
        if let Some((signature, _)) = FUNCTIONS.iter().find(|(signature, _)| bare(signature) == name) {
            return self.misuse(
                at,
                format!("`{name}` does not take {count} arguments this way; it is `{signature}`"),
            );
        }
        let known = FUNCTIONS.iter().map(|(signature, _)| bare(signature));
        let suggestion = did_you_mean(name, known);
        self.misuse(at, format!("unknown function `{name}`{suggestion}"))
    }

    fn any_handle(&mut self, test: &[Op]) -> Ty {
        any_handle(&self.scope, self.assembler, self.variables.len(), test);
        Ty::Bool
    }

    fn has_flag(&mut self, of: &Expr, flag: &Expr) -> Ty {
        let names = self.int(of);
        let (mask, value) = match &flag.kind {
            Kind::Int(bits) => (*bits, *bits),
            Kind::Text(name) => match names.flag(name) {
                Ok(flag) => flag,
                Err(message) => return self.misuse(flag.at, message),
            },
            _ => return self.misuse(flag.at, "the flag has to be a name in quotes, or a number"),
        };
        self.assembler.number(mask);
        self.assembler.emit(Op::BitAnd {});
        self.assembler.number(value);
        self.assembler.emit(Op::Equal {});
        Ty::Bool
    }

    fn has(&mut self, of: &Expr) -> Ty {
        match self.spots(of) {
            Some(Ok(spots)) => {
                if let Some(Spot::Memory { memory, .. }) = spots.iter().find(|spot| is_aggregate(spot)) {
                    let side = self.side(memory, false).unwrap_or(Side::Entry);
                    memory.emit(self.assembler);
                    self.assembler.emit(Op::AtHand { side });
                    return Ty::Bool;
                }
                self.value_of(of.at, &spots, false);
            }
            Some(Err(message)) => return self.misuse(of.at, message),
            None => {
                self.expr(of);
            }
        }
        self.assembler.emit(Op::Present {});
        Ty::Bool
    }

    fn unreadable(&mut self, of: &Expr) -> Ty {
        let spots = match self.spots(of) {
            Some(Ok(spots)) => spots,
            Some(Err(message)) => return self.misuse(of.at, message),
            None => return self.misuse(of.at, "`unreadable` needs a path to a pointer"),
        };
        self.first_present(&spots, |lowering, spot| {
            let Some((_, handle)) = pointee(&lowering.scope, spot) else {
                return lowering.misuse(of.at, "this is no pointer");
            };
            let direction = handle.direction;
            if !direction.is_in() {
                lowering.needs_return("a pointer to what Xen writes");
            }
            if let Err(message) = lowering.spot(spot, false) {
                return lowering.misuse(of.at, message);
            }
            lowering.assembler.emit(Op::Unreadable { entry: direction.is_in(), exit: direction.is_out() });
            Ty::Bool
        })
    }

    fn changed(&mut self, of: &Expr) -> Ty {
        let spots = match self.spots(of) {
            Some(Ok(spots)) => spots,
            Some(Err(message)) => return self.misuse(of.at, message),
            None => return self.misuse(of.at, "`changed` needs a path below `args`"),
        };
        self.needs_return("changed()");
        self.first_present(&spots, |lowering, spot| {
            let (memory, ty) = match spot {
                Spot::Memory { memory, ty } => (memory.clone(), *ty),
                Spot::Pointer { .. } => match pointee(&lowering.scope, spot) {
                    Some((memory, handle)) => (memory, handle.to),
                    None => return Ty::Bad,
                },
                Spot::Register { .. } => {
                    return lowering.misuse(of.at, "an argument register has no value after the call");
                }
            };
            if !memory.exit {
                return lowering.misuse(of.at, "Xen does not write there, so it never changes");
            }
            memory.emit(lowering.assembler);
            lowering.assembler.emit(Op::Changed { bytes: lowering.scope.bytes(ty) });
            Ty::Bool
        })
    }
}
