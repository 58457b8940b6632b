//! A histogram of durations with less than 1 % error.
//!
//! Values below 128 have a bucket each. Above, every power of two is divided into 64 buckets, so a bucket is at
//! most 1/64 as wide as its values are large, and its middle is off by at most 0.8 %.

/// Buckets in a power of two, as a power of two.
const PRECISION: u32 = 6;
/// Values below this are exact.
const EXACT: u64 = 2 << PRECISION;

/// Counts of durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// Counts all of another's durations.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (own, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += more;
        }
        self.count += other.count;
    }

    /// Number of durations.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The smallest duration that at least `fraction` of all do not exceed; `None` if there are none.
    #[must_use]
    pub fn quantile(&self, fraction: f64) -> Option<u64> {
        let rank = ((fraction * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let position = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        position.map(middle)
    }

    /// The buckets that hold something: a value in their middle, and how many.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (middle(bucket), *count))
    }
}

fn bucket(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let shift = value.ilog2() - PRECISION;
    ((u64::from(shift) << PRECISION) + (value >> shift)) as usize
}

/// The value in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let shift = (bucket >> PRECISION) - 1;
    let top = bucket - (shift << PRECISION);
    (top << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=100).for_each(|value| histogram.add(value));
        assert_eq!(histogram.quantile(0.5), Some(50));
        assert_eq!(histogram.quantile(0.99), Some(99));
        assert_eq!(histogram.quantile(1.0), Some(100));
        assert_eq!(histogram.quantile(0.0), Some(1));
    }

    proptest! {
        #[test]
        fn no_value_is_off_by_more_than_one_percent(value: u64) {
            let error = middle(bucket(value)).abs_diff(value);
            prop_assert!(error as f64 <= value as f64 * 0.01);
        }

        #[test]
        fn larger_values_are_not_in_smaller_buckets(one: u64, other: u64) {
            prop_assert_eq!(bucket(one.min(other)) <= bucket(one.max(other)), true);
        }
    }
}
