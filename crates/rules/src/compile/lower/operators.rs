//! Operators: comparisons, arithmetic, choices, membership.

use hypovisor_verdict::Op;

use super::{Lowering, Ty};
use crate::compile::names::Names;
use crate::condition::{Expr, Kind};
use crate::suggest::did_you_mean;

impl<'l> Lowering<'l> {
    /// `left && right` or `left || right`; `jump` is taken where the left side decides alone.
    pub(super) fn join(&mut self, left: &Expr, right: &Expr, jump: Op, op: Op) -> Ty {
        self.truth(left);
        let hole = self.assembler.hole(jump);
        self.truth(right);
        self.assembler.emit(op);
        self.assembler.land(hole);
        Ty::Bool
    }

    pub(super) fn conditional(&mut self, at: usize, condition: &Expr, yes: &Expr, no: &Expr) -> Ty {
        self.truth(condition);
        let branch = self.assembler.hole(Op::Branch { otherwise: 0, end: 0 });
        let first = self.expr(yes);
        let jump = self.assembler.hole(Op::Jump { to: 0 });
        self.assembler.land(branch);
        let second = self.expr(no);
        self.assembler.land(jump);
        self.assembler.land(branch);
        match (first, second) {
            (Ty::Bool, Ty::Int(_)) | (Ty::Int(_), Ty::Bool) => {
                self.misuse(at, "one side of `? :` is a number, the other a truth value")
            }
            (Ty::Int(names), Ty::Int(_)) => Ty::Int(names),
            (ty, _) => ty,
        }
    }

    pub(super) fn compare(&mut self, expr: &Expr, name: &str, left: &Expr, right: &Expr) -> Ty {
        let Some(op) = comparison(name) else { return Ty::Bad };
        let (left, right) = if matches!(left.kind, Kind::Text(_)) { (right, left) } else { (left, right) };
        if let Kind::Text(text) = &right.kind {
            if !matches!(op, Op::Equal {} | Op::NotEqual {}) {
                return self.misuse(expr.at, "names can be compared with `==`, `!=` and `in` only");
            }
            let ty = self.expr(left);
            self.named_value(right.at, ty, text);
        } else {
            match (self.expr(left), self.expr(right)) {
                (Ty::Bool, Ty::Int(_)) | (Ty::Int(_), Ty::Bool) => {
                    self.misuse(expr.at, "a number cannot be compared with a truth value");
                }
                (Ty::Bool, Ty::Bool) if !matches!(op, Op::Equal {} | Op::NotEqual {}) => {
                    self.misuse(expr.at, "truth values have no order");
                }
                _ => {}
            }
        }
        self.assembler.emit(op);
        Ty::Bool
    }

    /// Pushes the number that a name stands for.
    fn named_value(&mut self, at: usize, ty: Ty, text: &str) {
        match ty {
            Ty::Bad => {}
            Ty::Bool => {
                self.misuse(at, "a truth value is `true` or `false`, without quotes");
            }
            Ty::Int(names) => match names.value(text) {
                Ok(value) => self.assembler.number(value),
                Err(message) => {
                    self.misuse(at, message);
                }
            },
        }
    }

    pub(super) fn in_list(&mut self, of: &Expr, list: &Expr) -> Ty {
        let Kind::List(items) = &list.kind else {
            return self.misuse(list.at, "`in` needs a list of numbers or names: `x in [1, 2]`");
        };
        let names = self.int(of);
        let mut values = Vec::new();
        for item in items {
            let value = match &item.kind {
                Kind::Int(value) => Ok(*value),
                Kind::Text(text) => names.value(text),
                Kind::Call(None, minus, of) if minus == "-_" => match of.as_slice() {
                    [Expr { kind: Kind::Int(value), .. }] => Ok(-value),
                    _ => Err("a number or a name is needed here".into()),
                },
                _ => Err("a number or a name is needed here".into()),
            };
            match value {
                Ok(value) => values.push(value),
                Err(message) => {
                    self.misuse(item.at, message);
                }
            }
        }
        let start = self.assembler.constants(&values);
        self.assembler.emit(Op::InSet { start, len: values.len() as u32 });
        Ty::Bool
    }

    pub(super) fn math(&mut self, at: usize, name: &str, args: &[Expr]) -> Ty {
        let op = match name {
            "bitAnd" => Op::BitAnd {},
            "bitOr" => Op::BitOr {},
            "bitXor" => Op::BitXor {},
            "bitShiftLeft" => Op::ShiftLeft {},
            "bitShiftRight" => Op::ShiftRight {},
            "least" => Op::Least {},
            "greatest" => Op::Greatest {},
            _ => {
                let known =
                    ["bitAnd", "bitOr", "bitXor", "bitShiftLeft", "bitShiftRight", "least", "greatest"];
                return self
                    .misuse(at, format!("unknown function `math.{name}`{}", did_you_mean(name, known)));
            }
        };
        let many = matches!(op, Op::Least {} | Op::Greatest {});
        if args.len() < 2 || (args.len() > 2 && !many) {
            return self.misuse(at, format!("`math.{name}` needs two numbers, not {}", args.len()));
        }
        for (index, arg) in args.iter().enumerate() {
            self.int(arg);
            if index > 0 {
                self.assembler.emit(op);
            }
        }
        Ty::Int(Names::Plain)
    }
}

const fn comparison_table() -> [(&'static str, Op); 6] {
    [
        ("_==_", Op::Equal {}),
        ("_!=_", Op::NotEqual {}),
        ("_<_", Op::Less {}),
        ("_<=_", Op::LessOrEqual {}),
        ("_>_", Op::Greater {}),
        ("_>=_", Op::GreaterOrEqual {}),
    ]
}

pub(super) fn comparison(name: &str) -> Option<Op> {
    comparison_table().into_iter().find(|(known, _)| *known == name).map(|(_, op)| op)
}

pub(super) fn arithmetic(name: &str) -> Option<Op> {
    Some(match name {
        "_+_" => Op::Add {},
        "_-_" => Op::Subtract {},
        "_*_" => Op::Multiply {},
        "_/_" => Op::Divide {},
        "_%_" => Op::Remainder {},
        _ => return None,
    })
}
