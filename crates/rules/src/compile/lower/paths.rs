//! Paths: fields of arguments, behind pointers and in lists, to instructions that read them.

use hypovisor_abi::Width;
use hypovisor_abi::types::Type;
use hypovisor_verdict::{Op, Side};

use super::{Lowering, Root, Ty, Variable, fact};
use crate::compile::assembler::Hole;
use crate::compile::names::Names;
use crate::compile::path::{Memory, Rule, Spot, Step, follow_steps, names_in, resolve};
use crate::compile::scope::Scope;
use crate::condition::{Expr, Kind};
use crate::suggest::some_of;

impl<'l> Lowering<'l> {
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
    pub(super) fn spots(&mut self, expr: &Expr) -> Option<Result<Vec<Spot>, String>> {
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
    pub(super) fn value_of(&mut self, at: usize, spots: &[Spot], after: bool) -> Ty {
        self.first_present(spots, |lowering, spot| match lowering.spot(spot, after) {
            Ok(ty) => ty,
            Err(message) => lowering.misuse(at, message),
        })
    }

    pub(super) fn first_present(
        &mut self,
        spots: &[Spot],
        mut push: impl FnMut(&mut Self, &Spot) -> Ty,
    ) -> Ty {
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

    pub(super) fn spot(&mut self, spot: &Spot, after: bool) -> Result<Ty, String> {
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
    pub(super) fn side(&mut self, memory: &Memory, after: bool) -> Result<Side, String> {
        if after && !memory.exit {
            return Err("Xen does not write there, so there is no value after the call".into());
        }
        if !after && memory.rule.before() {
            return Ok(Side::Entry);
        }
        self.needs_return(if after { "after()" } else { "a field that Xen writes" });
        Ok(Side::Exit)
    }

    pub(super) fn no_field(&mut self, of: &Expr, field: &str) -> Ty {
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

    pub(super) fn raw_arg(&mut self, at: usize, of: &Expr, index: &Expr) -> Ty {
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
}

pub(super) fn is_aggregate(spot: &Spot) -> bool {
    let Spot::Memory { ty, .. } = spot else { return false };
    !matches!(ty, Type::Int(_) | Type::Handle(_) | Type::Tail(_))
}
