//! Calls over time, in a bounded number of bins whatever the length of the recording.

use std::collections::BTreeMap;

/// Bins at most; when there would be more, two become one.
const MAX_BINS: usize = 512;
/// Width of a bin at first.
const FIRST_WIDTH_NS: i64 = 1_000_000;

/// Counts of calls per domain and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Time at the beginning of the first bin, in nanoseconds since the Unix epoch.
    start_ns: i64,
    /// Width of a bin; 0 while there is none.
    width_ns: i64,
    domains: BTreeMap<u16, Vec<u64>>,
    last_ns: i64,
}

impl Timeline {
    /// Counts one call.
    pub fn add(&mut self, domain: u16, time_ns: i64) {
        if self.width_ns == 0 {
            (self.start_ns, self.last_ns, self.width_ns) = (time_ns, time_ns, FIRST_WIDTH_NS);
        }
        // A little before the first: the calls of several CPUs come in no strict order.
        let time_ns = time_ns.max(self.start_ns);
        self.last_ns = self.last_ns.max(time_ns);
        let bin = loop {
            let bin = (time_ns.saturating_sub(self.start_ns) / self.width_ns) as usize;
            if bin < MAX_BINS {
                break bin;
            }
            self.halve();
        };
        let bins = self.domains.entry(domain).or_default();
        if bins.len() <= bin {
            bins.resize(bin + 1, 0);
        }
        bins[bin] += 1;
    }

    fn halve(&mut self) {
        self.width_ns = self.width_ns.saturating_mul(2);
        for bins in self.domains.values_mut() {
            *bins = bins.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
    }

    /// Time of the first and of the last call, in nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn span(&self) -> (i64, i64) {
        (self.start_ns, self.last_ns)
    }

    /// Counts per domain in bins of equal width, at most `bins` of them, and that width in nanoseconds. Every
    /// domain has the same number of bins.
    #[must_use]
    pub fn bins(&self, bins: usize) -> (i64, BTreeMap<u16, Vec<u64>>) {
        let used = self.domains.values().map(Vec::len).max().unwrap_or(0);
        let merge = used.div_ceil(bins.max(1)).max(1);
        let merged = |counts: &Vec<u64>| {
            let mut sums: Vec<u64> = counts.chunks(merge).map(|chunk| chunk.iter().sum()).collect();
            sums.resize(used.div_ceil(merge), 0);
            sums
        };
        let domains = self.domains.iter().map(|(domain, counts)| (*domain, merged(counts))).collect();
        (self.width_ns.saturating_mul(merge as i64), domains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_bins_merge() {
        let mut timeline = Timeline::default();
        (0..5000).for_each(|step| timeline.add((step % 2) as u16, 1_000 + step * 777_777));
        timeline.add(1, 0);
        let (width, domains) = timeline.bins(100);
        assert_eq!(domains.values().flatten().sum::<u64>(), 5001);
        assert!(domains.values().all(|bins| bins.len() <= 100 && bins.len() == domains[&0].len()));
        assert!(width * domains[&0].len() as i64 >= 4999 * 777_777);
    }

    #[test]
    fn any_times_are_counted() {
        let mut timeline = Timeline::default();
        [i64::MIN, i64::MAX, 0].into_iter().for_each(|time| timeline.add(0, time));
        assert_eq!(timeline.bins(10).1[&0].iter().sum::<u64>(), 3);
        assert_eq!(Timeline::default().bins(10).1.len(), 0);
    }
}
