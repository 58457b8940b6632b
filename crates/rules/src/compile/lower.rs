//! Checks types and translates.

use hypovisor_abi::Width;
use hypovisor_abi::types::Type;
use hypovisor_abi::xen::XEN;
use hypovisor_verdict::{Fact, LoopSpec, MAX_LOOPS, Op, Range, Side, Until};

use super::assembler::{Assembler, Hole};
use super::handles::any_handle;
use super::names::Names;
use super::path::{Memory, Rule, Scope, Spot, Step, elements, follow_steps, names_in, pointee, resolve};
use crate::condition::{Expr, Kind, MAX_DEPTH};
use crate::suggest::{did_you_mean, some_of};

/// What is known of every call: name, meaning.
pub(crate) const VALUES: &[(&str, &str)] = &[
    ("domain", "id of the calling domain"),
    ("vcpu", "its vCPU"),
    ("pcpu", "the CPU of Xen that the call was made on"),
    ("privileged", "truth value: the caller is the control domain"),
    ("kind", "kind of guest: `'pv'`, `'pvh'`, `'hvm'` or `'unknown'`"),
    ("mode", "how the caller entered: `'pv64'`, `'pv32'`, `'hvm64'` or `'hvm32'`"),
    ("cpl", "privilege level of the caller"),
    ("cs", "code segment selector; 0 for HVM and PVH guests"),
    ("rip", "where the guest goes on after the call"),
    ("rsp", "the guest's stack pointer"),
    ("hypercall", "the hypercall, by name: `hypercall == 'memory_op'`"),
    ("number", "the hypercall's number"),
    (
        "sub_op",
        "the sub-operation, by name; absent if there is none of that number. Names can be compared where `on` names the hypercall",
    ),
    ("sub_op_number", "number of the sub-operation; absent if there is none"),
    ("inner", "truth value: an inner call of a multicall"),
    ("continuation", "truth value: it continues a preempted call"),
    ("cut", "truth value: more guest memory belongs to the call than was copied"),
    ("result", "at return: what it returned; absent unless it did"),
    ("errno", "at return: the error by name, `errno == 'EPERM'`; `errno == ''` if there is none"),
    ("outcome", "at return: `'returned'`, `'preempted'`, `'resumed'` or `'unfinished'`"),
    ("duration_ns", "at return: nanoseconds from entry to end"),
];

/// Names that stand for something that is not a value alone.
pub(crate) const CONSTANTS: &[(&str, &str)] = &[
    ("args.<path>", "arguments and fields by the names of Xen's headers; see below"),
    ("raw_args[i]", "argument register `i`, 0 to 5, whatever the call"),
];

/// Functions: how they are written, what they say.
pub(crate) const FUNCTIONS: &[(&str, &str)] = &[
    (
        "in_xen(x)",
        "the caller is a PV guest and address `x` lies in Xen's part of its address space: 0xffff800000000000 to 0xffff87ffffffffff for 64-bit, 0xf5800000 to 0xffffffff for 32-bit callers",
    ),
    (
        "handles_in_xen()",
        "any guest handle among the call's arguments, or in the captured memory behind them, points into Xen; also written `any_handle(in_xen)`. In lists the first 8 elements are looked at. Never absent",
    ),
    ("handles_not_canonical()", "any such handle is not canonical. Never absent"),
    ("canonical(x)", "address `x` is canonical for 48 bits; for a 32-bit caller, below 4 GiB"),
    ("has_flag(path, 'NAME')", "the flag is set in the value"),
    ("has(path)", "the value is at hand. Never absent"),
    (
        "unreadable(path)",
        "the pointer's memory could not be read to the end; false for a null pointer, absent if it was not captured",
    ),
    ("after(path)", "at return: the value that Xen left there"),
    ("changed(path)", "at return: what was captured there before and after the call differs"),
    ("size(path)", "how many elements of a list or array were captured"),
    (
        "path.exists(x, condition)",
        "the condition holds for an element `x` of a list or array; absent if for none, but it is undecided for one or not all were captured",
    ),
    (
        "path.all(x, condition)",
        "the condition holds for every element `x`; absent if for none it does not, but it is undecided for one or not all were captured",
    ),
    ("math.bitAnd(a, b)", "bits set in both"),
    ("math.bitOr(a, b)", "bits set in either"),
    ("math.bitXor(a, b)", "bits set in one"),
    ("math.bitShiftLeft(a, n)", "`a` times 2 to the `n`, exact"),
    ("math.bitShiftRight(a, n)", "`a` shifted to the right"),
    ("math.least(a, b, …)", "the smallest; also `min`"),
    ("math.greatest(a, b, …)", "the largest; also `max`"),
];

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
        let hole = lowering.assembler.hole(Op::JumpIfFalse { to: 0 });
        lowering.whole(field, exception);
        for op in [Op::OrFalse {}, Op::Not {}, Op::And {}] {
            lowering.assembler.emit(op);
        }
        lowering.assembler.land(hole);
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

    /// Root and steps of a path, through named sub-expressions that are paths.
    fn as_path(&self, expr: &Expr, visible: usize) -> Option<(Root, Vec<Step>)> {
        match &expr.kind {
            Kind::Name(name) => {
                let variable = self.variables.iter().rposition(|variable| variable.name == *name);
                if let Some(index) = variable {
                    return Some((Root::Variable(index), Vec::new()));
                }
                if name == "args" {
                    return Some((Root::Args, Vec::new()));
                }
                let index = self.lets.iter().take(visible).position(|(known, _)| known == name)?;
                self.as_path(&self.lets[index].1, index)
            }
            Kind::Select(of, field) => {
                let (root, mut steps) = self.as_path(of, visible)?;
                steps.push(Step::Field(field.clone()));
                Some((root, steps))
            }
            Kind::Index(of, index) => {
                let (root, mut steps) = self.as_path(of, visible)?;
                let Kind::Int(index) = index.kind else { return None };
                steps.push(Step::Index(u32::try_from(index).unwrap_or(u32::MAX)));
                Some((root, steps))
            }
            _ => None,
        }
    }

    /// Where a path leads; `None` if the expression is none.
    fn spots(&mut self, expr: &Expr) -> Option<Result<Vec<Spot>, String>> {
        let (root, steps) = self.as_path(expr, self.visible)?;
        Some(match root {
            Root::Args => match resolve(&self.scope, &steps) {
                Err(message) => self.other_width(&steps, message),
                Ok(spots) if spots.iter().all(is_aggregate) => self.number_elsewhere(&steps, spots),
                Ok(spots) => Ok(spots),
            },
            Root::Variable(index) => {
                let Variable { slot, ty, rule, exit, .. } = &self.variables[index];
                let spot = Spot::Memory { memory: Memory::element(*slot, *rule, *exit), ty };
                follow_steps(&self.scope, vec![spot], &steps)
            }
        })
    }

    /// What only callers of the other width have is absent for those of this one.
    fn other_width(&mut self, steps: &[Step], message: String) -> Result<Vec<Spot>, String> {
        let width = match self.scope.width {
            Width::Bits64 => Width::Bits32,
            Width::Bits32 => Width::Bits64,
        };
        let mut spots = resolve(&Scope { width, ..self.scope }, steps).map_err(|_| message)?;
        for spot in &mut spots {
            *spot = match spot {
                Spot::Memory { memory, ty } => {
                    Spot::Memory { memory: Memory::nowhere(memory.rule, memory.exit), ty }
                }
                // A register that the caller does not fill.
                _ => Spot::Memory { memory: Memory::nowhere(Rule::Entry, false), ty: &Type::HEXLONG },
            };
        }
        Ok(spots)
    }

    /// What is a struct for callers of this width and a number for those of the other is absent for these.
    fn number_elsewhere(&mut self, steps: &[Step], spots: Vec<Spot>) -> Result<Vec<Spot>, String> {
        match self.other_width(steps, String::new()) {
            Ok(others) if !others.iter().all(is_aggregate) => Ok(others),
            _ => Ok(spots),
        }
    }

    /// Pushes the value of whichever place is live.
    fn value_of(&mut self, at: usize, spots: &[Spot], after: bool) -> Ty {
        self.first_present(spots, |lowering, spot| match lowering.spot(spot, after) {
            Ok(ty) => ty,
            Err(message) => lowering.misuse(at, message),
        })
    }

    fn first_present(&mut self, spots: &[Spot], mut push: impl FnMut(&mut Self, &Spot) -> Ty) -> Ty {
        let mut holes: Vec<Hole> = Vec::new();
        let mut ty = Ty::Bad;
        for (index, spot) in spots.iter().enumerate() {
            let found = push(self, spot);
            if index == 0 {
                ty = found;
            }
            if index + 1 < spots.len() {
                holes.push(self.assembler.hole(Op::JumpIfPresent { to: 0 }));
            }
        }
        for hole in holes {
            self.assembler.land(hole);
        }
        ty
    }

    fn spot(&mut self, spot: &Spot, after: bool) -> Result<Ty, String> {
        match spot {
            Spot::Register { .. } | Spot::Pointer { .. } if after => {
                Err("an argument register has no value after the call".into())
            }
            Spot::Pointer { index, .. } => {
                self.assembler.emit(Op::RawArg { index: *index });
                Ok(Ty::Int(Names::Plain))
            }
            Spot::Register { index, bytes, signed, mask, names, truth } => {
                self.assembler.emit(Op::Register { index: *index, bytes: *bytes, signed: *signed });
                if let Some(mask) = mask {
                    self.assembler.number(i128::from(*mask));
                    self.assembler.emit(Op::BitAnd {});
                }
                Ok(self.named(*names, *truth))
            }
            Spot::Memory { memory, ty } => self.in_memory(memory, ty.for_width(self.scope.width), after),
        }
    }

    fn named(&mut self, names: Names, truth: bool) -> Ty {
        if truth {
            self.assembler.emit(Op::Truth {});
            return Ty::Bool;
        }
        Ty::Int(names)
    }

    fn in_memory(&mut self, memory: &Memory, ty: &'static Type, after: bool) -> Result<Ty, String> {
        let side = self.side(memory, after)?;
        match ty {
            Type::Int(scalar) => {
                memory.emit(self.assembler);
                let bytes = scalar.int.bytes(self.scope.width) as u8;
                self.assembler.emit(Op::Load { bytes, signed: scalar.int.is_signed(), side });
                let truth = matches!(scalar.show, hypovisor_abi::Show::Bool);
                Ok(self.named(Names::of(scalar, self.scope.width), truth))
            }
            Type::Handle(_) => {
                memory.emit(self.assembler);
                let bytes = self.scope.width.word_bytes() as u8;
                let side = if after { Side::Exit } else { Side::Either };
                self.assembler.emit(Op::Load { bytes, signed: false, side });
                Ok(Ty::Int(Names::Plain))
            }
            Type::Tail(_) => {
                memory.emit(self.assembler);
                self.assembler.emit(Op::Place {});
                Ok(Ty::Int(Names::Plain))
            }
            Type::Struct(_) | Type::Union(_) => {
                Err(format!("this is a struct; name a field: {}", some_of(names_in(ty))))
            }
            Type::Array(_) | Type::Bytes(_) => {
                Err("this is an array; use `[i]`, `size(…)`, `.exists(…)` or `.all(…)`".into())
            }
            Type::Chars(_) | Type::PerWidth(_) => Err("text has no value in conditions".into()),
        }
    }

    /// The capture that a value is read from.
    fn side(&mut self, memory: &Memory, after: bool) -> Result<Side, String> {
        if after && !memory.exit {
            return Err("Xen does not write there, so there is no value after the call".into());
        }
        if !after && memory.rule.before() {
            return Ok(Side::Entry);
        }
        self.needs_return(if after { "after()" } else { "a field that Xen writes" });
        Ok(Side::Exit)
    }

    fn no_field(&mut self, of: &Expr, field: &str) -> Ty {
        match &of.kind {
            Kind::Name(name) if name == "math" => {
                self.misuse(of.at, format!("`math.{field}` is a function; it needs arguments"))
            }
            Kind::Name(name) if self.visible_let(name).is_none() && fact(name, &self.scope).is_none() => {
                self.unknown_name(of.at, name)
            }
            _ => self.misuse(of.at, format!("this has no field `{field}`")),
        }
    }

    fn raw_arg(&mut self, at: usize, of: &Expr, index: &Expr) -> Ty {
        let raw = matches!(&of.kind, Kind::Name(name) if name == "raw_args");
        match index.kind {
            Kind::Int(index) if raw && (0..6).contains(&index) => {
                self.assembler.emit(Op::RawArg { index: index as u8 });
                Ty::Int(Names::Plain)
            }
            Kind::Int(index) if raw => {
                self.misuse(at, format!("there is no register {index}; there are 0 to 5"))
            }
            Kind::Int(_) => self.misuse(at, "only arguments and `raw_args` have elements"),
            _ => self.misuse(index.at, "an index has to be a number, written out"),
        }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, name: &str, args: &[Expr]) -> Ty {
        match (target, name, args) {
            (None, "_&&_" | "_||_", [left, right]) => {
                self.truth(left);
                let (jump, op) = if name == "_&&_" {
                    (Op::JumpIfFalse { to: 0 }, Op::And {})
                } else {
                    (Op::JumpIfTrue { to: 0 }, Op::Or {})
                };
                let hole = self.assembler.hole(jump);
                self.truth(right);
                self.assembler.emit(op);
                self.assembler.land(hole);
                Ty::Bool
            }
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

    fn conditional(&mut self, at: usize, condition: &Expr, yes: &Expr, no: &Expr) -> Ty {
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

    fn compare(&mut self, expr: &Expr, name: &str, left: &Expr, right: &Expr) -> Ty {
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

    fn in_list(&mut self, of: &Expr, list: &Expr) -> Ty {
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

    fn each(&mut self, target: &Expr, variable: &Expr, condition: &Expr, all: bool) -> Ty {
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

    fn size(&mut self, of: &Expr) -> Ty {
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

    fn math(&mut self, at: usize, name: &str, args: &[Expr]) -> Ty {
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

fn is_aggregate(spot: &Spot) -> bool {
    let Spot::Memory { ty, .. } = spot else { return false };
    !matches!(ty, Type::Int(_) | Type::Handle(_) | Type::Tail(_))
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

fn comparison(name: &str) -> Option<Op> {
    comparison_table().into_iter().find(|(known, _)| *known == name).map(|(_, op)| op)
}

fn arithmetic(name: &str) -> Option<Op> {
    Some(match name {
        "_+_" => Op::Add {},
        "_-_" => Op::Subtract {},
        "_*_" => Op::Multiply {},
        "_/_" => Op::Divide {},
        "_%_" => Op::Remainder {},
        _ => return None,
    })
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
