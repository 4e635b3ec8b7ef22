// SPDX-License-Identifier: GPL-2.0-only

//! Percentiles of the kernel's histograms.

use serde::Serialize;
use sleepy_policy::histogram::lower;
use sleepy_uapi::{BUCKETS, Histogram};

/// A histogram in short.
#[derive(Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many times it has.
    pub count: u64,
    /// Half of them took at most this long.
    pub p50: Option<u64>,
    /// Nine of ten.
    pub p90: Option<u64>,
    /// 99 of 100.
    pub p99: Option<u64>,
    /// All of them.
    pub max: Option<u64>,
    /// The smallest and largest time and the count of each bucket that has any.
    pub buckets: Vec<(u64, u64, u64)>,
}

impl From<&Histogram> for Summary {
    fn from(histogram: &Histogram) -> Self {
        let counts = histogram.buckets.iter().copied().enumerate();
        let buckets: Vec<_> = counts
            .filter(|(_, count)| *count > 0)
            .map(|(i, count)| (lower(i), upper(i), count))
            .collect();
        let percentile = |percent| percentile(&buckets, percent);
        Self {
            count: buckets.iter().map(|(.., count)| count).sum(),
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: percentile(100),
            buckets,
        }
    }
}

/// The largest time of a bucket. The last bucket has longer ones too.
fn upper(bucket: usize) -> u64 {
    const { assert!(BUCKETS == sleepy_policy::histogram::BUCKETS) };
    lower(bucket + 1) - 1
}

/// The largest time of the bucket in which `percent` of all are reached.
fn percentile(buckets: &[(u64, u64, u64)], percent: u64) -> Option<u64> {
    let total: u128 = buckets.iter().map(|(.., count)| u128::from(*count)).sum();
    let wanted = (total * u128::from(percent)).div_ceil(100);
    let mut seen = 0;
    buckets.iter().find_map(|(_, upper, count)| {
        seen += u128::from(*count);
        (seen >= wanted).then_some(*upper)
    })
}

#[cfg(test)]
mod tests {
    use sleepy_policy::histogram::bucket;

    use super::*;

    fn of(times: &[u64]) -> Summary {
        let mut histogram = Histogram::default();
        times
            .iter()
            .for_each(|time| histogram.buckets[bucket(*time)] += 1);
        Summary::from(&histogram)
    }

    #[test]
    fn nothing_has_no_percentiles() {
        let nothing = of(&[]);
        assert_eq!((nothing.count, nothing.p50, nothing.max), (0, None, None));
    }

    #[test]
    fn one_is_all_percentiles() {
        let one = of(&[1000]);
        let bound = Some(1023);
        assert_eq!(
            (one.count, one.p50, one.p90, one.p99, one.max),
            (1, bound, bound, bound, bound)
        );
        assert_eq!(one.buckets, [(896, 1023, 1)]);
    }

    #[test]
    fn percentiles_are_where_they_belong() {
        // Powers of two begin buckets of their own.
        let times: Vec<u64> = [(50, 1 << 10), (40, 1 << 12), (9, 1 << 14), (1, 1 << 20)]
            .iter()
            .flat_map(|(count, time)| std::iter::repeat_n(*time, *count))
            .collect();
        let summary = of(&times);
        let bound = |time: u64| Some(time + time / 4 - 1);
        assert_eq!(summary.count, 100);
        assert_eq!(summary.p50, bound(1 << 10));
        assert_eq!(summary.p90, bound(1 << 12));
        assert_eq!(summary.p99, bound(1 << 14));
        assert_eq!(summary.max, bound(1 << 20));
        // Two more that are longer, and half of them do not fit in the first bucket.
        assert_eq!(
            of(&[times.as_slice(), &[1 << 12, 1 << 12]].concat()).p50,
            bound(1 << 12)
        );
    }

    #[test]
    fn bounds_include_their_times() {
        for time in [0, 1, 3, 4, 5, 7, 8, 9, 10, 1000, 123_456_789, 1 << 40] {
            let (smallest, largest, _) = of(&[time]).buckets[0];
            assert!(
                (smallest..=largest).contains(&time),
                "{time} in {smallest}..={largest}"
            );
            assert!(
                time < 4 || largest - smallest < smallest / 4 + 1,
                "at most 25 % wide"
            );
        }
    }

    #[test]
    fn the_longest_time_is_counted() {
        assert_eq!(
            of(&[u64::MAX]).buckets,
            [(lower(BUCKETS - 1), lower(BUCKETS) - 1, 1)]
        );
    }
}
