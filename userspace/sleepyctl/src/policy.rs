// SPDX-License-Identifier: GPL-2.0-only

//! How a VM sleeps and wakes: options, defaults, words.

use clap::Args;
use clap::builder::TypedValueParser;
use serde::Serialize;
use sleepy_uapi::{
    LEVER_IDLE, LEVER_NICE, LEVER_PARK, POLICY_AUTO, POLICY_BOOST, Policy, SLEEP_QUIET,
    SLEEP_RESPONSE, SLEEP_SPIN, WAKE_REQUEST, WAKE_TIMER,
};

use crate::boost::{self, Boost, Budget, boost};
use crate::events::Set;
use crate::lever::{Lever, Weight, is_auto, lever_name, parse_weight};
use crate::time;

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
    /// How weight is taken away: observe (not at all), nice, idle, cgroup, park; or auto, the one that works for this
    /// VM on this host (`sleepyctl probe` says which, and why) [vm add: nice]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub lever: Option<Lever>,
    /// For nice: nice value of a sleepy VM's vCPU threads [vm add: 19]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = nice_range())]
    pub sleepy_nice: Option<i32>,
    /// Nice value while a request is in flight [vm add: their own]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = nice_range().map(Boost::To))]
    pub boost_nice: Option<Boost>,
    /// How long the VM may have that in each period, such as 20ms/100ms; or none, for no limit [vm add: none]
    #[arg(long, value_name = "TIME/PERIOD", value_parser = boost::parse_budget_or_none)]
    pub boost_budget: Option<Budget>,
    /// For park: how long a vCPU thread waits at most [vm add: 2s]
    #[arg(long, value_name = "TIME", value_parser = time::parse_timeout)]
    pub park_max: Option<u64>,
    /// For park: for how long it then runs [vm add: 500us]
    #[arg(long, value_name = "TIME", value_parser = time::parse_stir)]
    pub stir_run: Option<u64>,
    /// For cgroup: weight of a sleepy VM's control group, 1 to 10000 (cpu.weight; cpu.shares in version 1), or idle
    /// [vm add: idle]
    #[arg(long, value_name = "N|idle", value_parser = parse_weight)]
    pub sleepy_weight: Option<u32>,
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
            boost_budget: self.boost_budget.or(others.boost_budget),
            park_max: self.park_max.or(others.park_max),
            stir_run: self.stir_run.or(others.stir_run),
            sleepy_weight: self.sleepy_weight.or(others.sleepy_weight),
            linger: self.linger.or(others.linger),
            request_timeout: self.request_timeout.or(others.request_timeout),
            max_sleep: self.max_sleep.or(others.max_sleep),
            quiet: self.quiet.or(others.quiet),
            spin: self.spin.or(others.spin),
            timer_slack: self.timer_slack.or(others.timer_slack),
        }
    }

    /// The policy with what was given. With `auto`, its lever is yet to be chosen: see [`Survey`](crate::probe::Survey).
    pub fn apply(&self, policy: Policy) -> Policy {
        let (lever, flags) = match self.lever {
            None => (policy.lever, policy.flags),
            Some(lever) => match lever.number() {
                Some(number) => (number, policy.flags & !POLICY_AUTO),
                None => (LEVER_PARK, policy.flags | POLICY_AUTO),
            },
        };
        let (boost_nice, flags) = match self.boost_nice {
            None => (policy.boost_nice, flags),
            Some(Boost::Off) => (0, flags & !POLICY_BOOST),
            Some(Boost::To(nice)) => (nice, flags | POLICY_BOOST),
        };
        let budget = match self.boost_budget {
            _ if flags & POLICY_BOOST == 0 => Budget::UNLIMITED,
            Some(budget) => budget,
            None => Budget {
                budget: policy.boost_budget,
                period: policy.boost_period,
            },
        };
        Policy {
            linger: self.linger.unwrap_or(policy.linger),
            request_timeout: self.request_timeout.unwrap_or(policy.request_timeout),
            max_sleep: self.max_sleep.unwrap_or(policy.max_sleep),
            quiet: self.quiet.unwrap_or(policy.quiet),
            spin: self.spin.unwrap_or(policy.spin),
            timer_slack: self.timer_slack.unwrap_or(policy.timer_slack),
            park_max: self.park_max.unwrap_or(policy.park_max),
            stir_run: self.stir_run.unwrap_or(policy.stir_run),
            boost_period: budget.period,
            boost_budget: budget.budget,
            lever,
            sleepy_nice: self.sleepy_nice.unwrap_or(policy.sleepy_nice),
            boost_nice,
            flags,
            sleep_on: self.sleep_on.unwrap_or(policy.sleep_on),
            wake_on: self.wake_on.unwrap_or(policy.wake_on),
            sleepy_weight: self.sleepy_weight.unwrap_or(policy.sleepy_weight),
            reserved: 0,
        }
    }

    /// What no option shows by itself: whether they go together in this policy, which they have made.
    pub fn check(&self, policy: &Policy) -> Result<(), String> {
        let limits = self.boost_budget.is_some_and(|b| b != Budget::UNLIMITED);
        if limits && boost(policy).is_none() {
            return Err(
                "a boost budget without a boost has no effect; give the boost's nice value, too (--boost-nice)"
                    .to_string(),
            );
        }
        check_boost(policy)?;
        check_stir(policy)
    }
}

/// Threads of the policy SCHED_IDLE have no use for a nice value.
pub fn check_boost(policy: &Policy) -> Result<(), String> {
    if policy.lever == LEVER_IDLE && boost(policy).is_some() {
        return Err(
            "the lever idle has no boost; leave boost_nice out (--no-boost), or take another lever"
                .to_string(),
        );
    }
    Ok(())
}

/// A thread runs for no longer than it waits.
pub fn check_stir(policy: &Policy) -> Result<(), String> {
    let (stir_run, park_max) = (policy.stir_run, policy.park_max);
    if stir_run <= park_max {
        return Ok(());
    }
    Err(format!(
        "stir_run {} is longer than park_max {}; take a shorter stir_run, or a longer park_max",
        time::exact(stir_run),
        time::exact(park_max)
    ))
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
        park_max: 2_000_000_000,
        stir_run: 500_000,
        boost_period: 0,
        boost_budget: 0,
        lever: LEVER_NICE,
        sleepy_nice: 19,
        boost_nice: 0,
        flags: 0,
        sleep_on: 1 << SLEEP_RESPONSE,
        wake_on: 1 << WAKE_REQUEST,
        sleepy_weight: 0,
        reserved: 0,
    }
}

/// A policy in JSON.
#[derive(Serialize)]
pub struct PolicyJson {
    lever: String,
    /// sleepyctl has chosen the lever.
    auto: bool,
    sleepy_nice: i32,
    sleepy_weight: Weight,
    park_max_ns: u64,
    stir_run_ns: u64,
    boost_nice: Option<i32>,
    boost_budget_ns: Option<u64>,
    boost_period_ns: Option<u64>,
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
            auto: is_auto(policy),
            sleepy_nice: policy.sleepy_nice,
            sleepy_weight: Weight(policy.sleepy_weight),
            park_max_ns: policy.park_max,
            stir_run_ns: policy.stir_run,
            boost_nice: boost(policy),
            boost_budget_ns: boost::budget(policy).map(|budget| budget.budget),
            boost_period_ns: boost::budget(policy).map(|budget| budget.period),
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
mod tests;
