// SPDX-License-Identifier: GPL-2.0-only

//! How a VM sleeps and wakes: options, defaults, words.

use clap::{Args, ValueEnum};
use serde::Serialize;
use sleepy_uapi::{LEVER_NICE, LEVER_OBSERVE, POLICY_BOOST, Policy};

use crate::time;

/// How weight is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[repr(u32)]
pub enum Lever {
    /// Measure everything, change nothing
    Observe = LEVER_OBSERVE,
    /// Raise the nice value of the vCPU threads
    Nice = LEVER_NICE,
}

/// A lever's name.
pub fn lever_name(number: u32) -> String {
    let known = Lever::value_variants()
        .iter()
        .find(|lever| **lever as u32 == number);
    match known.and_then(Lever::to_possible_value) {
        Some(value) => value.get_name().to_string(),
        None => format!("lever {number}"),
    }
}

/// The names of the levers in a bit set.
pub fn lever_names(bits: u64) -> Vec<String> {
    (0..u64::BITS)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(lever_name)
        .collect()
}

/// The options that make a policy. What is not given stays as it is.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// observe: only measure; nice: the vCPU threads' nice value [vm add: nice]
    #[arg(long, value_enum, hide_possible_values = true)]
    lever: Option<Lever>,
    /// Nice value of a sleepy VM's vCPU threads [vm add: 19]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = nice_range())]
    sleepy_nice: Option<i32>,
    /// Nice value while a request is in flight [vm add: their own]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = nice_range())]
    boost_nice: Option<i32>,
    /// How long a VM stays awake after its last answer [vm add: 200us]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    linger: Option<u64>,
    /// After this time, a request counts as lost [vm add: 5s]
    #[arg(long, value_name = "TIME", value_parser = time::parse_timeout)]
    request_timeout: Option<u64>,
    /// After this time asleep, a VM is awake for a moment [vm add: 1s]
    #[arg(long, value_name = "TIME", value_parser = time::parse_timeout)]
    max_sleep: Option<u64>,
}

fn nice_range() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(-20..=19)
}

impl PolicyArgs {
    /// Whether no option was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The policy with what was given.
    pub fn apply(&self, policy: Policy) -> Policy {
        let policy = Policy {
            linger: self.linger.unwrap_or(policy.linger),
            request_timeout: self.request_timeout.unwrap_or(policy.request_timeout),
            max_sleep: self.max_sleep.unwrap_or(policy.max_sleep),
            lever: self.lever.map_or(policy.lever, |lever| lever as u32),
            sleepy_nice: self.sleepy_nice.unwrap_or(policy.sleepy_nice),
            ..policy
        };
        match self.boost_nice {
            Some(boost_nice) => Policy {
                boost_nice,
                flags: policy.flags | POLICY_BOOST,
                ..policy
            },
            None => policy,
        }
    }
}

/// The policy without a boost.
pub fn without_boost(policy: Policy) -> Policy {
    Policy {
        boost_nice: 0,
        flags: policy.flags & !POLICY_BOOST,
        ..policy
    }
}

/// What a VM gets when no option is given.
pub fn default() -> Policy {
    Policy {
        linger: 200_000,
        request_timeout: 5_000_000_000,
        max_sleep: 1_000_000_000,
        lever: LEVER_NICE,
        sleepy_nice: 19,
        boost_nice: 0,
        flags: 0,
    }
}

/// A policy in JSON.
#[derive(Serialize)]
pub struct PolicyJson {
    lever: String,
    sleepy_nice: i32,
    boost_nice: Option<i32>,
    linger_ns: u64,
    request_timeout_ns: u64,
    max_sleep_ns: u64,
}

impl From<&Policy> for PolicyJson {
    fn from(policy: &Policy) -> Self {
        Self {
            lever: lever_name(policy.lever),
            sleepy_nice: policy.sleepy_nice,
            boost_nice: boost(policy),
            linger_ns: policy.linger,
            request_timeout_ns: policy.request_timeout,
            max_sleep_ns: policy.max_sleep,
        }
    }
}

/// The nice value in flight, if there is one.
pub fn boost(policy: &Policy) -> Option<i32> {
    (policy.flags & POLICY_BOOST != 0).then_some(policy.boost_nice)
}

/// The lever in words.
pub fn lever_text(policy: &Policy) -> String {
    match policy.lever {
        LEVER_OBSERVE => "observe: measures, changes nothing".to_string(),
        LEVER_NICE => match boost(policy) {
            Some(boost) => format!(
                "nice {} while sleepy, {boost} while a request is in flight",
                policy.sleepy_nice
            ),
            None => format!("nice {} while sleepy", policy.sleepy_nice),
        },
        other => lever_name(other),
    }
}

/// The times in words.
pub fn times_text(policy: &Policy) -> String {
    format!(
        "linger {}, request timeout {}, max sleep {}",
        time::exact(policy.linger),
        time::exact(policy.request_timeout),
        time::exact(policy.max_sleep)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_replace_only_what_they_name() {
        assert_eq!(PolicyArgs::default().apply(default()), default());
        let args = PolicyArgs {
            linger: Some(0),
            lever: Some(Lever::Observe),
            ..PolicyArgs::default()
        };
        assert_eq!(
            args.apply(default()),
            Policy {
                linger: 0,
                lever: LEVER_OBSERVE,
                ..default()
            }
        );
    }

    #[test]
    fn boost_comes_and_goes() {
        let args = PolicyArgs {
            boost_nice: Some(-5),
            ..PolicyArgs::default()
        };
        let boosted = args.apply(default());
        assert_eq!(boost(&boosted), Some(-5));
        assert_eq!(
            boost(&PolicyArgs::default().apply(boosted)),
            Some(-5),
            "kept by a later change"
        );
        assert_eq!(without_boost(boosted), default());
    }

    #[test]
    fn levers_have_names() {
        assert_eq!(
            lever_names(1 << LEVER_OBSERVE | 1 << LEVER_NICE | 1 << 9),
            ["observe", "nice", "lever 9"]
        );
    }
}
