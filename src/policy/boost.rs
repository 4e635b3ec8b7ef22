// SPDX-License-Identifier: GPL-2.0-only

//! For how long a VM may be boosted.

/// How long in which time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// How long it may be boosted in each period.
    pub budget: u64,
    /// The period; 0 for no limit.
    pub period: u64,
}

/// Binary digits of a ratio; times of up to an hour leave room for no more.
const DIGITS: u32 = 20;

/// `time` times a part of the period, over another one.
fn scale(time: u64, part: u64, whole: u64) -> u64 {
    let ratio = (part << DIGITS) / whole.max(1);
    time.saturating_mul(ratio) >> DIGITS
}

/// A VM's account. What it has used is its debt, which is repaid all the time, a budget in each period; with a debt of a
/// budget it is boosted no more until half of that is repaid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boost {
    debt: u64,
    /// When the debt was that.
    at: u64,
    on: bool,
    spent: bool,
}

impl Boost {
    /// Whether a VM that is to be boosted, or not, is; and when to ask again.
    pub fn set(&mut self, wanted: bool, limit: &Limit, now: u64) -> (bool, Option<u64>) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        if limit.period == 0 {
            *self = Self {
                at: self.at,
                on: wanted,
                ..Self::default()
            };
            return (wanted, None);
        }
        if self.on {
            self.debt = self.debt.saturating_add(passed);
        }
        let repaid = scale(passed, limit.budget, limit.period);
        self.debt = self.debt.saturating_sub(repaid);
        let half = limit.budget / 2;
        if self.debt >= limit.budget {
            self.spent = true;
        } else if self.debt <= half {
            self.spent = false;
        }
        self.on = wanted && !self.spent;
        let left = if self.on {
            scale(
                limit.budget - self.debt,
                limit.period,
                limit.period - limit.budget,
            )
        } else {
            scale(self.debt - half.min(self.debt), limit.period, limit.budget)
        };
        // A little may have been lost to rounding.
        let ask = wanted && limit.budget > 0 && limit.budget < limit.period;
        (
            self.on,
            ask.then(|| now.saturating_add(left).saturating_add(1000)),
        )
    }
}
