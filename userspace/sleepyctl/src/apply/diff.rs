// SPDX-License-Identifier: GPL-2.0-only

//! What is different between a VM as it is and as it shall be.

use std::fmt;

use serde::Serialize;
use sleepy_uapi::{Policy, VmRule};

use crate::boost::{boost, budget};
use crate::device::rule_text;
use crate::error::Result;
use crate::events::Set;
use crate::lever::{Weight, shown};
use crate::program::Program;
use crate::rule::{Match, Origin, Rule};
use crate::time;

/// Something that changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    key: &'static str,
    before: String,
    after: String,
}

impl Change {
    /// From one value to another; the same one twice means that it differs in a way that has no short words.
    pub fn new(key: &'static str, before: impl ToString, after: impl ToString) -> Self {
        let (before, after) = (before.to_string(), after.to_string());
        Self { key, before, after }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, before, after } = self;
        if before == after {
            write!(f, "{key} {before} -> {after} others")
        } else {
            write!(f, "{key} {before} -> {after}")
        }
    }
}

/// Names in one word.
pub fn list<T: AsRef<str>>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".to_string();
    }
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.join("+")
}

/// The fields that differ.
pub fn policy(before: &Policy, after: &Policy) -> Vec<Change> {
    let boost =
        |policy: &Policy| boost(policy).map_or_else(|| "off".to_string(), |n| n.to_string());
    let limit =
        |policy: &Policy| budget(policy).map_or_else(|| "none".to_string(), |b| b.to_string());
    let events = |set: Set, bits| list(&set.names(bits));
    let fields: [(&'static str, String, String); 15] = [
        (
            "sleep_on",
            events(Set::SleepOn, before.sleep_on),
            events(Set::SleepOn, after.sleep_on),
        ),
        (
            "wake_on",
            events(Set::WakeOn, before.wake_on),
            events(Set::WakeOn, after.wake_on),
        ),
        ("lever", shown(before), shown(after)),
        (
            "sleepy_nice",
            before.sleepy_nice.to_string(),
            after.sleepy_nice.to_string(),
        ),
        (
            "sleepy_weight",
            Weight(before.sleepy_weight).to_string(),
            Weight(after.sleepy_weight).to_string(),
        ),
        (
            "park_max",
            time::exact(before.park_max),
            time::exact(after.park_max),
        ),
        (
            "stir_run",
            time::exact(before.stir_run),
            time::exact(after.stir_run),
        ),
        ("boost_nice", boost(before), boost(after)),
        ("boost_budget", limit(before), limit(after)),
        (
            "linger",
            time::exact(before.linger),
            time::exact(after.linger),
        ),
        (
            "request_timeout",
            time::exact(before.request_timeout),
            time::exact(after.request_timeout),
        ),
        (
            "max_sleep",
            time::exact(before.max_sleep),
            time::exact(after.max_sleep),
        ),
        ("quiet", time::exact(before.quiet), time::exact(after.quiet)),
        ("spin", time::exact(before.spin), time::exact(after.spin)),
        (
            "timer_slack",
            time::exact(before.timer_slack),
            time::exact(after.timer_slack),
        ),
    ];
    fields
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(key, before, after)| Change::new(key, before, after))
        .collect()
}

/// What tells a rule from another one.
#[derive(PartialEq)]
struct Key {
    class: u32,
    direction: u32,
    tag: u32,
    text: String,
    prog_id: u32,
}

impl Key {
    fn of_rule(rule: &Rule) -> Result<Self> {
        let prog_id = match &rule.matches {
            Match::Filter(_) => 0,
            Match::Program(path) => Program::open(path)?.id(),
        };
        Ok(Self {
            class: rule.class,
            direction: rule.direction,
            tag: rule.origin as u32,
            text: rule.text.clone(),
            prog_id,
        })
    }

    fn of_kernel(rule: &VmRule) -> Self {
        Self {
            class: rule.class,
            direction: rule.direction,
            tag: rule.tag,
            text: rule_text(rule),
            prog_id: rule.prog_id,
        }
    }
}

/// How the rules differ: the user's, those for TCP, that for noise.
pub fn rules(before: &[VmRule], after: &[Rule]) -> Result<Vec<Change>> {
    let before: Vec<Key> = before.iter().map(Key::of_kernel).collect();
    let after = after.iter().map(Key::of_rule).collect::<Result<Vec<_>>>()?;
    if before == after {
        return Ok(Vec::new());
    }
    let mut changes = Vec::new();
    for (name, origin) in [("tcp_defaults", Origin::Tcp), ("noise", Origin::Noise)] {
        let has = |keys: &[Key]| keys.iter().any(|key| key.tag == origin as u32);
        let (before, after) = (has(&before), has(&after));
        if before != after {
            changes.push(Change::new(name, before, after));
        }
    }
    let built_in = [Origin::Tcp as u32, Origin::Noise as u32];
    let own = |key: &&Key| !built_in.contains(&key.tag);
    let (own_before, own_after) = (
        before.iter().filter(own).collect::<Vec<_>>(),
        after.iter().filter(own).collect::<Vec<_>>(),
    );
    if own_before != own_after || changes.is_empty() {
        changes.push(Change::new("rules", own_before.len(), own_after.len()));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use sleepy_uapi::{CLASS_REQUEST, TO_VM};

    use super::*;
    use crate::policy::default;
    use crate::rule::complete;

    fn texts(changes: &[Change]) -> Vec<String> {
        changes.iter().map(Change::to_string).collect()
    }

    fn kernel(rules: &[Rule]) -> Vec<VmRule> {
        rules.iter().map(Rule::in_kernel).collect()
    }

    #[test]
    fn fields_that_differ_are_named() {
        assert_eq!(policy(&default(), &default()), []);
        let other = Policy {
            linger: 1_000_000,
            sleep_on: default().sleep_on | 1 << sleepy_uapi::SLEEP_IDLE,
            wake_on: 0,
            ..default()
        };
        assert_eq!(
            texts(&policy(&default(), &other)),
            [
                "sleep_on response -> response+idle",
                "wake_on request -> none",
                "linger 200us -> 1ms"
            ]
        );
    }

    #[test]
    fn rules_that_differ_are_counted() {
        let a = Rule::filter(CLASS_REQUEST, TO_VM, "tcp");
        let b = Rule::filter(CLASS_REQUEST, TO_VM, "udp");
        let one = complete(vec![a.clone()], true, true);
        for (other, expected) in [
            (complete(vec![a.clone()], true, true), vec![]),
            (
                complete(vec![b.clone()], true, true),
                vec!["rules 1 -> 1 others"],
            ),
            (
                complete(vec![a.clone(), b], true, true),
                vec!["rules 1 -> 2"],
            ),
            (
                complete(vec![a], false, false),
                vec!["tcp_defaults true -> false", "noise true -> false"],
            ),
        ] {
            assert_eq!(texts(&rules(&kernel(&one), &other).unwrap()), expected);
        }
    }
}
