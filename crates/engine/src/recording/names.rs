//! Dictionaries under construction: from a value to its id, in a few instructions for one that was seen before.

use std::collections::HashMap;

use hypovisor_abi::decode::Identity;
use hypovisor_abi::{SubOp, errno, xen};

use super::pages::Dictionary;

/// Slots of a cache, a power of two.
const SLOTS: usize = 1024;
/// Errnos end before this.
const ERRNOS: usize = 4096;
const NO_ID: u16 = u16::MAX;
/// A segment ends when a dictionary has fewer entries than this left.
const HEADROOM: u16 = 16;

/// Ids of 64-bit keys. The first `SLOTS` keys, and others as far as they do not collide, are found without hashing.
#[derive(Debug)]
struct Keyed {
    slots: Vec<(u64, u16)>,
    all: HashMap<u64, u16>,
}

impl Keyed {
    fn new() -> Self {
        Self { slots: vec![(0, NO_ID); SLOTS], all: HashMap::new() }
    }

    fn clear(&mut self) {
        self.slots.fill((0, NO_ID));
        self.all.clear();
    }

    #[inline]
    fn id(&mut self, key: u64, new: impl FnOnce() -> u16) -> u16 {
        // Addresses differ in the middle, small numbers at the low end.
        let slot = (key ^ (key >> 5) ^ (key >> 15)) as usize & (SLOTS - 1);
        match self.slots.get(slot) {
            Some(&(found, id)) if found == key && id != NO_ID => id,
            _ => self.id_by_hash(key, slot, new),
        }
    }

    #[cold]
    fn id_by_hash(&mut self, key: u64, slot: usize, new: impl FnOnce() -> u16) -> u16 {
        let id = *self.all.entry(key).or_insert_with(new);
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = (key, id);
        }
        id
    }
}

/// The distinct values of an integer column.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) dictionary: Dictionary,
    keyed: Keyed,
    /// Bytes of a value in the column's type.
    bytes: usize,
}

impl Numbers {
    pub(super) fn int32() -> Self {
        Self { dictionary: Dictionary::default(), keyed: Keyed::new(), bytes: 4 }
    }

    pub(super) fn int64() -> Self {
        Self { dictionary: Dictionary::default(), keyed: Keyed::new(), bytes: 8 }
    }

    #[inline]
    pub(super) fn id(&mut self, value: u64) -> u16 {
        let Self { dictionary, keyed, bytes } = self;
        keyed.id(value, || dictionary.add(value.to_le_bytes().get(..*bytes).unwrap_or_default()))
    }

    pub(super) fn clear(&mut self) {
        self.dictionary.clear();
        self.keyed.clear();
    }

    pub(super) const fn is_full(&self) -> bool {
        is_full(&self.dictionary)
    }
}

/// The names in one segment.
#[derive(Debug)]
pub(super) struct Names {
    /// Hypercall numbers; a name has the same id.
    pub(super) numbers: Dictionary,
    pub(super) calls: Dictionary,
    pub(super) sub_ops: Dictionary,
    pub(super) errnos: Dictionary,
    call_ids: Keyed,
    /// By the address of the table's entry: a name that never changes.
    sub_op_ids: Keyed,
    errno_ids: Vec<u16>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            numbers: Dictionary::default(),
            calls: Dictionary::default(),
            sub_ops: Dictionary::default(),
            errnos: Dictionary::default(),
            call_ids: Keyed::new(),
            sub_op_ids: Keyed::new(),
            errno_ids: vec![NO_ID; ERRNOS],
        }
    }

    pub(super) fn clear(&mut self) {
        [&mut self.numbers, &mut self.calls, &mut self.sub_ops, &mut self.errnos]
            .into_iter()
            .for_each(Dictionary::clear);
        self.call_ids.clear();
        self.sub_op_ids.clear();
        self.errno_ids.fill(NO_ID);
    }

    pub(super) const fn is_full(&self) -> bool {
        is_full(&self.calls)
    }

    /// The id of a hypercall's number and name.
    #[inline]
    pub(super) fn call_id(&mut self, number: u64) -> u16 {
        let Self { numbers, calls, call_ids, .. } = self;
        call_ids.id(number, || {
            numbers.add(&number.to_le_bytes());
            calls.add_text(&call_name(number))
        })
    }

    /// The id of a sub-op's name; `None` if the tables have none.
    #[inline]
    pub(super) fn sub_op_id(&mut self, identity: &Identity) -> Option<u16> {
        let sub_op = identity.sub_op?;
        let key = std::ptr::from_ref::<SubOp>(sub_op).addr() as u64;
        let Self { sub_ops, sub_op_ids, .. } = self;
        Some(sub_op_ids.id(key, || sub_ops.add_text(sub_op.name)))
    }

    /// The id of the errno that `result` is; `None` if it is no error.
    #[inline]
    pub(super) fn errno_id(&mut self, result: i64) -> Option<u16> {
        if !errno::is_error(result) {
            return None;
        }
        let slot = self.errno_ids.get_mut(result.unsigned_abs() as usize)?;
        if *slot == NO_ID {
            *slot = self.errnos.add_text(&errno_name(-result));
        }
        Some(*slot)
    }
}

const fn is_full(dictionary: &Dictionary) -> bool {
    dictionary.len() > Dictionary::CAPACITY - HEADROOM
}

/// A hypercall's name: the table's, or `hypercall_N`.
pub(crate) fn call_name(number: u64) -> String {
    match xen::XEN.call(number) {
        Some(call) => call.name.to_owned(),
        None => format!("hypercall_{number}"),
    }
}

/// A positive errno's name: the header's, or `errno_N`.
pub(crate) fn errno_name(errno: i64) -> String {
    errno::name(errno).map_or_else(|| format!("errno_{errno}"), str::to_owned)
}
