//! Calls on their way into a segment, column by column.

use hypovisor_abi::{decode, xen};
use hypovisor_event::record::CallerMode;

use super::names::Names;
use super::pages::{Bits, Dictionary, Ids, Nullable, Plain};
use super::schema::COLUMNS;
use crate::call::{Call, Outcome};

/// Names of caller modes, by `CallerMode as u8`.
pub(super) const MODES: [&str; 4] = ["pv64", "pv32", "hvm64", "hvm32"];
/// Names of outcomes, by [`outcome_id`].
pub(super) const OUTCOMES: [&str; 3] = ["returned", "preempted", "unfinished"];

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
    }
}

/// The values of one column.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Plain(&'a Plain),
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
    time: Plain,
    pcpu: Plain,
    sequence: Plain,
    parent: Nullable<Plain>,
    is_continuation: Bits,
    continues_pcpu: Nullable<Plain>,
    continues_sequence: Nullable<Plain>,
    domain: Plain,
    vcpu: Plain,
    mode: Ids,
    cpl: Plain,
    cs: Plain,
    rip: Plain,
    rsp: Plain,
    number: Plain,
    hypercall: Ids,
    sub_op_number: Nullable<Plain>,
    sub_op: Nullable<Ids>,
    args: [Plain; 6],
    outcome: Ids,
    result: Nullable<Plain>,
    errno: Nullable<Ids>,
    failed: Bits,
    duration_ns: Nullable<Plain>,
    cut: Bits,
    entry_memory: Nullable<Plain>,
    exit_memory: Nullable<Plain>,
    names: Names,
    modes: Dictionary,
    outcomes: Dictionary,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            times: None,
            time: Plain::default(),
            pcpu: Plain::default(),
            sequence: Plain::default(),
            parent: Nullable::default(),
            is_continuation: Bits::default(),
            continues_pcpu: Nullable::default(),
            continues_sequence: Nullable::default(),
            domain: Plain::default(),
            vcpu: Plain::default(),
            mode: Ids::default(),
            cpl: Plain::default(),
            cs: Plain::default(),
            rip: Plain::default(),
            rsp: Plain::default(),
            number: Plain::default(),
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
            entry_memory: Nullable::default(),
            exit_memory: Nullable::default(),
            names: Names::new(),
            modes: fixed_dictionary(&MODES),
            outcomes: fixed_dictionary(&OUTCOMES),
        }
    }

    /// Bytes of captured guest memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entry_memory.values.as_bytes().len() + self.exit_memory.values.as_bytes().len()
    }

    /// Whether the next call could find a dictionary without room.
    pub(super) const fn names_are_full(&self) -> bool {
        self.names.is_full()
    }

    pub(super) fn push(&mut self, call: &Call<'_>) {
        self.rows += 1;
        self.push_identity(call);
        self.push_caller(call);
        self.push_registers(call);
        self.push_outcome(call);
        self.cut.push(call.cut);
        self.entry_memory.push_bytes(call.entry_segments);
        self.exit_memory.push_bytes(call.exit_segments);
    }

    fn push_identity(&mut self, call: &Call<'_>) {
        let time = call.time_ns;
        self.times = Some(self.times.map_or((time, time), |(low, high)| (low.min(time), high.max(time))));
        self.time.push_i64(time);
        self.pcpu.push_u32(call.id.pcpu);
        self.sequence.push_u64(call.id.sequence);
        self.parent.push_i64(call.parent.map(|parent| parent.sequence as i64));
        self.is_continuation.push(call.continues.is_some());
        self.continues_pcpu.present.push(call.continues.is_some());
        if let Some(continued) = call.continues {
            self.continues_pcpu.values.push_u32(continued.pcpu);
        }
        self.continues_sequence.push_i64(call.continues.map(|continued| continued.sequence as i64));
    }

    fn push_caller(&mut self, call: &Call<'_>) {
        let caller = &call.caller;
        self.domain.push_u32(u32::from(caller.domain));
        self.vcpu.push_u32(u32::from(caller.vcpu));
        self.mode.push(caller.mode as u16);
        self.cpl.push_u32(u32::from(caller.cpl));
        self.cs.push_u32(u32::from(caller.cs));
        self.rip.push_u64(caller.rip);
        self.rsp.push_u64(caller.rsp);
    }

    fn push_registers(&mut self, call: &Call<'_>) {
        let number = call.registers.number;
        let identity = decode::identify(&xen::XEN, &call.captured());
        self.number.push_u64(number);
        self.hypercall.push(self.names.call_id(number));
        self.sub_op_number.push_i64(identity.sub_op_number.map(|number| number as i64));
        self.sub_op.push(self.names.sub_op_id(number, &identity));
        for (column, value) in self.args.iter_mut().zip(call.registers.args) {
            column.push_u64(value);
        }
    }

    fn push_outcome(&mut self, call: &Call<'_>) {
        let result = call.outcome.result();
        let errno = result.and_then(|result| self.names.errno_id(result));
        self.outcome.push(outcome_id(call.outcome));
        self.result.push_i64(result);
        self.failed.push(errno.is_some());
        self.errno.push(errno);
        self.duration_ns.push_i64(call.duration_ns.map(|duration| duration as i64));
    }

    /// The columns in the order of the schema.
    pub(super) fn columns(&self) -> [Column<'_>; COLUMNS] {
        let [arg1, arg2, arg3, arg4, arg5, arg6] = &self.args;
        [
            plain(&self.time),
            plain(&self.pcpu),
            plain(&self.sequence),
            nullable(&self.parent),
            bits(&self.is_continuation),
            nullable(&self.continues_pcpu),
            nullable(&self.continues_sequence),
            plain(&self.domain),
            plain(&self.vcpu),
            ids(&self.mode, &self.modes),
            plain(&self.cpl),
            plain(&self.cs),
            plain(&self.rip),
            plain(&self.rsp),
            plain(&self.number),
            ids(&self.hypercall, &self.names.calls),
            nullable(&self.sub_op_number),
            nullable_ids(&self.sub_op, &self.names.sub_ops),
            plain(arg1),
            plain(arg2),
            plain(arg3),
            plain(arg4),
            plain(arg5),
            plain(arg6),
            ids(&self.outcome, &self.outcomes),
            nullable(&self.result),
            nullable_ids(&self.errno, &self.names.errnos),
            bits(&self.failed),
            nullable(&self.duration_ns),
            bits(&self.cut),
            nullable(&self.entry_memory),
            nullable(&self.exit_memory),
        ]
    }

    /// Empties the batch; it keeps its memory.
    pub(super) fn clear(&mut self) {
        self.rows = 0;
        self.times = None;
        self.clear_required();
        self.clear_nullable();
        self.names.clear();
    }

    fn clear_required(&mut self) {
        let plain = [
            &mut self.time,
            &mut self.pcpu,
            &mut self.sequence,
            &mut self.domain,
            &mut self.vcpu,
            &mut self.cpl,
            &mut self.cs,
            &mut self.rip,
            &mut self.rsp,
            &mut self.number,
        ];
        plain.into_iter().chain(&mut self.args).for_each(Plain::clear);
        [&mut self.is_continuation, &mut self.failed, &mut self.cut].into_iter().for_each(Bits::clear);
        [&mut self.mode, &mut self.hypercall, &mut self.outcome].into_iter().for_each(Ids::clear);
    }

    fn clear_nullable(&mut self) {
        let nullable = [
            &mut self.parent,
            &mut self.continues_pcpu,
            &mut self.continues_sequence,
            &mut self.sub_op_number,
            &mut self.result,
            &mut self.duration_ns,
            &mut self.entry_memory,
            &mut self.exit_memory,
        ];
        nullable.into_iter().for_each(Nullable::<Plain>::clear);
        [&mut self.sub_op, &mut self.errno].into_iter().for_each(Nullable::<Ids>::clear);
    }
}

fn fixed_dictionary(entries: &[&str]) -> Dictionary {
    let mut dictionary = Dictionary::default();
    for entry in entries {
        dictionary.add(entry);
    }
    dictionary
}

const fn plain(values: &Plain) -> Column<'_> {
    Column { levels: None, values: Values::Plain(values) }
}

const fn bits(values: &Bits) -> Column<'_> {
    Column { levels: None, values: Values::Bits(values) }
}

const fn ids<'a>(values: &'a Ids, dictionary: &'a Dictionary) -> Column<'a> {
    Column { levels: None, values: Values::Ids(values, dictionary) }
}

const fn nullable(column: &Nullable<Plain>) -> Column<'_> {
    Column { levels: Some(&column.present), values: Values::Plain(&column.values) }
}

const fn nullable_ids<'a>(column: &'a Nullable<Ids>, dictionary: &'a Dictionary) -> Column<'a> {
    Column { levels: Some(&column.present), values: Values::Ids(&column.values, dictionary) }
}
