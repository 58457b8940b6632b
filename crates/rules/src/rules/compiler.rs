//! Rule files, compiled one after the other into one set.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hypovisor_abi::Width;
use hypovisor_abi::xen::XEN;
use hypovisor_verdict::{Action, MAX_WATCHES, Moment, Part, Range, RuleIndex, Watch};

use super::MAX_FILE_BYTES;
use crate::compile::{Assembler, Guard, Lowered, Scope, lower};
use crate::file::{self, Draft};
use crate::problem::{Place, Problems};
use crate::rule::{Rule, Target};
use crate::yaml;

/// The number of `iret`: it never returns to its caller, so it cannot be given an error.
const IRET: u16 = 23;

/// A set in the making, and the rules that are in it so far.
#[derive(Default)]
pub(super) struct Compiler {
    pub(super) rules: Vec<Rule>,
    ids: HashMap<String, PathBuf>,
    pub(super) assembler: Assembler,
}

impl Compiler {
    pub(super) fn file(&mut self, path: &Path, text: &str, problems: &mut Problems<'_>) {
        if text.len() as u64 > MAX_FILE_BYTES {
            return problems.add(
                Place::default(),
                "",
                format!("has {} bytes, more than {MAX_FILE_BYTES}", text.len()),
            );
        }
        let root = match yaml::parse(text) {
            Ok(root) => root,
            Err(error) => return problems.add(error.at, "", error.message),
        };
        let Some(mut draft) = file::read(path, &root, problems) else { return };
        if let Some(other) = self.ids.get(&draft.rule.id).filter(|_| !draft.rule.id.is_empty()) {
            let message = format!("`{}` is also the id of {}", draft.rule.id, other.display());
            problems.add(draft.places.get("id").copied().unwrap_or_default(), "id", message);
        }
        self.ids.insert(draft.rule.id.clone(), path.to_owned());
        self.conditions(&mut draft, problems);
        refuse_to_block(&draft, problems);
        self.assembler.set.actions.push(draft.rule.action);
        self.rules.push(draft.rule);
    }

    /// Compiles the conditions of a rule.
    fn conditions(&mut self, draft: &mut Draft, problems: &mut Problems<'_>) {
        let counts = draft.rule.rate.is_some() || draft.rule.sequence.is_some();
        for step in 0..draft.parts.len() {
            let rule = RuleIndex(self.rules.len().min(usize::from(u16::MAX)) as u16);
            let part = Part { rule, step: step as u8, counts };
            let mut watches = Vec::new();
            let mut at_return = None;
            for (target, at) in &draft.parts[step].on {
                for call in expand(target, draft.asks_for_handles(step)) {
                    let programs = self.programs(draft, step, &call, problems);
                    let Some((programs, reason)) = programs else { continue };
                    at_return = at_return.or(reason);
                    let (number, sub_op) = (call.number, call.sub_op);
                    watches.push(Watch { part, number, sub_op, moment: Moment::Entry, programs });
                }
                if self.assembler.set.watches.len() + watches.len() > MAX_WATCHES {
                    return problems.add(*at, "on", format!("more than {MAX_WATCHES} conditions in the set"));
                }
            }
            let moment = if at_return.is_some() { Moment::Return } else { Moment::Entry };
            watches.iter_mut().for_each(|watch| watch.moment = moment);
            self.assembler.set.watches.extend(watches);
            self.note(draft, step, moment, at_return, problems);
        }
    }

    /// The programs for both widths, and what in them is known only at return.
    fn programs(
        &mut self,
        draft: &Draft,
        step: usize,
        call: &Concerned,
        problems: &mut Problems<'_>,
    ) -> Option<([Range; 2], Option<String>)> {
        let mut compiled: Vec<Lowered> = Vec::new();
        for width in [Width::Bits64, Width::Bits32] {
            let scope = scope(call, width);
            let when = draft.parts[step].when.as_ref().map(|(field, expr)| (field.as_str(), expr));
            let lets = &draft.lets;
            match lower(&mut self.assembler, &scope, call.guard, lets, when, &draft.exceptions) {
                Ok(lowered) => compiled.push(lowered),
                Err(misuses) => {
                    for misuse in misuses {
                        problems.add(draft.place(&misuse.field, misuse.at), &misuse.field, misuse.message);
                    }
                }
            }
        }
        let [wide, narrow] = <[Lowered; 2]>::try_from(compiled).ok()?;
        Some(([wide.program, narrow.program], wide.at_return.or(narrow.at_return)))
    }

    fn note(
        &self,
        draft: &mut Draft,
        step: usize,
        moment: Moment,
        at_return: Option<String>,
        problems: &mut Problems<'_>,
    ) {
        let rule = &mut draft.rule;
        rule.moment = moment;
        if let Some(own) = rule.sequence.as_mut().and_then(|sequence| sequence.steps.get_mut(step)) {
            own.moment = moment;
        }
        if let (Some(reason), true) = (at_return, rule.action.blocks()) {
            // Not at the condition: it may be an exception, or a name in `let`, that asks for it.
            let at = draft.places.get("action").copied().unwrap_or_default();
            let message = format!(
                "the rule uses {reason}, which is known only when the call has returned: too late to block it"
            );
            problems.add(at, "action", message);
        }
    }
}

/// Calls that a condition is compiled for.
struct Concerned {
    number: Option<u16>,
    sub_op: Option<u64>,
    /// Of them only those that no other one covers.
    guard: Guard,
}

/// What a target stands for: itself. If the condition asks for handles, which only the tables of each call and sub-op
/// know, all of these, and the rest.
fn expand(target: &Target, every_table: bool) -> Vec<Concerned> {
    let (number, sub_op) = (target.number, target.sub_op);
    let itself = |guard| Concerned { number, sub_op, guard };
    if !every_table || sub_op.is_some() {
        return vec![itself(Guard::None)];
    }
    let Some(number) = number else {
        let known = XEN.calls.iter().flatten().flat_map(|call| of_call(call.number as u16));
        return known.chain([itself(Guard::UnknownCall)]).collect();
    };
    of_call(number)
}

fn of_call(number: u16) -> Vec<Concerned> {
    let of = |sub_op, guard| Concerned { number: Some(number), sub_op, guard };
    let Some(ops) = XEN.call(u64::from(number)).and_then(|call| call.sub_ops) else {
        return vec![of(None, Guard::None)];
    };
    let known = ops.ops.iter().map(|op| of(Some(op.number), Guard::None));
    known.chain([of(None, Guard::UnknownSubOp)]).collect()
}

fn scope(concerned: &Concerned, width: Width) -> Scope {
    let call = concerned.number.and_then(|number| XEN.call(u64::from(number)));
    let sub_op = concerned.sub_op.and_then(|number| call?.sub_op(number));
    Scope { call, sub_op, sub_op_number: concerned.sub_op, width }
}

/// What a rule that blocks must not have. Of conditions at return [`Compiler::note`] complains.
fn refuse_to_block(draft: &Draft, problems: &mut Problems<'_>) {
    let name = match draft.rule.action {
        Action::Alert => return,
        Action::Deny { .. } => "deny",
        Action::Pause => "pause",
    };
    let at = |field: &str| draft.places.get(field).copied().unwrap_or_default();
    for field in ["rate", "sequence"] {
        if draft.places.contains_key(field) {
            let message = format!("counts over several calls, so the rule cannot have `action: {name}`");
            problems.add(at(field), field, message);
        }
    }
    for part in &draft.parts {
        for (target, place) in &part.on {
            if target.number.is_none() || target.number == Some(IRET) {
                let what = if target.number.is_none() { "`*` includes `iret`, which" } else { "`iret`" };
                let message =
                    format!("{what} never returns to its caller, so it cannot be blocked (`action: {name}`)");
                problems.add(*place, &part.on_field, message);
            }
        }
    }
}
