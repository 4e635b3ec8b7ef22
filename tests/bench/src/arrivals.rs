// SPDX-License-Identifier: GPL-2.0-only

//! When requests come, if not all at once: open loop, whatever became of those before.

use std::time::Duration;

use sleepy_host::Result;

/// A Weibull distribution of this shape has a coefficient of variation of 3.1: most pauses are short, few are very long,
/// as those of the functions in the traces of Azure Functions (Shahrad et al., USENIX ATC 2020).
const SHAPE: f64 = 0.4;
/// Its mean at a scale of 1: the gamma function at 1 + 1 / SHAPE.
const MEAN: f64 = 3.323_350_970_447_842;

/// Times between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Exponentially distributed.
    Poisson,
    /// In bursts, with long pauses.
    Azure,
}

impl Arrival {
    /// The one of this name; none for `burst`, which is one request to each.
    pub fn named(name: &str) -> Result<Option<Self>> {
        match name {
            "burst" => Ok(None),
            "poisson" => Ok(Some(Self::Poisson)),
            "azure" => Ok(Some(Self::Azure)),
            _ => Err(format!("no arrival '{name}'").into()),
        }
    }

    /// The times of `count` requests from the beginning, with this mean between them. The same `seed` gives the same times.
    pub fn times(self, mean: Duration, count: usize, seed: u64) -> Vec<Duration> {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut at = Duration::ZERO;
        let mut next = || {
            // 1 - f64() is above 0: its logarithm is finite.
            let exponential = -(1.0 - dice.f64()).ln();
            at += mean.mul_f64(match self {
                Self::Poisson => exponential,
                Self::Azure => exponential.powf(1.0 / SHAPE) / MEAN,
            });
            at
        };
        (0..count).map(|_| next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, and standard deviation over mean, of the pauses.
    fn moments(arrival: Arrival) -> (f64, f64) {
        let times = arrival.times(Duration::from_secs(1), 100_000, 1);
        let pauses: Vec<f64> = std::iter::once(Duration::ZERO)
            .chain(times.iter().copied())
            .zip(&times)
            .map(|(before, at)| (*at - before).as_secs_f64())
            .collect();
        let mean = pauses.iter().sum::<f64>() / pauses.len() as f64;
        let square = pauses
            .iter()
            .map(|pause| (pause - mean).powi(2))
            .sum::<f64>();
        (mean, (square / pauses.len() as f64).sqrt() / mean)
    }

    #[test]
    fn poisson_has_its_moments() {
        let (mean, variation) = moments(Arrival::Poisson);
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variation - 1.0).abs() < 0.02, "{variation}");
    }

    #[test]
    fn azure_has_long_tails() {
        let (mean, variation) = moments(Arrival::Azure);
        assert!((mean - 1.0).abs() < 0.1, "{mean}");
        assert!((2.6..3.8).contains(&variation), "{variation}");
    }
}
