//! Compares the tables with Xen's public headers, as gcc reads them.
//!
//! A C file is generated from the tables: one expression per size, offset and named constant. gcc compiles it
//! against the headers of `libxen-dev` (no 32-bit code is run, so plain Debian will do for both widths), and
//! the numbers are read from its assembly. Which names there should be comes from the headers' `#define`s.
//!
//! Two sets of headers are compared: Xen 4.20 (domctl interface 0x17) and 4.17 (0x15). A struct may have
//! several forms in the tables when the two differ; then each form must fit one of them, and each of them
//! must be fitted. A name may be missing from one set, never from both.

mod c;
mod defines;
mod exceptions;
mod tables;
mod trees;

use std::collections::{BTreeMap, BTreeSet};

use hypovisor_abi::Width;
use hypovisor_abi::xen::XEN;

use c::Question;
use defines::Family;
use tables::{Constant, Form, Tables};
use trees::Tree;

const WIDTHS: [Width; 2] = [Width::Bits64, Width::Bits32];

#[test]
fn layouts_are_those_of_the_headers() {
    let trees = trees::find();
    let mut problems = Vec::new();
    for width in WIDTHS {
        let forms = Tables::of(&XEN, width).forms;
        let verdicts: Vec<Vec<Verdict>> = trees.iter().map(|tree| judge(tree, width, &forms)).collect();
        for (name, indices) in by_name(&forms) {
            problems.extend(complaints(&name, width, &indices, &trees, &verdicts));
        }
    }
    report(&problems);
}

/// What one set of headers says about one form of a struct.
enum Verdict {
    /// There is no such struct.
    Undeclared,
    /// What differs, and which members it does not have.
    Declared { differences: Vec<String>, missing: BTreeSet<String> },
}

fn judge(tree: &Tree, width: Width, forms: &[Form]) -> Vec<Verdict> {
    let questions: Vec<Vec<Question>> = forms.iter().map(|form| questions(tree, form)).collect();
    let answers = c::ask(tree, width, questions.iter().flatten());
    let mut answers = answers.into_iter();
    questions.iter().map(|of_form| verdict(of_form, answers.by_ref().take(of_form.len()).collect())).collect()
}

/// What is asked about a struct of these headers.
fn questions(tree: &Tree, form: &Form) -> Vec<Question> {
    let mut questions = form.questions();
    let elsewhere = |subject: &str| {
        exceptions::CHANGED_MEMBERS.iter().any(|(of, member, _)| *of == form.c_name && *member == subject)
    };
    questions.retain(|question| tree.is_primary() || !elsewhere(&question.subject));
    questions
}

fn verdict(questions: &[Question], answers: Vec<Option<u64>>) -> Verdict {
    if answers.first().copied().flatten().is_none() {
        return Verdict::Undeclared;
    }
    let mut differences = Vec::new();
    let mut missing = BTreeSet::new();
    for (question, answer) in questions.iter().zip(answers) {
        match answer {
            None => {
                missing.insert(question.what.clone());
            }
            Some(value) if value != question.expected => {
                differences.push(format!("{} is {value}, in the table {}", question.what, question.expected));
            }
            Some(_) => {}
        }
    }
    Verdict::Declared { differences, missing }
}

fn by_name(forms: &[Form]) -> BTreeMap<String, Vec<usize>> {
    let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, form) in forms.iter().enumerate() {
        names.entry(form.c_name.to_owned()).or_default().push(index);
    }
    names
}

fn complaints(
    name: &str,
    width: Width,
    forms: &[usize],
    trees: &[Tree],
    verdicts: &[Vec<Verdict>],
) -> Vec<String> {
    let mut out = Vec::new();
    let fits = |tree: usize, form: usize| matches!(&verdicts[tree][form], Verdict::Declared { differences, .. } if differences.is_empty());
    let declared = |tree: usize| !matches!(verdicts[tree][forms[0]], Verdict::Undeclared);
    if !(0..trees.len()).any(declared) {
        return vec![format!("{name}: no such type in any headers")];
    }
    for (tree, version) in trees.iter().enumerate() {
        if declared(tree) && !forms.iter().any(|form| fits(tree, *form)) {
            for form in forms {
                out.extend(
                    differences(&verdicts[tree][*form])
                        .map(|text| format!("{name} ({width:?}, {version}): {text}")),
                );
            }
        }
    }
    for form in forms {
        if !(0..trees.len()).any(|tree| fits(tree, *form)) {
            out.push(format!("{name} ({width:?}): one of its forms in the tables fits no headers"));
        }
        let missing = missing_everywhere((0..trees.len()).map(|tree| &verdicts[tree][*form]));
        out.extend(missing.into_iter().map(|text| format!("{name} ({width:?}): {text}: no headers have it")));
    }
    out
}

fn differences(verdict: &Verdict) -> impl Iterator<Item = &String> {
    match verdict {
        Verdict::Declared { differences, .. } => differences.as_slice(),
        Verdict::Undeclared => &[],
    }
    .iter()
}

fn missing_everywhere<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> BTreeSet<String> {
    let mut sets = verdicts.filter_map(|verdict| match verdict {
        Verdict::Declared { missing, .. } => Some(missing.clone()),
        Verdict::Undeclared => None,
    });
    let first = sets.next().unwrap_or_default();
    sets.fold(first, |all, set| all.intersection(&set).cloned().collect())
}

#[test]
fn constants_have_the_headers_values() {
    let trees = trees::find();
    let names = Tables::of(&XEN, Width::Bits64).constants;
    let names_in_order: Vec<&Constant> = names.iter().collect();
    let questions: Vec<Question> = names.iter().map(Constant::question).collect();
    let mut known = vec![false; questions.len()];
    let mut problems = Vec::new();
    for tree in &trees {
        for (index, answer) in c::ask(tree, Width::Bits64, questions.iter()).into_iter().enumerate() {
            known[index] |= answer.is_some();
            if answer == Some(0) && !changed(tree, names_in_order[index].name) {
                problems.push(format!("{tree}: {}", questions[index].what));
            }
        }
    }
    for (constant, known) in names.iter().zip(known) {
        if !known
            && constant.looks_like_c()
            && !exceptions::NAMES.iter().any(|(name, _)| *name == constant.name)
        {
            problems.push(format!("{} ({}): no headers have it", constant.name, constant.list));
        }
    }
    report(&problems);
}

#[test]
fn lists_are_complete() {
    let constants = Tables::of(&XEN, Width::Bits64).constants;
    let names: BTreeSet<&str> = constants.iter().map(|constant| constant.name).collect();
    let mut problems = BTreeSet::new();
    for tree in trees::find() {
        for (header, prefix) in defines::LISTS {
            let found = defines::of_list(&tree, header, prefix);
            let missing = found.into_iter().filter(|name| !names.contains(name.as_str()));
            problems.extend(missing.map(|name| format!("{header}: {name} is in no table")));
        }
    }
    report(&problems.into_iter().collect::<Vec<_>>());
}

/// Whether the tables knowingly have another version's value.
fn changed(tree: &Tree, name: &str) -> bool {
    !tree.is_primary() && exceptions::CHANGED.iter().any(|(other, _)| *other == name)
}

#[test]
fn every_hypercall_is_in_the_table() {
    let mut problems = Vec::new();
    for tree in trees::find() {
        for (name, number) in defines::hypercalls(&tree) {
            match XEN.call(number) {
                Some(call) if call.name == name => {}
                Some(call) => {
                    problems.push(format!("{tree}: {number} is {name}, in the table {}", call.name))
                }
                None => problems.push(format!("{tree}: {name} ({number}) is not in the table")),
            }
        }
    }
    report(&problems);
}

#[test]
fn every_sub_op_is_in_the_table() {
    let mut problems = BTreeSet::new();
    let mut defined: BTreeSet<(&str, String)> = BTreeSet::new();
    for tree in trees::find() {
        for family in defines::FAMILIES {
            for (name, number) in defines::of_family(&tree, family) {
                problems.extend(missing_sub_op(family, &name, number));
                defined.insert((family.call, name));
            }
        }
    }
    problems.extend(strangers(&defined));
    report(&problems.into_iter().collect::<Vec<_>>());
}

fn missing_sub_op(family: &Family, name: &str, number: u64) -> Option<String> {
    let call = family.call;
    let ops = XEN.call_named(call).and_then(|call| call.sub_ops).map_or(&[][..], |ops| ops.ops);
    match ops.iter().filter(|op| op.name == name).collect::<Vec<_>>()[..] {
        [] if family.requires(number) => Some(format!("{call}: {name} ({number}) is not in the table")),
        [op] if op.number != number => {
            Some(format!("{call}: {name} is {number}, in the table {}", op.number))
        }
        [] | [_] => None,
        _ => Some(format!("{call}: {name} is in the table twice")),
    }
}

/// Sub-ops of the tables that no headers define.
fn strangers(defined: &BTreeSet<(&str, String)>) -> Vec<String> {
    let mut problems = Vec::new();
    for call in XEN.calls.iter().copied().flatten() {
        let ops = call.sub_ops.map_or(&[][..], |ops| ops.ops);
        for op in ops {
            let known = defined.iter().any(|(of, name)| *of == call.name && name == op.name);
            if !known && !exceptions::NAMES.iter().any(|(name, _)| *name == op.name) {
                problems.push(format!("{}: {}: no headers have it", call.name, op.name));
            }
        }
    }
    problems
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "{} differences:\n  {}", problems.len(), problems.join("\n  "));
}
