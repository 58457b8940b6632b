//! Dictionary ids of names, found without building a string per call.

use std::collections::HashMap;

use hypovisor_abi::decode::Identity;
use hypovisor_abi::{errno, xen};

use super::pages::Dictionary;

/// Hypercall numbers with a slot of their own; others go through a map.
const DIRECT_CALLS: usize = 64;
/// Slots of the sub-op cache, a power of two.
const SUB_OP_SLOTS: usize = 1024;
/// The largest errno.
const ERRNOS: usize = 4096;
const NO_ID: u16 = u16::MAX;
/// A segment ends when a dictionary has fewer entries than this left.
const HEADROOM: u16 = 16;

#[derive(Clone, Copy, Debug)]
struct SubOpSlot {
    number: u64,
    sub_op: u64,
    id: u16,
}

const EMPTY_SLOT: SubOpSlot = SubOpSlot { number: 0, sub_op: 0, id: NO_ID };

/// The names in one segment.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) calls: Dictionary,
    pub(super) sub_ops: Dictionary,
    pub(super) errnos: Dictionary,
    call_ids: [u16; DIRECT_CALLS],
    other_calls: HashMap<u64, u16>,
    sub_op_slots: Vec<SubOpSlot>,
    other_sub_ops: HashMap<(u64, u64), u16>,
    errno_ids: Vec<u16>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            calls: Dictionary::default(),
            sub_ops: Dictionary::default(),
            errnos: Dictionary::default(),
            call_ids: [NO_ID; DIRECT_CALLS],
            other_calls: HashMap::new(),
            sub_op_slots: vec![EMPTY_SLOT; SUB_OP_SLOTS],
            other_sub_ops: HashMap::new(),
            errno_ids: vec![NO_ID; ERRNOS],
        }
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.sub_ops.clear();
        self.errnos.clear();
        self.call_ids.fill(NO_ID);
        self.other_calls.clear();
        self.sub_op_slots.fill(EMPTY_SLOT);
        self.other_sub_ops.clear();
        self.errno_ids.fill(NO_ID);
    }

    /// Whether the next call could need an id that is not there.
    pub(super) const fn is_full(&self) -> bool {
        self.calls.len() > Dictionary::CAPACITY - HEADROOM
    }

    #[inline]
    pub(super) fn call_id(&mut self, number: u64) -> u16 {
        match self.call_ids.get(number as usize) {
            Some(&id) if id != NO_ID => id,
            _ => self.new_call_id(number),
        }
    }

    #[cold]
    fn new_call_id(&mut self, number: u64) -> u16 {
        if let Some(&id) = self.other_calls.get(&number) {
            return id;
        }
        let id = self.calls.add(&call_name(number));
        match self.call_ids.get_mut(number as usize) {
            Some(slot) => *slot = id,
            None => drop(self.other_calls.insert(number, id)),
        }
        id
    }

    /// The id of a sub-op's name; `None` if the tables have none.
    #[inline]
    pub(super) fn sub_op_id(&mut self, number: u64, identity: &Identity) -> Option<u16> {
        let sub_op = identity.sub_op?;
        let slot = (number.wrapping_mul(67) ^ sub_op.number) as usize & (SUB_OP_SLOTS - 1);
        match self.sub_op_slots.get(slot) {
            Some(found) if found.id != NO_ID && (found.number, found.sub_op) == (number, sub_op.number) => {
                Some(found.id)
            }
            _ => Some(self.new_sub_op_id(slot, number, sub_op)),
        }
    }

    #[cold]
    fn new_sub_op_id(&mut self, slot: usize, number: u64, sub_op: &hypovisor_abi::SubOp) -> u16 {
        let dictionary = &mut self.sub_ops;
        let key = (number, sub_op.number);
        let id = *self.other_sub_ops.entry(key).or_insert_with(|| dictionary.add(sub_op.name));
        if let Some(slot) = self.sub_op_slots.get_mut(slot) {
            *slot = SubOpSlot { number, sub_op: sub_op.number, id };
        }
        id
    }

    /// The id of the errno that `result` is; `None` if it is no error.
    #[inline]
    pub(super) fn errno_id(&mut self, result: i64) -> Option<u16> {
        if !errno::is_error(result) {
            return None;
        }
        let slot = self.errno_ids.get_mut(result.unsigned_abs() as usize)?;
        if *slot == NO_ID {
            *slot = self.errnos.add(&errno_name(-result));
        }
        Some(*slot)
    }
}

/// A hypercall's name: the table's, or `hypercall_N`.
pub(super) fn call_name(number: u64) -> String {
    match xen::XEN.call(number) {
        Some(call) => call.name.to_owned(),
        None => format!("hypercall_{number}"),
    }
}

/// A positive errno's name: the header's, or `errno_N`.
fn errno_name(errno: i64) -> String {
    errno::name(errno).map_or_else(|| format!("errno_{errno}"), str::to_owned)
}
