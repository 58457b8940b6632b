//! The bytes that a value is shown from: which of those at entry and at exit, by the direction it travels.

use crate::layout::Width;
use crate::types::{Direction, Field, Type};

/// What of memory is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// All that is at hand: it travels one way.
    All,
    /// What each field's direction says.
    Marked,
    /// As [`Rule::Marked`], but a field that the guest supplies is also one that Xen changes.
    Both,
}

/// The bytes of one value at entry and at exit; each may be missing or cut short.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    /// Where they stood in the guest.
    pub(super) gva: u64,
    pub(super) entry: Option<&'a [u8]>,
    pub(super) exit: Option<&'a [u8]>,
    pub(super) rule: Rule,
}

impl<'a> Bytes<'a> {
    pub(super) fn at(self, offset: usize) -> Self {
        let from = |bytes: Option<&'a [u8]>| bytes.and_then(|bytes| bytes.get(offset..));
        let gva = self.gva.wrapping_add(offset as u64);
        Self { gva, entry: from(self.entry), exit: from(self.exit), ..self }
    }

    /// What a value of this direction is shown from.
    pub(super) fn directed(self, direction: Direction) -> Self {
        match (self.rule, direction) {
            (Rule::All, _) | (_, Direction::InOut) | (Rule::Both, Direction::In) => self,
            (Rule::Marked, Direction::In) if self.entry.is_some() => Self { exit: None, ..self },
            // The capture at entry is missing: Xen does not change the field, so the other one will do.
            (Rule::Marked, Direction::In) => self,
            (_, Direction::Out) => Self { entry: None, ..self },
        }
    }

    /// What a struct, union or array that has this direction hands to its members.
    pub(super) fn within(self, direction: Direction) -> Self {
        match direction {
            // Its members say.
            Direction::In => self,
            Direction::InOut if self.rule == Rule::All => self,
            Direction::InOut => Self { rule: Rule::Both, ..self },
            Direction::Out => Self { rule: Rule::All, ..self.directed(direction) },
        }
    }

    /// For a field: members that are aggregates say for themselves, and a pointer is always the guest's.
    pub(super) fn for_field(self, field: &'static Field, width: Width) -> Self {
        match field.ty.for_width(width) {
            Type::Handle(_) | Type::Tail(_) => self,
            ty if is_aggregate(ty, width) => self.within(field.direction),
            _ => self.directed(field.direction),
        }
    }

    pub(super) const fn at_hand(self) -> bool {
        self.entry.is_some() || self.exit.is_some()
    }

    pub(super) fn any(self) -> &'a [u8] {
        self.exit.or(self.entry).unwrap_or(&[])
    }

    pub(super) fn len(self) -> usize {
        let of = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        of(self.entry).max(of(self.exit))
    }
}

pub(super) fn is_aggregate(ty: &'static Type, width: Width) -> bool {
    match ty.for_width(width) {
        Type::Struct(_) | Type::Union(_) => true,
        Type::Array(array) => is_aggregate(array.of, width),
        _ => false,
    }
}
