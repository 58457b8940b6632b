//! The judging of one call, condition by condition.

use hypovisor_abi::Width;

use super::{Judged, RuleIndex, RuleSet, Standing, Watch};
use crate::facts::{Facts, Moment};
use crate::machine::{MAX_STEPS_PER_CALL, MAX_STEPS_PER_RULE, Machine, Truth};

/// The judging of one call.
pub(super) struct Round<'a, 's, 'm> {
    pub(super) set: &'s RuleSet,
    pub(super) machine: &'m mut Machine<'a, 's>,
    pub(super) facts: &'a Facts<'a>,
    pub(super) moment: Moment,
    /// The condition that took the most steps so far.
    pub(super) costliest: (u32, Option<RuleIndex>),
}

impl Round<'_, '_, '_> {
    /// `None`: it does not hold, or is for another moment.
    pub(super) fn watch(&mut self, watch: &Watch, judged: &mut Judged) -> Option<Standing> {
        if watch.moment != self.moment || self.set.is_off(watch.part.rule) {
            return None;
        }
        let left = MAX_STEPS_PER_CALL.saturating_sub(judged.steps);
        if left == 0 {
            judged.skipped += 1;
            return Some(Standing::Skipped);
        }
        let program = watch.programs[usize::from(self.facts.call.registers.width == Width::Bits32)];
        if program.len == 0 {
            judged.steps += 1;
            return Some(Standing::Match);
        }
        let truth = self.machine.run(program, left.min(MAX_STEPS_PER_RULE));
        judged.steps += self.machine.steps.min(left);
        if self.machine.steps > self.costliest.0 {
            self.costliest = (self.machine.steps, Some(watch.part.rule));
        }
        match truth {
            Truth::Yes => Some(Standing::Match),
            Truth::No => None,
            Truth::Undecided => {
                judged.undecided += 1;
                Some(Standing::Undecided)
            }
            Truth::OverBudget if left < MAX_STEPS_PER_RULE => {
                judged.steps = MAX_STEPS_PER_CALL;
                judged.skipped += 1;
                judged.over_budget = judged.over_budget.or(self.costliest.1);
                Some(Standing::Skipped)
            }
            Truth::OverBudget => {
                judged.over_budget = Some(watch.part.rule);
                Some(Standing::OverBudget)
            }
        }
    }
}
