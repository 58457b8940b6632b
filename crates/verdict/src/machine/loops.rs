//! Loops over the elements of a list.

use super::cursor::{Cursor, ends_at};
use super::{ABSENT, Machine};
use crate::op::LoopSpec;

/// Where a loop is.
#[derive(Clone, Copy)]
pub(super) struct LoopState<'a> {
    pub(super) base: Cursor<'a>,
    index: u64,
    /// How many elements there are to look at.
    count: u64,
    /// Something was undecided, or there are elements that were not captured.
    doubt: bool,
}

impl<'a> Machine<'a, '_> {
    /// Begins a loop over the elements at the cursor.
    pub(super) fn begin(&mut self, index: u32, at: u32) -> u32 {
        let Some(spec) = self.code.loops.get(index as usize).copied() else { return u32::MAX };
        let Some(base) = self.cursor else {
            self.push(ABSENT);
            return spec.end;
        };
        let size = u64::from(spec.size.max(1));
        let limit = u64::from(spec.limit);
        let count = (base.bytes(spec.side).len() as u64 / size).min(limit);
        let named = base.requested(spec.side).div_ceil(size).min(limit);
        let state = LoopState { base, index: 0, count, doubt: count < named };
        self.enter(&spec, state, at)
    }

    /// Goes on with the element that `state` stands at, or with what follows the loop.
    fn enter(&mut self, spec: &LoopSpec, mut state: LoopState<'a>, at: u32) -> u32 {
        if state.index < state.count && spec.until.is_some_and(|until| ends_at(&state.base, until)) {
            state.count = state.index;
            state.doubt = false;
        }
        if state.index >= state.count {
            self.push(if state.doubt { ABSENT } else { i128::from(spec.all) });
            return spec.end;
        }
        if let Some(slot) = self.loops.get_mut(usize::from(spec.slot)) {
            *slot = Some(state);
        }
        at + 1
    }

    /// The condition has been judged for an element: what comes next.
    pub(super) fn next(&mut self, index: u32) -> u32 {
        let value = self.pop();
        let Some(spec) = self.code.loops.get(index as usize).copied() else { return u32::MAX };
        let state = self.loops.get(usize::from(spec.slot)).copied().flatten();
        let Some(mut state) = state else { return u32::MAX };
        if value != ABSENT && (value == 0) == spec.all {
            self.push(i128::from(!spec.all));
            return spec.end;
        }
        state.doubt |= value == ABSENT;
        state.index += 1;
        state.base = state.base.moved(u64::from(spec.size));
        self.enter(&spec, state, spec.start)
    }
}
