//! From a condition's tree to instructions: checks types, resolves names, and joins a condition with its exceptions.
//!
//! What stands in a tree has a module for each kind: operators, functions, lists, and paths below `args`.

use hypovisor_abi::types::Type;
use hypovisor_abi::xen::XEN;
use hypovisor_verdict::{Fact, Op, Range};

use crate::compile::assembler::{Assembler, Hole};
use crate::compile::language::VALUES;
use crate::compile::names::Names;
use crate::compile::path::Rule;
use crate::compile::scope::Scope;
use crate::condition::{Expr, Kind, MAX_DEPTH};
use crate::suggest::did_you_mean;

mod functions;
mod lists;
mod operators;
mod paths;

/// Named sub-expressions, in the order of the file.
pub(crate) type Lets = [(String, Expr)];

/// A compiled condition.
pub(crate) struct Lowered {
    pub(crate) program: Range,
    /// What in it is known only when the call has ended.
    pub(crate) at_return: Option<String>,
}

/// What is wrong with a condition's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misuse {
    /// The field whose text it is, e.g. `let.target`.
    pub(crate) field: String,
    /// Where in that text, in bytes.
    pub(crate) at: usize,
    pub(crate) message: String,
}

/// Calls that a condition leaves to others, which are compiled for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// None.
    None,
    /// All with a sub-op that the tables know.
    UnknownSubOp,
    /// All that the tables know.
    UnknownCall,
}

/// Compiles a condition, and the exceptions from it, for the calls of `scope`. Each comes with its field's name.
pub(crate) fn lower(
    assembler: &mut Assembler,
    scope: &Scope,
    guard: Guard,
    lets: &Lets,
    when: Option<(&str, &Expr)>,
    exceptions: &[(String, Expr)],
) -> Result<Lowered, Vec<Misuse>> {
    if when.is_none() && exceptions.is_empty() && lets.is_empty() {
        return Ok(Lowered { program: Range::default(), at_return: None });
    }
    assembler.begin();
    let mut lowering = Lowering {
        scope: *scope,
        assembler,
        lets,
        visible: lets.len(),
        field: String::new(),
        variables: Vec::new(),
        misuses: Vec::new(),
        at_return: None,
        depth: 0,
    };
    lowering.check_lets();
    let guard = lowering.guard(guard);
    match when {
        Some((field, when)) => lowering.whole(field, when),
        None => lowering.assembler.number(1),
    }
    if let Some(hole) = guard {
        lowering.assembler.emit(Op::And {});
        lowering.assembler.land(hole);
    }
    for (field, exception) in exceptions {
        lowering.unless(field, exception);
    }
    if lowering.assembler.overflow {
        let (field, at) = (when.map_or("exceptions", |(field, _)| field).to_owned(), 0);
        lowering.misuses.push(Misuse { field, at, message: "the condition is too large".into() });
    }
    let (misuses, at_return) = (lowering.misuses, lowering.at_return);
    if misuses.is_empty() {
        return Ok(Lowered { program: assembler.end(), at_return });
    }
    assembler.discard();
    Err(misuses)
}

/// The type of a value.
#[derive(Clone, Copy, Debug)]
enum Ty {
    Bool,
    Int(Names),
    /// Already complained about.
    Bad,
}

struct Variable {
    name: String,
    slot: u8,
    ty: &'static Type,
    rule: Rule,
    exit: bool,
}

enum Root {
    Args,
    Variable(usize),
}

struct Lowering<'l> {
    scope: Scope,
    assembler: &'l mut Assembler,
    lets: &'l Lets,
    /// So many of them can be used here.
    visible: usize,
    field: String,
    variables: Vec<Variable>,
    misuses: Vec<Misuse>,
    at_return: Option<String>,
    depth: usize,
}

impl<'l> Lowering<'l> {
    fn misuse(&mut self, at: usize, message: impl Into<String>) -> Ty {
        self.misuses.push(Misuse { field: self.field.clone(), at, message: message.into() });
        Ty::Bad
    }

    fn needs_return(&mut self, what: &str) {
        self.at_return.get_or_insert_with(|| what.to_owned());
    }

    /// Goes on only for calls that the guard lets through.
    fn guard(&mut self, guard: Guard) -> Option<Hole> {
        match guard {
            Guard::None => return None,
            Guard::UnknownSubOp => {
                self.assembler.emit(Op::Fact { fact: Fact::KnownSubOp });
                self.assembler.emit(Op::Present {});
            }
            Guard::UnknownCall => {
                let known: Vec<i128> =
                    XEN.calls.iter().flatten().map(|call| i128::from(call.number)).collect();
                self.assembler.emit(Op::Fact { fact: Fact::Number });
                let start = self.assembler.constants(&known);
                self.assembler.emit(Op::InSet { start, len: known.len() as u32 });
            }
        }
        self.assembler.emit(Op::Not {});
        Some(self.assembler.hole(Op::JumpIfFalse { to: 0 }))
    }

    /// Checks all named sub-expressions, also those that nothing uses.
    fn check_lets(&mut self) {
        for index in 0..self.lets.len() {
            self.in_let(index, |lowering, body| match lowering.spots(body) {
                // A path to a struct is fine, as the beginning of others.
                Some(Ok(_)) => {}
                Some(Err(message)) => {
                    lowering.misuse(body.at, message);
                }
                None => {
                    lowering.expr(body);
                }
            });
        }
        self.assembler.discard();
        self.at_return = None;
    }

    /// A whole condition of a field.
    fn whole(&mut self, field: &str, expr: &Expr) {
        self.field = field.to_owned();
        self.truth(expr);
    }

    /// Makes what is on the stack false where the exception holds; one that is undecided does not hold.
    fn unless(&mut self, field: &str, exception: &Expr) {
        let hole = self.assembler.hole(Op::JumpIfFalse { to: 0 });
        self.whole(field, exception);
        for op in [Op::OrFalse {}, Op::Not {}, Op::And {}] {
            self.assembler.emit(op);
        }
        self.assembler.land(hole);
    }

    fn truth(&mut self, expr: &Expr) {
        if let Ty::Int(_) = self.expr(expr) {
            self.misuse(expr.at, "a truth value is needed here, this is a number");
        }
    }

    fn int(&mut self, expr: &Expr) -> Names {
        match self.expr(expr) {
            Ty::Int(names) => names,
            Ty::Bool => {
                self.misuse(expr.at, "a number is needed here, this is a truth value");
                Names::Plain
            }
            Ty::Bad => Names::Plain,
        }
    }

    fn expr(&mut self, expr: &Expr) -> Ty {
        if self.depth > MAX_DEPTH || self.assembler.overflow {
            return self.misuse(expr.at, "the condition is too large");
        }
        self.depth += 1;
        let ty = self.any(expr);
        self.depth -= 1;
        ty
    }

    fn any(&mut self, expr: &Expr) -> Ty {
        if let Some(spots) = self.spots(expr) {
            return match spots {
                Ok(spots) => self.value_of(expr.at, &spots, false),
                Err(message) => self.misuse(expr.at, message),
            };
        }
        match &expr.kind {
            Kind::Bool(value) => {
                self.assembler.number(i128::from(*value));
                Ty::Bool
            }
            Kind::Int(value) => {
                self.assembler.number(*value);
                Ty::Int(Names::Plain)
            }
            Kind::Text(text) => {
                self.misuse(expr.at, format!("'{text}' can only be compared with a value that has names"))
            }
            Kind::Name(name) => self.name(expr.at, name),
            Kind::Select(of, field) => self.no_field(of, field),
            Kind::Index(of, index) => self.raw_arg(expr.at, of, index),
            Kind::Broken => Ty::Bad,
            Kind::List(_) => self.misuse(expr.at, "a list can only stand behind `in`"),
            Kind::Call(target, name, args) => self.call(expr, target.as_deref(), name, args),
        }
    }

    fn name(&mut self, at: usize, name: &str) -> Ty {
        if let Some(index) = self.visible_let(name) {
            return self.in_let(index, |lowering, body| lowering.expr(body));
        }
        let Some((fact, ty)) = fact(name, &self.scope) else {
            return self.unknown_name(at, name);
        };
        if fact.needs_end() {
            self.needs_return(name);
        }
        self.assembler.emit(Op::Fact { fact });
        ty
    }

    fn unknown_name(&mut self, at: usize, name: &str) -> Ty {
        if self.lets.iter().any(|(known, _)| known == name) {
            return self
                .misuse(at, format!("`{name}` is defined further down; a `let` uses only those above it"));
        }
        if name == "args" || name == "raw_args" {
            return self.misuse(at, format!("`{name}` alone is no value"));
        }
        let known = VALUES.iter().map(|(known, _)| *known);
        let known =
            known.chain(["args", "raw_args"]).chain(self.lets.iter().map(|(known, _)| known.as_str()));
        let suggestion = did_you_mean(name, known);
        self.misuse(at, format!("unknown name `{name}`{suggestion}"))
    }

    fn visible_let(&self, name: &str) -> Option<usize> {
        self.lets.iter().take(self.visible).position(|(known, _)| known == name)
    }

    /// Goes into a named sub-expression: errors are its own, and it sees only what stands above it.
    fn in_let<T>(&mut self, index: usize, go: impl FnOnce(&mut Self, &'l Expr) -> T) -> T {
        let lets: &'l Lets = self.lets;
        let (name, body) = &lets[index];
        let field = std::mem::replace(&mut self.field, format!("let.{name}"));
        let visible = std::mem::replace(&mut self.visible, index);
        let variables = std::mem::take(&mut self.variables);
        let result = go(self, body);
        (self.field, self.visible, self.variables) = (field, visible, variables);
        result
    }
}

fn fact(name: &str, scope: &Scope) -> Option<(Fact, Ty)> {
    let plain = Ty::Int(Names::Plain);
    Some(match name {
        "domain" => (Fact::Domain, Ty::Int(Names::Domain)),
        "vcpu" => (Fact::Vcpu, plain),
        "pcpu" => (Fact::Pcpu, plain),
        "privileged" => (Fact::Privileged, Ty::Bool),
        "kind" => (Fact::Kind, Ty::Int(Names::Kind)),
        "mode" => (Fact::Mode, Ty::Int(Names::Mode)),
        "cpl" => (Fact::Cpl, plain),
        "cs" => (Fact::Cs, plain),
        "rip" => (Fact::Rip, plain),
        "rsp" => (Fact::Rsp, plain),
        "hypercall" => (Fact::Number, Ty::Int(Names::Hypercall)),
        "number" => (Fact::Number, plain),
        "sub_op" => {
            let ops = scope.call.and_then(|call| call.sub_ops).map(|ops| ops.ops);
            (Fact::KnownSubOp, Ty::Int(ops.map_or(Names::Plain, Names::SubOps)))
        }
        "sub_op_number" => (Fact::SubOp, plain),
        "inner" => (Fact::Inner, Ty::Bool),
        "continuation" => (Fact::Continuation, Ty::Bool),
        "cut" => (Fact::Cut, Ty::Bool),
        "result" => (Fact::Result, Ty::Int(Names::Result)),
        "errno" => (Fact::Errno, Ty::Int(Names::Errno)),
        "outcome" => (Fact::Outcome, Ty::Int(Names::Outcome)),
        "duration_ns" => (Fact::Duration, plain),
        _ => return None,
    })
}
