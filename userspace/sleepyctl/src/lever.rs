// SPDX-License-Identifier: GPL-2.0-only

//! Levers: their names, and what of a policy each of them uses.

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use sleepy_uapi::{
    LEVER_GROUP, LEVER_IDLE, LEVER_NICE, LEVER_OBSERVE, LEVER_PARK, MAX_WEIGHT, POLICY_AUTO, Policy,
};

use crate::boost::{self, boost};
use crate::time;

/// How weight is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lever {
    /// Measure everything, change nothing
    Observe,
    /// Raise the nice value of the vCPU threads
    Nice,
    /// Give the vCPU threads the policy SCHED_IDLE
    Idle,
    /// Take weight from the VM's control group
    Cgroup,
    /// Have the vCPU threads wait in place of running
    Park,
    /// The one that works for this VM on this host
    Auto,
}

use Lever::{Auto, Cgroup, Idle, Nice, Observe, Park};

impl Lever {
    /// Those that the kernel has.
    pub const REAL: [Self; 5] = [Observe, Nice, Idle, Cgroup, Park];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Observe => "observe",
            Nice => "nice",
            Idle => "idle",
            Cgroup => "cgroup",
            Park => "park",
            Auto => "auto",
        }
    }

    /// All names.
    pub fn names() -> Vec<&'static str> {
        Self::value_variants().iter().map(|l| l.name()).collect()
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Result<Self, String> {
        let mut levers = Self::value_variants().iter();
        let found = levers.find(|lever| lever.name() == name);
        found
            .copied()
            .ok_or_else(|| crate::similar::unknown("lever", name, &Self::names()))
    }

    /// Its number; none for `auto`, which the kernel does not know.
    pub fn number(self) -> Option<u32> {
        match self {
            Observe => Some(LEVER_OBSERVE),
            Nice => Some(LEVER_NICE),
            Idle => Some(LEVER_IDLE),
            Cgroup => Some(LEVER_GROUP),
            Park => Some(LEVER_PARK),
            Auto => None,
        }
    }

    /// The one of a policy, as it was asked for.
    pub fn asked(policy: &Policy) -> Option<Self> {
        if policy.flags & POLICY_AUTO != 0 {
            Some(Auto)
        } else {
            Self::of_number(policy.lever)
        }
    }

    /// The one of this number.
    pub fn of_number(number: u32) -> Option<Self> {
        let mut levers = Self::REAL.into_iter();
        levers.find(|lever| lever.number() == Some(number))
    }

    /// Whether a key of the policy has an effect. With `observe` all may be there: it stands for a lever yet to be
    /// tried, as `auto` does for one yet to be chosen.
    pub fn uses(self, key: &str) -> bool {
        match self {
            Observe | Auto => true,
            Nice => !matches!(key, "park_max" | "stir_run" | "sleepy_weight"),
            Idle => !matches!(
                key,
                "sleepy_nice" | "park_max" | "stir_run" | "sleepy_weight"
            ),
            Cgroup => !matches!(key, "sleepy_nice" | "park_max" | "stir_run"),
            Park => !matches!(key, "sleepy_nice" | "sleepy_weight"),
        }
    }
}

/// A lever's name.
pub fn lever_name(number: u32) -> String {
    Lever::of_number(number).map_or_else(
        || format!("lever {number}"),
        |lever| lever.name().to_string(),
    )
}

/// The names of the levers in a bit set.
pub fn lever_names(bits: u64) -> Vec<String> {
    (0..u64::BITS)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(lever_name)
        .collect()
}

/// Whether it was chosen by sleepyctl.
pub fn is_auto(policy: &Policy) -> bool {
    policy.flags & POLICY_AUTO != 0
}

/// A policy's lever: `park`, or `auto (park)`.
pub fn shown(policy: &Policy) -> String {
    let name = lever_name(policy.lever);
    if is_auto(policy) {
        format!("auto ({name})")
    } else {
        name
    }
}

/// The lever in words.
pub fn lever_text(policy: &Policy) -> String {
    let nice = policy.sleepy_nice;
    let text = match Lever::of_number(policy.lever) {
        Some(Observe) => "observe: measures, changes nothing".to_string(),
        Some(Nice) => format!("nice {nice} while sleepy"),
        Some(Idle) => "SCHED_IDLE while sleepy".to_string(),
        Some(Cgroup) => match Weight(policy.sleepy_weight) {
            Weight(0) => "cgroup idle while sleepy".to_string(),
            Weight(weight) => format!("cgroup weight {weight} while sleepy"),
        },
        Some(Park) => format!(
            "park while sleepy: wait {} at most, run {}",
            time::exact(policy.park_max),
            time::exact(policy.stir_run)
        ),
        _ => lever_name(policy.lever),
    };
    let boosts = match boost(policy) {
        Some(boost) if policy.lever != LEVER_OBSERVE => {
            let what = if policy.lever == LEVER_NICE {
                ""
            } else {
                "nice "
            };
            let budget = boost::budget(policy).map_or_else(String::new, |budget| {
                format!(" ({} of each {})", budget.time(), budget.period())
            });
            format!(", {what}{boost} while a request is in flight{budget}")
        }
        _ => String::new(),
    };
    let auto = if is_auto(policy) { "auto: " } else { "" };
    format!("{auto}{text}{boosts}")
}

/// The weight of a sleepy VM's control group; 0 is `idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(pub u32);

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("idle"),
            weight => write!(f, "{weight}"),
        }
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => to.serialize_str("idle"),
            weight => to.serialize_u32(weight),
        }
    }
}

/// `idle`, or a number from 1 to 10000.
pub fn parse_weight(text: &str) -> Result<u32, String> {
    let number = || text.parse().ok();
    match text {
        "idle" => Ok(0),
        _ => number()
            .filter(|weight| (1..=MAX_WEIGHT).contains(weight))
            .ok_or_else(|| format!("a number from 1 to {MAX_WEIGHT}, or idle")),
    }
}

#[cfg(test)]
mod tests {
    use sleepy_uapi::POLICY_BOOST;

    use super::*;
    use crate::policy::default;

    #[test]
    fn levers_have_names() {
        assert_eq!(
            lever_names(1 << LEVER_OBSERVE | 1 << LEVER_PARK | 1 << 9),
            ["observe", "park", "lever 9"]
        );
        for lever in Lever::value_variants() {
            let value = lever.to_possible_value().unwrap();
            assert_eq!(value.get_name(), lever.name());
            assert_eq!(Lever::of_name(lever.name()), Ok(*lever));
        }
        assert!(
            Lever::REAL
                .iter()
                .all(|l| l.number().and_then(Lever::of_number) == Some(*l))
        );
    }

    #[test]
    fn chosen_lever_is_told_from_one_that_was_asked_for() {
        let asked = Policy {
            lever: LEVER_PARK,
            ..default()
        };
        let chosen = Policy {
            flags: POLICY_AUTO,
            ..asked
        };
        assert_eq!(
            (shown(&asked), Lever::asked(&asked)),
            ("park".to_string(), Some(Park))
        );
        assert_eq!(
            (shown(&chosen), Lever::asked(&chosen)),
            ("auto (park)".to_string(), Some(Auto))
        );
    }

    #[test]
    fn levers_have_words() {
        let of = |lever: Lever, policy: Policy| {
            lever_text(&Policy {
                lever: lever.number().unwrap(),
                ..policy
            })
        };
        let boosted = Policy {
            boost_nice: -5,
            boost_budget: 20_000_000,
            boost_period: 100_000_000,
            flags: POLICY_BOOST | POLICY_AUTO,
            sleepy_weight: 10,
            ..default()
        };
        for (lever, plain, with_boost) in [
            (Nice, "nice 19 while sleepy", "nice 19 while sleepy, -5"),
            (
                Idle,
                "SCHED_IDLE while sleepy",
                "SCHED_IDLE while sleepy, nice -5",
            ),
            (
                Cgroup,
                "cgroup idle while sleepy",
                "cgroup weight 10 while sleepy, nice -5",
            ),
            (
                Park,
                "park while sleepy: wait 2s at most, run 500us",
                "park while sleepy: wait 2s at most, run 500us, nice -5",
            ),
        ] {
            assert_eq!(of(lever, default()), plain);
            assert_eq!(
                of(lever, boosted),
                format!("auto: {with_boost} while a request is in flight (20ms of each 100ms)")
            );
        }
        assert_eq!(
            of(Observe, boosted),
            "auto: observe: measures, changes nothing"
        );
    }

    #[test]
    fn weights_are_read() {
        assert_eq!(parse_weight("idle"), Ok(0));
        assert_eq!(parse_weight("1"), Ok(1));
        assert_eq!(parse_weight("10000"), Ok(10_000));
        for wrong in ["0", "10001", "-1", "Idle", ""] {
            assert!(parse_weight(wrong).is_err(), "{wrong}");
        }
        let json = serde_json::to_string(&[Weight(0), Weight(7)]).unwrap();
        assert_eq!(json, r#"["idle",7]"#);
    }
}
