// SPDX-License-Identifier: GPL-2.0-only

//! More weight while a request is in flight, and for how long.

use std::fmt;

use sleepy_uapi::{BOOST_SHIFT, MIN_TIMEOUT, POLICY_BOOST, Policy};

use crate::time;

/// The nice value while a request is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boost {
    /// The threads' own.
    Off,
    /// This one.
    To(i32),
}

/// The nice value in flight, if there is one.
pub fn boost(policy: &Policy) -> Option<i32> {
    (policy.flags & POLICY_BOOST != 0).then_some(policy.boost_nice)
}

/// For how long a VM may be boosted in each period; without a limit, the period is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// `Policy::boost_budget`
    pub budget: u64,
    /// `Policy::boost_period`
    pub period: u64,
}

impl Budget {
    /// As long as it takes.
    pub const UNLIMITED: Self = Self {
        budget: 0,
        period: 0,
    };

    /// How long, in words.
    pub fn time(&self) -> String {
        time::exact(self.budget)
    }

    /// Of how long, in words.
    pub fn period(&self) -> String {
        time::exact(self.period)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.time(), self.period())
    }
}

/// The limit of a policy's boost, if it has one.
pub fn budget(policy: &Policy) -> Option<Budget> {
    let budget = Budget {
        budget: policy.boost_budget,
        period: policy.boost_period,
    };
    (boost(policy).is_some() && budget != Budget::UNLIMITED).then_some(budget)
}

/// `20ms/100ms`: how long, of how long.
pub fn parse_budget(text: &str) -> Result<Budget, String> {
    const FORM: &str = "write BUDGET/PERIOD, such as 20ms/100ms";
    let (budget, period) = text
        .split_once('/')
        .ok_or_else(|| format!("there is no / in it; {FORM}"))?;
    let part = |what: &str, text: &str| {
        time::parse(text.trim()).map_err(|why| format!("the {what}: {why}; {FORM}"))
    };
    let (budget, period) = (part("budget", budget)?, part("period", period)?);
    let parsed = Budget { budget, period };
    if period < MIN_TIMEOUT {
        return Err(format!(
            "the period {} is too short, at least 1ms; {FORM}",
            parsed.period()
        ));
    }
    if budget > period {
        return Err(format!(
            "the budget {} is longer than its period {}; {FORM}",
            parsed.time(),
            parsed.period()
        ));
    }
    if budget < period >> BOOST_SHIFT {
        return Err(format!(
            "the budget {} is too short, at least a thousandth of its period {}; {FORM}",
            parsed.time(),
            parsed.period()
        ));
    }
    Ok(parsed)
}

/// The same, or `none`: no limit.
pub fn parse_budget_or_none(text: &str) -> Result<Budget, String> {
    match text {
        "none" => Ok(Budget::UNLIMITED),
        text => parse_budget(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_and_written() {
        for text in ["20ms/100ms", "1us/1ms", "1s/1s", "1ms/1s"] {
            assert_eq!(parse_budget(text).unwrap().to_string(), text);
        }
        assert_eq!(parse_budget("1ms / 2ms"), parse_budget("1ms/2ms"));
        assert_eq!(parse_budget_or_none("none"), Ok(Budget::UNLIMITED));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("20ms", "there is no / in it; write BUDGET/PERIOD"),
            ("none", "there is no / in it"),
            ("20/100ms", "the budget: time unit needed"),
            ("20ms/100", "the period: time unit needed"),
            ("1ms/2ms/3ms", "the period: "),
            (
                "200ms/100ms",
                "the budget 200ms is longer than its period 100ms",
            ),
            ("1us/100us", "the period 100us is too short, at least 1ms"),
            (
                "0s/1ms",
                "the budget 0s is too short, at least a thousandth",
            ),
            (
                "1ms/2s",
                "the budget 1ms is too short, at least a thousandth",
            ),
        ] {
            let error = parse_budget(text).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
            assert!(error.contains("20ms/100ms"), "{text}: {error}");
        }
    }
}
