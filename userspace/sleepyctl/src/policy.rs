// SPDX-License-Identifier: GPL-2.0-only

//! How a VM sleeps and wakes: options, defaults, words.

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use serde::Serialize;
use sleepy_uapi::{
    LEVER_NICE, LEVER_OBSERVE, POLICY_BOOST, Policy, SLEEP_QUIET, SLEEP_RESPONSE, SLEEP_SPIN,
    WAKE_REQUEST, WAKE_TIMER,
};

use crate::events::Set;
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

/// The nice value while a request is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boost {
    /// The threads' own.
    Off,
    /// This one.
    To(i32),
}

/// What makes a policy. What is not given stays as it is.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Policy")]
pub struct Settings {
    /// Events that let the VM sleep: response, idle, spin, quiet, hint [vm add: response]
    #[arg(long, value_name = "LIST", value_parser = |list: &str| Set::SleepOn.parse(list))]
    pub sleep_on: Option<u32>,
    /// Events that wake it: request, packet, interrupt, timer, ipi, doorbell, hint [vm add: request]
    #[arg(long, value_name = "LIST", value_parser = |list: &str| Set::WakeOn.parse(list))]
    pub wake_on: Option<u32>,
    /// observe: only measure; nice: the vCPU threads' nice value [vm add: nice]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub lever: Option<Lever>,
    /// Nice value of a sleepy VM's vCPU threads [vm add: 19]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = nice_range())]
    pub sleepy_nice: Option<i32>,
    /// Nice value while a request is in flight [vm add: their own]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = nice_range().map(Boost::To))]
    pub boost_nice: Option<Boost>,
    /// How long a VM stays awake after its last answer, or after it was woken by something else than a request; for
    /// idle, how long it must have been so [vm add: 200us]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub linger: Option<u64>,
    /// After this time, a request counts as lost [vm add: 5s]
    #[arg(long, value_name = "TIME", value_parser = time::parse_timeout)]
    pub request_timeout: Option<u64>,
    /// After this time asleep, a VM is awake for a moment [vm add: 1s]
    #[arg(long, value_name = "TIME", value_parser = time::parse_timeout)]
    pub max_sleep: Option<u64>,
    /// For quiet: how long there is neither a packet nor device I/O [vm add: 50ms]
    #[arg(long, value_name = "TIME", value_parser = time::parse_timeout)]
    pub quiet: Option<u64>,
    /// For spin: how much CPU time the vCPUs use, all together, without I/O [vm add: 20ms]
    #[arg(long, value_name = "TIME", value_parser = time::parse_timeout)]
    pub spin: Option<u64>,
    /// For timer: how long after a guest's timer the VM may stay asleep [vm add: 0s]
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub timer_slack: Option<u64>,
}

fn nice_range() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(-20..=19)
}

impl Settings {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, and where they say nothing, those.
    pub fn or(&self, others: &Self) -> Self {
        Self {
            sleep_on: self.sleep_on.or(others.sleep_on),
            wake_on: self.wake_on.or(others.wake_on),
            lever: self.lever.or(others.lever),
            sleepy_nice: self.sleepy_nice.or(others.sleepy_nice),
            boost_nice: self.boost_nice.or(others.boost_nice),
            linger: self.linger.or(others.linger),
            request_timeout: self.request_timeout.or(others.request_timeout),
            max_sleep: self.max_sleep.or(others.max_sleep),
            quiet: self.quiet.or(others.quiet),
            spin: self.spin.or(others.spin),
            timer_slack: self.timer_slack.or(others.timer_slack),
        }
    }

    /// The policy with what was given.
    pub fn apply(&self, policy: Policy) -> Policy {
        let (boost_nice, flags) = match self.boost_nice {
            None => (policy.boost_nice, policy.flags),
            Some(Boost::Off) => (0, policy.flags & !POLICY_BOOST),
            Some(Boost::To(nice)) => (nice, policy.flags | POLICY_BOOST),
        };
        Policy {
            linger: self.linger.unwrap_or(policy.linger),
            request_timeout: self.request_timeout.unwrap_or(policy.request_timeout),
            max_sleep: self.max_sleep.unwrap_or(policy.max_sleep),
            quiet: self.quiet.unwrap_or(policy.quiet),
            spin: self.spin.unwrap_or(policy.spin),
            timer_slack: self.timer_slack.unwrap_or(policy.timer_slack),
            lever: self.lever.map_or(policy.lever, |lever| lever as u32),
            sleepy_nice: self.sleepy_nice.unwrap_or(policy.sleepy_nice),
            boost_nice,
            flags,
            sleep_on: self.sleep_on.unwrap_or(policy.sleep_on),
            wake_on: self.wake_on.unwrap_or(policy.wake_on),
        }
    }
}

/// What a VM gets when no option is given.
pub fn default() -> Policy {
    Policy {
        linger: 200_000,
        request_timeout: 5_000_000_000,
        max_sleep: 1_000_000_000,
        quiet: 50_000_000,
        spin: 20_000_000,
        timer_slack: 0,
        lever: LEVER_NICE,
        sleepy_nice: 19,
        boost_nice: 0,
        flags: 0,
        sleep_on: 1 << SLEEP_RESPONSE,
        wake_on: 1 << WAKE_REQUEST,
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
    quiet_ns: u64,
    spin_ns: u64,
    timer_slack_ns: u64,
    sleep_on: Vec<&'static str>,
    wake_on: Vec<&'static str>,
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
            quiet_ns: policy.quiet,
            spin_ns: policy.spin,
            timer_slack_ns: policy.timer_slack,
            sleep_on: Set::SleepOn.names(policy.sleep_on),
            wake_on: Set::WakeOn.names(policy.wake_on),
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

/// The events of a set in words, with the times that belong to them.
pub fn events_text(policy: &Policy, set: Set) -> String {
    let (bits, times): (u32, &[(usize, &str, u64)]) = match set {
        Set::SleepOn => (
            policy.sleep_on,
            &[
                (SLEEP_SPIN, "", policy.spin),
                (SLEEP_QUIET, "", policy.quiet),
            ],
        ),
        Set::WakeOn => (
            policy.wake_on,
            &[(WAKE_TIMER, "slack ", policy.timer_slack)],
        ),
    };
    let event = |bit: u32| {
        let name = set.names(1 << bit).join("");
        match times.iter().find(|(event, ..)| *event as u32 == bit) {
            Some((_, what, time)) => format!("{name} ({what}{})", time::exact(*time)),
            None => name,
        }
    };
    let events: Vec<String> = (0..u32::BITS)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(event)
        .collect();
    if events.is_empty() {
        "nothing".to_string()
    } else {
        events.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_replace_only_what_they_name() {
        assert_eq!(Settings::default().apply(default()), default());
        let args = Settings {
            linger: Some(0),
            lever: Some(Lever::Observe),
            ..Settings::default()
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
        let args = Settings {
            boost_nice: Some(Boost::To(-5)),
            ..Settings::default()
        };
        let boosted = args.apply(default());
        assert_eq!(boost(&boosted), Some(-5));
        assert_eq!(
            boost(&Settings::default().apply(boosted)),
            Some(-5),
            "kept by a later change"
        );
        let off = Settings {
            boost_nice: Some(Boost::Off),
            ..Settings::default()
        };
        assert_eq!(off.apply(boosted), default());
    }

    #[test]
    fn first_one_to_say_something_counts() {
        let first = Settings {
            linger: Some(0),
            ..Settings::default()
        };
        let second = Settings {
            linger: Some(1),
            quiet: Some(2_000_000),
            boost_nice: Some(Boost::Off),
            ..Settings::default()
        };
        let both = first.or(&second);
        assert_eq!(
            (both.linger, both.quiet, both.boost_nice),
            (Some(0), Some(2_000_000), Some(Boost::Off))
        );
    }

    #[test]
    fn events_have_their_times() {
        let policy = Policy {
            sleep_on: sleepy_uapi::SLEEP_EVENTS,
            wake_on: 1 << WAKE_REQUEST | 1 << WAKE_TIMER,
            ..default()
        };
        assert_eq!(
            events_text(&policy, Set::SleepOn),
            "response, idle, spin (20ms), quiet (50ms), hint"
        );
        assert_eq!(
            events_text(&policy, Set::WakeOn),
            "request, timer (slack 0s)"
        );
        assert_eq!(events_text(&Policy::default(), Set::WakeOn), "nothing");
    }

    #[test]
    fn levers_have_names() {
        assert_eq!(
            lever_names(1 << LEVER_OBSERVE | 1 << LEVER_NICE | 1 << 9),
            ["observe", "nice", "lever 9"]
        );
    }
}
