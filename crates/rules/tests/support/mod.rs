//! Made-up calls: registers, guest memory before and after, and what a condition says of them.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::PathBuf;

use hypovisor_abi::Width;
use hypovisor_abi::capture::{Phase, Registers, Segments, capture};
use hypovisor_abi::decode::Call;
use hypovisor_abi::fuzzing::Copier;
use hypovisor_abi::xen::XEN;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_rules::{Rules, RulesError};
use hypovisor_verdict::{End, Facts, GuestKind, Moment, Outcome, RuleIndex, Standing};

/// A piece of guest memory.
pub(crate) type Piece = (u64, Vec<u8>);

/// A call that is put together piece by piece.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) args: [u64; 6],
    pub(crate) mode: CallerMode,
    pub(crate) domain: u16,
    pub(crate) privileged: bool,
    pub(crate) before: Vec<Piece>,
    pub(crate) after: Vec<Piece>,
    pub(crate) result: Option<i64>,
    pub(crate) cut: bool,
}

impl Made {
    pub(crate) fn new(number: u64, args: &[u64]) -> Self {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        Self {
            number,
            args: all,
            mode: CallerMode::Pv64,
            domain: 3,
            privileged: false,
            before: Vec::new(),
            after: Vec::new(),
            result: Some(0),
            cut: false,
        }
    }

    /// Memory that Xen does not change.
    pub(crate) fn memory(mut self, gva: u64, bytes: &[u8]) -> Self {
        self.before.push((gva, bytes.to_vec()));
        self.after.push((gva, bytes.to_vec()));
        self
    }

    pub(crate) fn changing(mut self, gva: u64, before: &[u8], after: &[u8]) -> Self {
        self.before.push((gva, before.to_vec()));
        self.after.push((gva, after.to_vec()));
        self
    }

    pub(crate) fn mode(mut self, mode: CallerMode) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn result(mut self, result: i64) -> Self {
        self.result = Some(result);
        self
    }

    fn registers(&self) -> Registers {
        let width = if self.mode.is_64_bit() { Width::Bits64 } else { Width::Bits32 };
        Registers { number: self.number, args: self.args, width }
    }

    fn captured(&self, phase: Phase) -> Vec<u8> {
        let memory = if phase == Phase::Entry { &self.before } else { &self.after };
        let byte = |gva: u64| {
            let piece =
                memory.iter().find(|(start, bytes)| gva >= *start && gva - start < bytes.len() as u64);
            piece.map(|(start, bytes)| bytes[(gva - start) as usize])
        };
        let mut copier = Copier::new(byte);
        capture(&XEN, &self.registers(), phase, &mut copier);
        copier.out
    }

    /// Hands the call to `judge` as it is at this moment.
    pub(crate) fn at<T>(&self, moment: Moment, judge: impl FnOnce(&Facts<'_>) -> T) -> T {
        let entry = self.captured(Phase::Entry);
        let exit = if moment == Moment::Return { self.captured(Phase::Exit) } else { Vec::new() };
        let call = Call { registers: self.registers(), entry: Segments(&entry), exit: Segments(&exit) };
        let end = End {
            outcome: if self.result.is_some() { Outcome::Returned } else { Outcome::Preempted },
            result: self.result,
            duration_ns: Some(1500),
        };
        judge(&Facts {
            call: &call,
            caller: Caller {
                domain: self.domain,
                vcpu: 1,
                mode: self.mode,
                cpl: 3,
                cs: 0xe033,
                rip: 0xffff_ffff_8100_13aa,
                rsp: 0x1000,
            },
            pcpu: 2,
            kind: if self.mode.is_pv() { GuestKind::Pv } else { GuestKind::Hvm },
            privileged: self.privileged,
            inner: false,
            continuation: false,
            cut: self.cut,
            end: (moment == Moment::Return).then_some(end),
        })
    }
}

/// A rule file with this `on` and `when`, and further lines.
pub(crate) fn file(on: &str, when: &str, more: &str) -> String {
    let when = if when.is_empty() { String::new() } else { format!("when: |\n  {when}\n") };
    format!("id: T\ntitle: T\ndescription: D\nblind_spots: B\nseverity: low\non: {on}\n{more}{when}")
}

pub(crate) fn rules(text: &str) -> Result<Rules, RulesError> {
    Rules::from_texts(vec![(PathBuf::from("t.yaml"), text.to_owned())])
}

#[track_caller]
pub(crate) fn load(text: &str) -> Rules {
    rules(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What the first rule says of a call: `Some(true)`, `Some(false)`, or `None` if it cannot be decided.
#[track_caller]
pub(crate) fn says(rules: &Rules, call: &Made) -> Option<bool> {
    let moment = rules.get(RuleIndex(0)).unwrap().moment;
    let mut answer = Some(false);
    call.at(moment, |facts| {
        rules.compiled().judge_parts(facts, moment, &mut |_, standing| {
            answer = match standing {
                Standing::Match => Some(true),
                _ => None,
            };
        });
    });
    answer
}

/// As [`says`], of a condition.
#[track_caller]
pub(crate) fn judge(on: &str, when: &str, call: &Made) -> Option<bool> {
    says(&load(&file(on, when, "")), call)
}

/// Little-endian words.
pub(crate) fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
