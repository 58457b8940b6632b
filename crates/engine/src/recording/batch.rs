//! Calls on their way into a segment, column by column.

use hypovisor_abi::{decode, xen};
use hypovisor_event::record::CallerMode;
use hypovisor_event::verdict::Verdict;

use super::names::{Names, Numbers};
use super::pages::{Bits, Blobs, Buffer, Dictionary, Ids, Longs, Nullable};
use super::schema::COLUMNS;
use crate::call::{Call, Outcome};

/// Names of caller modes, by `CallerMode as u8`.
pub(super) const MODES: [&str; 4] = ["pv64", "pv32", "hvm64", "hvm32"];
/// Names of outcomes, by [`outcome_id`].
pub(super) const OUTCOMES: [&str; 4] = ["returned", "preempted", "unfinished", "resumed"];

/// How a mode is spelt in recordings and events.
#[must_use]
pub(crate) fn mode_name(mode: CallerMode) -> &'static str {
    MODES[mode as usize & 3]
}

/// How an outcome is spelt in recordings and events.
#[must_use]
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    OUTCOMES[usize::from(outcome_id(outcome))]
}

const fn outcome_id(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Returned(_) => 0,
        Outcome::Preempted => 1,
        Outcome::Unfinished => 2,
        Outcome::Resumed => 3,
    }
}

/// The values of one column.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Longs(&'a Longs),
    Blobs(&'a Blobs),
    Bits(&'a Bits),
    Ids(&'a Ids, &'a Dictionary),
}

/// One column: which rows have a value (all, if there are no levels), and the values.
#[derive(Clone, Copy)]
pub(super) struct Column<'a> {
    pub(super) levels: Option<&'a Bits>,
    pub(super) values: Values<'a>,
}

/// The rows of one segment.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) rows: usize,
    /// Lowest and highest value of the time column.
    pub(super) times: Option<(i64, i64)>,
    time: Longs,
    pcpu: Ids,
    sequence: Longs,
    parent: Nullable<Longs>,
    is_continuation: Bits,
    continues_pcpu: Nullable<Ids>,
    continues_sequence: Nullable<Longs>,
    domain: Ids,
    vcpu: Ids,
    mode: Ids,
    cpl: Ids,
    cs: Ids,
    rip: Ids,
    rsp: Longs,
    hypercall: Ids,
    sub_op_number: Nullable<Longs>,
    sub_op: Nullable<Ids>,
    args: [Longs; 6],
    outcome: Ids,
    result: Nullable<Longs>,
    errno: Nullable<Ids>,
    failed: Bits,
    duration_ns: Nullable<Longs>,
    cut: Bits,
    injected: Bits,
    verdict: Nullable<Ids>,
    entry_memory: Nullable<Blobs>,
    exit_memory: Nullable<Blobs>,
    names: Names,
    numbers: NumberSets,
    modes: Dictionary,
    outcomes: Dictionary,
    verdicts: Dictionary,
}

/// The dictionaries of the integer columns that have one.
#[derive(Debug)]
struct NumberSets {
    pcpus: Numbers,
    domains: Numbers,
    vcpus: Numbers,
    cpls: Numbers,
    selectors: Numbers,
    rips: Numbers,
}

impl NumberSets {
    fn new() -> Self {
        Self {
            pcpus: Numbers::int32(),
            domains: Numbers::int32(),
            vcpus: Numbers::int32(),
            cpls: Numbers::int32(),
            selectors: Numbers::int32(),
            rips: Numbers::int64(),
        }
    }

    fn clear(&mut self) {
        let Self { pcpus, domains, vcpus, cpls, selectors, rips } = self;
        [pcpus, domains, vcpus, cpls, selectors, rips].into_iter().for_each(Numbers::clear);
    }

    const fn is_full(&self) -> bool {
        // The others have at most 2^16 - 1 values between two of these, or are never that many.
        self.rips.is_full() || self.domains.is_full() || self.vcpus.is_full() || self.selectors.is_full()
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            times: None,
            time: Longs::default(),
            pcpu: Ids::default(),
            sequence: Longs::default(),
            parent: Nullable::default(),
            is_continuation: Bits::default(),
            continues_pcpu: Nullable::default(),
            continues_sequence: Nullable::default(),
            domain: Ids::default(),
            vcpu: Ids::default(),
            mode: Ids::default(),
            cpl: Ids::default(),
            cs: Ids::default(),
            rip: Ids::default(),
            rsp: Longs::default(),
            hypercall: Ids::default(),
            sub_op_number: Nullable::default(),
            sub_op: Nullable::default(),
            args: Default::default(),
            outcome: Ids::default(),
            result: Nullable::default(),
            errno: Nullable::default(),
            failed: Bits::default(),
            duration_ns: Nullable::default(),
            cut: Bits::default(),
            injected: Bits::default(),
            verdict: Nullable::default(),
            entry_memory: Nullable::default(),
            exit_memory: Nullable::default(),
            names: Names::new(),
            numbers: NumberSets::new(),
            modes: fixed_dictionary(&MODES),
            outcomes: fixed_dictionary(&OUTCOMES),
            verdicts: fixed_dictionary(&Verdict::ALL.map(Verdict::name)),
        }
    }

    /// Bytes of captured guest memory.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.entry_memory.values.0.len() + self.exit_memory.values.0.len()
    }

    /// Whether the next call could find a dictionary without room.
    pub(super) const fn dictionaries_are_full(&self) -> bool {
        self.names.is_full() || self.numbers.is_full()
    }

    pub(super) fn push(&mut self, call: &Call<'_>) {
        self.rows += 1;
        self.push_identity(call);
        self.push_caller(call);
        self.push_registers(call);
        self.push_outcome(call);
        self.cut.push(call.cut);
        self.injected.push(call.intervention.injected);
        self.verdict.push(call.intervention.verdict.map(|verdict| verdict as u16 - 1));
        self.entry_memory.push(call.entry_segments);
        self.exit_memory.push(call.exit_segments);
    }

    fn push_identity(&mut self, call: &Call<'_>) {
        let time = call.time_ns;
        self.times = Some(self.times.map_or((time, time), |(low, high)| (low.min(time), high.max(time))));
        self.time.push(time);
        self.pcpu.push(self.numbers.pcpus.id(call.id.pcpu.into()));
        self.sequence.push(call.id.sequence as i64);
        self.parent.push(call.parent.map(|parent| parent.sequence as i64));
        self.is_continuation.push(call.continues.is_some());
        let continued_pcpu = call.continues.map(|continued| self.numbers.pcpus.id(continued.pcpu.into()));
        self.continues_pcpu.push(continued_pcpu);
        self.continues_sequence.push(call.continues.map(|continued| continued.sequence as i64));
    }

    fn push_caller(&mut self, call: &Call<'_>) {
        let caller = &call.caller;
        self.domain.push(self.numbers.domains.id(caller.domain.into()));
        self.vcpu.push(self.numbers.vcpus.id(caller.vcpu.into()));
        self.mode.push(caller.mode as u16);
        self.cpl.push(self.numbers.cpls.id(caller.cpl.into()));
        self.cs.push(self.numbers.selectors.id(caller.cs.into()));
        self.rip.push(self.numbers.rips.id(caller.rip));
        self.rsp.push(caller.rsp as i64);
    }

    fn push_registers(&mut self, call: &Call<'_>) {
        let identity = decode::identify(&xen::XEN, &call.captured());
        self.hypercall.push(self.names.call_id(call.registers.number));
        self.sub_op_number.push(identity.sub_op_number.map(|number| number as i64));
        self.sub_op.push(self.names.sub_op_id(&identity));
        for (column, value) in self.args.iter_mut().zip(call.registers.args) {
            column.push(value as i64);
        }
    }

    fn push_outcome(&mut self, call: &Call<'_>) {
        let result = call.outcome.result();
        let errno = result.and_then(|result| self.names.errno_id(result));
        self.outcome.push(outcome_id(call.outcome));
        self.result.push(result);
        self.failed.push(errno.is_some());
        self.errno.push(errno);
        self.duration_ns.push(call.duration_ns.map(|duration| duration as i64));
    }

    /// The columns in the order of the schema.
    pub(super) fn columns(&self) -> [Column<'_>; COLUMNS] {
        let [arg1, arg2, arg3, arg4, arg5, arg6] = &self.args;
        let numbers = &self.numbers;
        [
            longs(&self.time),
            ids(&self.pcpu, &numbers.pcpus.dictionary),
            longs(&self.sequence),
            nullable_longs(&self.parent),
            bits(&self.is_continuation),
            nullable_ids(&self.continues_pcpu, &numbers.pcpus.dictionary),
            nullable_longs(&self.continues_sequence),
            ids(&self.domain, &numbers.domains.dictionary),
            ids(&self.vcpu, &numbers.vcpus.dictionary),
            ids(&self.mode, &self.modes),
            ids(&self.cpl, &numbers.cpls.dictionary),
            ids(&self.cs, &numbers.selectors.dictionary),
            ids(&self.rip, &numbers.rips.dictionary),
            longs(&self.rsp),
            ids(&self.hypercall, &self.names.numbers),
            ids(&self.hypercall, &self.names.calls),
            nullable_longs(&self.sub_op_number),
            nullable_ids(&self.sub_op, &self.names.sub_ops),
            longs(arg1),
            longs(arg2),
            longs(arg3),
            longs(arg4),
            longs(arg5),
            longs(arg6),
            ids(&self.outcome, &self.outcomes),
            nullable_longs(&self.result),
            nullable_ids(&self.errno, &self.names.errnos),
            bits(&self.failed),
            nullable_longs(&self.duration_ns),
            bits(&self.cut),
            bits(&self.injected),
            nullable_ids(&self.verdict, &self.verdicts),
            nullable_blobs(&self.entry_memory),
            nullable_blobs(&self.exit_memory),
        ]
    }

    /// Empties the batch; it keeps its memory.
    pub(super) fn clear(&mut self) {
        self.rows = 0;
        self.times = None;
        [&mut self.time, &mut self.sequence, &mut self.rsp].into_iter().for_each(Longs::clear);
        self.args.iter_mut().for_each(Longs::clear);
        [&mut self.is_continuation, &mut self.failed, &mut self.cut, &mut self.injected]
            .into_iter()
            .for_each(Bits::clear);
        self.clear_ids();
        self.clear_nullable();
        self.names.clear();
        self.numbers.clear();
    }

    fn clear_ids(&mut self) {
        let ids = [
            &mut self.pcpu,
            &mut self.domain,
            &mut self.vcpu,
            &mut self.mode,
            &mut self.cpl,
            &mut self.cs,
            &mut self.rip,
            &mut self.hypercall,
            &mut self.outcome,
        ];
        ids.into_iter().for_each(Ids::clear);
    }

    fn clear_nullable(&mut self) {
        let longs = [
            &mut self.parent,
            &mut self.continues_sequence,
            &mut self.sub_op_number,
            &mut self.result,
            &mut self.duration_ns,
        ];
        longs.into_iter().for_each(Nullable::clear);
        [&mut self.continues_pcpu, &mut self.sub_op, &mut self.errno, &mut self.verdict]
            .into_iter()
            .for_each(Nullable::clear);
        [&mut self.entry_memory, &mut self.exit_memory].into_iter().for_each(Nullable::clear);
    }
}

fn fixed_dictionary(entries: &[&str]) -> Dictionary {
    let mut dictionary = Dictionary::default();
    for entry in entries {
        dictionary.add_text(entry);
    }
    dictionary
}

const fn longs(values: &Longs) -> Column<'_> {
    Column { levels: None, values: Values::Longs(values) }
}

const fn bits(values: &Bits) -> Column<'_> {
    Column { levels: None, values: Values::Bits(values) }
}

const fn ids<'a>(values: &'a Ids, dictionary: &'a Dictionary) -> Column<'a> {
    Column { levels: None, values: Values::Ids(values, dictionary) }
}

const fn nullable_longs(column: &Nullable<Longs>) -> Column<'_> {
    Column { levels: Some(&column.present), values: Values::Longs(&column.values) }
}

const fn nullable_blobs(column: &Nullable<Blobs>) -> Column<'_> {
    Column { levels: Some(&column.present), values: Values::Blobs(&column.values) }
}

const fn nullable_ids<'a>(column: &'a Nullable<Ids>, dictionary: &'a Dictionary) -> Column<'a> {
    Column { levels: Some(&column.present), values: Values::Ids(&column.values, dictionary) }
}
