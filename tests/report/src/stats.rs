// SPDX-License-Identifier: GPL-2.0-only

//! Quantiles and spreads.

use serde::Serialize;

/// Of samples in nanoseconds; all `None` if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub p50: Option<u64>,
    pub p95: Option<u64>,
    pub p99: Option<u64>,
    pub max: Option<u64>,
    /// Half of the range of the repetitions' medians; `None` if fewer than two have one.
    pub spread: Option<u64>,
}

impl Quantiles {
    /// Of all repetitions' samples together.
    pub fn of(repetitions: &[&[u64]]) -> Self {
        let mut all = repetitions.concat();
        all.sort_unstable();
        let medians = repetitions.iter().filter_map(|samples| median(samples));
        Self {
            p50: quantile(&all, 50),
            p95: quantile(&all, 95),
            p99: quantile(&all, 99),
            max: all.last().copied(),
            spread: half_range(&medians.map(|median| median as f64).collect::<Vec<_>>())
                .map(|spread| spread.round() as u64),
        }
    }
}

/// The median over repetitions, and half of their range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    pub median: Option<f64>,
    /// `None` if there are fewer than two.
    pub spread: Option<f64>,
}

impl Figure {
    /// Of one value from each repetition.
    pub fn of(values: &[f64]) -> Self {
        Self {
            median: median_f64(values),
            spread: half_range(values),
        }
    }
}

/// The least sample that this share of all does not exceed.
pub fn quantile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The 50 % quantile.
pub fn median(samples: &[u64]) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    quantile(&sorted, 50)
}

/// The same, of what need not be whole.
pub fn median_f64(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile(&sorted, 50)
}

fn half_range(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some((most - least) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<u64> = (1..=200).rev().collect();
        let q = Quantiles::of(&[&samples[..100], &samples[100..]]);
        assert_eq!((q.p50, q.p95, q.p99), (Some(100), Some(190), Some(198)));
        // The medians of 101..=200 and of 1..=100 are 150 and 50.
        assert_eq!((q.max, q.spread), (Some(200), Some(50)));
    }

    #[test]
    fn few_samples() {
        assert_eq!(Quantiles::of(&[]), Quantiles::default());
        assert_eq!(Quantiles::of(&[&[]]), Quantiles::default());
        let q = Quantiles::of(&[&[7], &[]]);
        assert_eq!((q.p50, q.p99, q.spread), (Some(7), Some(7), None));
        assert_eq!(median(&[1, 2, 3, 4]), Some(2));
    }

    #[test]
    fn figures() {
        let figure = Figure::of(&[3.0, 1.0, 2.0]);
        assert_eq!((figure.median, figure.spread), (Some(2.0), Some(1.0)));
        assert_eq!(Figure::of(&[3.0]).spread, None);
    }
}
