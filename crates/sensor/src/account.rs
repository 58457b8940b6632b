//! Calls that guests made against calls that passed a hook: whether some did not.
//!
//! Between the instruction that makes a call and the hook a call is under way, so that more were made than passed at nearly
//! every look. Those that never pass are what is left at every look of a while in which others did.

/// Looks in which more are missing than can be under way, and no others come to them, before that is believed.
const SURE_LOOKS: u32 = 5;
/// As many looks at which others do come, before that is told all the same.
const GROWING_LOOKS: u32 = 20;
/// Looks in which any are missing, before that is believed: a vCPU may wait for its turn for a while.
const PATIENT_LOOKS: u32 = 100;

/// Looks in a row at which calls were missing.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    looks: u32,
    /// The least that was missing since others came to them.
    least: u64,
    /// Looks since others came to them.
    steady: u32,
}

impl Row {
    /// Another look, which belongs to the row or ends it. That `slack` more are missing may be those under way.
    fn add(&mut self, missing: u64, slack: u64, belongs: bool) {
        if !belongs {
            *self = Self::default();
            return;
        }
        let grew = self.looks == 0 || missing > self.least.saturating_add(slack);
        (self.least, self.steady) =
            if grew { (missing, 1) } else { (self.least.min(missing), self.steady + 1) };
        self.looks += 1;
    }
}

/// What is known after the looks so far.
#[derive(Debug)]
pub struct Account {
    /// As many calls can be under way at once.
    vcpus: u64,
    /// Calls made before the first look, and those that were told to be missing.
    settled: i64,
    /// What is missing at the next look never will pass, and is nobody's doing.
    starts_anew: bool,
    /// What the machine had done at the last look.
    done: u64,
    /// At which any were missing, how many does not matter.
    any: Row,
    /// At which more were missing than can be under way.
    many: Row,
}

impl Account {
    /// For a machine of so many vCPUs.
    #[must_use]
    pub fn new(vcpus: u64) -> Self {
        let [any, many] = Default::default();
        Self { vcpus, settled: 0, starts_anew: false, done: 0, any, many }
    }

    /// The machine was reset: calls that were under way then do not pass any more.
    pub fn start_anew(&mut self) {
        self.starts_anew = true;
        (self.any, self.many) = Default::default();
    }

    /// How many calls were made, and how many had passed just before; gives how many will never have, if that is now certain.
    /// `done` counts anything that the machine does as long as it runs.
    pub fn look(&mut self, passed: u64, made: u64, done: u64) -> Option<u64> {
        let mut missing = made.wrapping_sub(passed).cast_signed() - self.settled;
        // Code that was translated before anybody counted makes calls.
        if missing < 0 || std::mem::take(&mut self.starts_anew) {
            self.settled += missing;
            missing = 0;
        }
        if done == self.done {
            // Nothing happens: the machine may be stopped, with a call under way.
            return None;
        }
        self.done = done;
        let missing = missing.cast_unsigned();
        self.any.add(missing, u64::MAX, missing > 0);
        self.many.add(missing, self.vcpus, missing > self.vcpus);
        let told = self.certain()?;
        self.settled += told.cast_signed();
        (self.any, self.many) = Default::default();
        Some(told)
    }

    fn certain(&self) -> Option<u64> {
        let Self { any, many, .. } = self;
        if many.steady >= SURE_LOOKS || many.looks >= GROWING_LOOKS {
            return Some(many.least);
        }
        (any.looks >= PATIENT_LOOKS).then_some(any.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks with so many calls missing at each, while one is made between two looks.
    fn told(missing: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut account = Account::new(2);
        let counts = missing.into_iter().enumerate();
        counts
            .filter_map(|(look, missing)| {
                account.look(look as u64 + 1, look as u64 + 1 + missing, look as u64 + 1)
            })
            .collect()
    }

    #[test]
    fn those_of_one_burst_are_told_together() {
        assert_eq!(told([vec![0, 300, 700], vec![1001, 1000, 1002, 1000, 1000]].concat()), [1000]);
    }

    #[test]
    fn those_that_never_end_are_told_as_they_come() {
        assert_eq!(told((0..61).map(|look| 10 * look)), [200, 200, 200]);
    }

    #[test]
    fn calls_under_way_are_not_missing() {
        assert!(told((0..1000).map(|look| look % 3)).is_empty());
    }

    #[test]
    fn many_are_told_soon_and_once() {
        assert_eq!(told([vec![0], vec![7; 5]].concat().into_iter().skip(1)), [7]);
        assert_eq!(told(vec![7; 1000]), [7]);
        assert_eq!(told([vec![7; 10], vec![17; 10]].concat()), [7, 10]);
        assert_eq!(told([vec![0; 50], vec![7; 5]].concat()), [7], "what was before does not hold it up");
    }

    #[test]
    fn a_single_one_is_told_in_time() {
        assert_eq!(told(vec![1; 99]), Vec::<u64>::new());
        assert_eq!(told(vec![1; 1000]), [1]);
    }

    #[test]
    fn those_under_way_at_a_reset_are_not_missing_for_ever() {
        let mut account = Account::new(2);
        assert_eq!(account.look(10, 11, 11), None);
        account.start_anew();
        assert!((10..1000).all(|passed| account.look(passed, passed + 1, passed + 1).is_none()));
        assert!((1000..2000).any(|passed| account.look(passed, passed + 2, passed + 2) == Some(1)));
    }

    #[test]
    fn a_stopped_machine_has_none_missing() {
        let mut account = Account::new(2);
        assert!((0..1000).all(|_| account.look(10, 11, 12).is_none()));
    }

    #[test]
    fn more_that_passed_than_were_counted_are_no_debt() {
        let mut account = Account::new(2);
        assert_eq!(account.look(50, 10, 1), None);
        let told: Vec<u64> =
            (0..10).filter_map(|look| account.look(51 + look, 18 + look, 2 + look)).collect();
        assert_eq!(told, [7]);
    }
}
