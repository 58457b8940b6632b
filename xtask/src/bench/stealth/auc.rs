//! How well one number tells two kinds of machine apart.
//!
//! The AUC, the area under the receiver operating characteristic, is the probability that a trial of the second kind is greater than one
//! of the first, a tie counting half (Hanley and McNeil, Radiology 143, 1982). At 0.5 nothing can be told; at 1, and at 0 just as
//! well, everything.

use serde_json::{Value, json};

/// Two groups of boots, each a list of trials, compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    pub(super) median_of_first: u64,
    pub(super) median_of_second: u64,
    /// The medians of the boots.
    medians: [Vec<u64>; 2],
    /// Of all trials.
    pub(super) auc: f64,
    /// Its 95 % confidence interval by Hanley and McNeil, which takes trials to be independent. Those of one boot are not: see the next.
    pub(super) confidence: [f64; 2],
    /// The lowest and the highest AUC between a boot of the first group and one of the second.
    pub(super) between_boots: [f64; 2],
    /// How often the best threshold is wrong about one trial, if both kinds are as likely; 0.5 is guessing.
    pub(super) error: f64,
}

impl Comparison {
    pub(super) fn new(first: &[Vec<u64>], second: &[Vec<u64>]) -> Self {
        let [mut low, mut high] = [first.concat(), second.concat()];
        let (area, error) = area_and_error(&mut low, &mut high);
        let pairs = first.iter().flat_map(|one| second.iter().map(move |other| (one, other)));
        let areas = pairs.map(|(one, other)| area_and_error(&mut one.clone(), &mut other.clone()).0);
        let between_boots =
            areas.fold([1.0, 0.0], |[least, most], area| [f64::min(least, area), f64::max(most, area)]);
        Self {
            median_of_first: super::super::median(&mut low),
            median_of_second: super::super::median(&mut high),
            medians: [first, second]
                .map(|boots| boots.iter().map(|boot| super::super::median(&mut boot.clone())).collect()),
            auc: area,
            confidence: confidence(area, low.len() as f64, high.len() as f64),
            between_boots,
            error,
        }
    }

    pub(super) fn figures(&self) -> Value {
        json!({
            "medians": [self.median_of_first, self.median_of_second],
            "medians_of_boots": self.medians,
            "auc": self.auc,
            "auc_95": self.confidence,
            "auc_between_boots": self.between_boots,
            "error_of_best_threshold": self.error,
        })
    }
}

/// The AUC, and the error of the best threshold, in whichever direction. Sorts both.
fn area_and_error(first: &mut [u64], second: &mut [u64]) -> (f64, f64) {
    first.sort_unstable();
    second.sort_unstable();
    let (mut below, mut below_or_equal) = (0, 0);
    let (mut area, mut farthest) = (0.0, 0.0_f64);
    let share = |count: usize, of: &[u64]| count as f64 / of.len() as f64;
    for (index, value) in second.iter().enumerate() {
        below += first[below..].iter().take_while(|other| *other < value).count();
        below_or_equal = below_or_equal.max(below);
        below_or_equal += first[below_or_equal..].iter().take_while(|other| *other == value).count();
        area += (share(below, first) + share(below_or_equal, first)) / 2.0;
        // Between two values of the second group the distance of the two distribution functions is greatest just below or at one.
        let is_last_of_equal = second.get(index + 1) != Some(value);
        let is_first_of_equal = index == 0 || second[index - 1] != *value;
        if is_first_of_equal {
            farthest = farthest.max((share(below, first) - share(index, second)).abs());
        }
        if is_last_of_equal {
            farthest = farthest.max((share(below_or_equal, first) - share(index + 1, second)).abs());
        }
    }
    (area / second.len() as f64, (1.0 - farthest) / 2.0)
}

/// 95 % of a normal distribution lie within so many standard deviations.
const DEVIATIONS: f64 = 1.96;

fn confidence(area: f64, first: f64, second: f64) -> [f64; 2] {
    let both_greater = area / (2.0 - area);
    let greater_than_both = 2.0 * area * area / (1.0 + area);
    let variance = (area * (1.0 - area)
        + (second - 1.0) * (both_greater - area * area)
        + (first - 1.0) * (greater_than_both - area * area))
        / (first * second);
    let reach = DEVIATIONS * variance.max(0.0).sqrt();
    [(area - reach).max(0.0), (area + reach).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(first: &[u64], second: &[u64]) -> Comparison {
        Comparison::new(&[first.to_vec()], &[second.to_vec()])
    }

    #[test]
    fn the_same_cannot_be_told_apart() {
        let same = compare(&[3, 1, 2], &[1, 2, 3]);
        assert_eq!((same.auc, same.error), (0.5, 0.5));
        let constant = compare(&[7, 7, 7], &[7, 7]);
        assert_eq!((constant.auc, constant.error), (0.5, 0.5));
    }

    #[test]
    fn what_lies_apart_is_told_in_both_directions() {
        let greater = compare(&[1, 2, 3], &[4, 5]);
        assert_eq!((greater.auc, greater.error, greater.confidence), (1.0, 0.0, [1.0, 1.0]));
        let less = compare(&[4, 5], &[1, 2, 3]);
        assert_eq!((less.auc, less.error), (0.0, 0.0));
    }

    /// Of the nine pairs, six and a half tie. Between 1 and 2 a threshold is wrong about one of six.
    #[test]
    fn ties_count_half() {
        let some = compare(&[1, 1, 2], &[1, 2, 3]);
        assert!((some.auc - 6.5 / 9.0).abs() < 1e-12, "{}", some.auc);
        assert!((some.error - 1.0 / 3.0).abs() < 1e-12, "{}", some.error);
    }

    /// The threshold that lies between two values of the second group and above all of the first in between.
    #[test]
    fn the_best_threshold_is_found_between_values() {
        let apart = compare(&[2, 2, 2, 9], &[1, 5, 6, 7]);
        assert!((apart.error - 0.25).abs() < 1e-12, "{}", apart.error);
    }

    /// Hanley and McNeil's own example: 51 and 58 cases, 0.893, a standard error of 0.032.
    #[test]
    fn the_interval_is_theirs() {
        let [low, high] = confidence(0.893, 58.0, 51.0);
        assert!(((high - low) / 2.0 / DEVIATIONS - 0.032).abs() < 0.001, "{low} to {high}");
    }

    #[test]
    fn boots_are_compared_in_pairs() {
        let boots = Comparison::new(&[vec![1, 2], vec![3, 4]], &[vec![2, 3]]);
        assert_eq!(boots.between_boots, [0.125, 0.875]);
        assert_eq!(boots.medians, [vec![2, 4], vec![3]]);
    }
}
