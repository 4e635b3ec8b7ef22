// SPDX-License-Identifier: GPL-2.0-only

//! The tables of a manifest: `[defaults]`, `[template.NAME]` and `[[vm]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::profile::Profile;
use super::report::{Report, Spot, Spotted};
use super::rules;
use super::selector::Selector;
use super::value::{boolean, integer, string, time, wrong};
use crate::boost::{Boost, Budget, parse_budget};
use crate::events::Set;
use crate::filter::Handle;
use crate::lever::{Lever, parse_weight};
use crate::policy::Settings;
use crate::rule::Rule;
use crate::similar;
use crate::time::{parse, parse_stir, parse_timeout};

/// Keys that every table may have.
pub const COMMON: [&str; 20] = [
    "profile",
    "ports",
    "sleep_on",
    "wake_on",
    "lever",
    "sleepy_nice",
    "sleepy_weight",
    "park_max",
    "stir_run",
    "boost_nice",
    "boost_budget",
    "linger",
    "request_timeout",
    "max_sleep",
    "quiet",
    "spin",
    "timer_slack",
    "auto_link",
    "tcp_defaults",
    "noise",
];

/// The key of rules, which every table may have too.
pub const RULE: &str = "rule";

/// Keys of `[[vm]]` alone.
pub const VM: [&str; 11] = [
    "name", "template", "each", "vm_fd", "links", "cmdline", "pid", "pidfile", "unit", "cgroup",
    "link",
];

/// What is at hand while a file is read.
pub struct Reader<'a> {
    /// Where findings go.
    pub report: &'a mut Report,
    /// The file's number.
    pub file: usize,
    /// What filters are checked by.
    pub filters: &'a Handle,
}

impl Reader<'_> {
    /// A place in this file.
    pub fn spot(&self, span: Range<usize>) -> Spot {
        Spot {
            file: self.file,
            at: span.start,
        }
    }

    /// The value, or a finding at it.
    pub fn take<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let spot = self.spot(value.span());
        read(value.get_ref())
            .map_err(|why| self.report.error(spot, format!("`{key}`: {why}")))
            .ok()
    }

    /// The same, with its place.
    pub fn take_spotted<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Spotted<T>> {
        let spot = self.spot(value.span());
        self.take(key, value, read)
            .map(|value| Spotted { value, spot })
    }

    /// Each item of a list; those that are wrong are left out.
    pub fn list<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<Spotted<T>>> {
        let DeValue::Array(items) = value.get_ref() else {
            return self.take(key, value, |value| Err(wrong(value, wanted)));
        };
        let items = items
            .iter()
            .filter_map(|item| self.take_spotted(key, item, &read));
        Some(items.collect())
    }

    /// A key that nobody knows.
    pub fn unknown_key(&mut self, span: Range<usize>, key: &str, known: &[&str]) {
        let spot = self.spot(span);
        self.report.error(spot, similar::unknown("key", key, known));
    }
}

/// What every table may say. What is not said comes from the next one.
#[derive(Clone, Default)]
pub struct Common {
    /// Events, lever and times.
    pub settings: Settings,
    /// Where a key stands.
    pub keys: BTreeMap<String, Spot>,
    /// The common case.
    pub profile: Option<Spotted<Profile>>,
    /// The profile's ports.
    pub ports: Option<Spotted<Vec<u16>>>,
    /// Whether the VMM's taps are links.
    pub auto_link: Option<bool>,
    /// Whether the rules for TCP are there.
    pub tcp_defaults: Option<bool>,
    /// Whether the rule for noise is there.
    pub noise: Option<bool>,
    /// Own rules.
    pub rules: Option<Vec<Spotted<Rule>>>,
    /// Keys whose values were wrong, and are missing here.
    pub wrong: BTreeSet<String>,
}

impl Common {
    /// This, and where it says nothing, the other.
    pub fn or(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            settings: self.settings.or(&other.settings),
            keys: self.keys,
            profile: self.profile.or(other.profile),
            ports: self.ports.or(other.ports),
            auto_link: self.auto_link.or(other.auto_link),
            tcp_defaults: self.tcp_defaults.or(other.tcp_defaults),
            noise: self.noise.or(other.noise),
            rules: self.rules.or(other.rules),
            wrong: self.wrong.union(&other.wrong).cloned().collect(),
        }
    }

    /// Reads a table whose keys are all common ones.
    pub fn read(table: &DeTable<'_>, reader: &mut Reader<'_>) -> Self {
        let mut common = Self::default();
        for (key, value) in table {
            if !common.read_key(key.get_ref(), value, reader) {
                let known: Vec<&str> = COMMON.into_iter().chain([RULE]).collect();
                reader.unknown_key(key.span(), key.get_ref(), &known);
            }
        }
        common
    }

    /// Reads a key; false if it is none of the common ones.
    fn read_key(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        reader: &mut Reader<'_>,
    ) -> bool {
        let errors = reader.report.errors();
        let settings = &mut self.settings;
        let range = |value: &DeValue<'_>| integer(value, -20..=19);
        match key {
            "profile" => {
                let read = |value: &DeValue<'_>| Profile::of_name(&string(value)?);
                self.profile = reader.take_spotted(key, value, read);
            }
            "ports" => {
                let spot = reader.spot(value.span());
                let wanted = "a list of ports, such as [8080]";
                let ports = reader.list(key, value, wanted, |port| integer(port, 1..=65535));
                self.ports = ports.map(|ports| Spotted {
                    value: ports.into_iter().map(|port| port.value).collect(),
                    spot,
                });
            }
            "sleep_on" => settings.sleep_on = events(Set::SleepOn, value, reader),
            "wake_on" => settings.wake_on = events(Set::WakeOn, value, reader),
            "lever" => {
                let read = |value: &DeValue<'_>| Lever::of_name(&string(value)?);
                settings.lever = reader.take(key, value, read);
            }
            "sleepy_nice" => settings.sleepy_nice = reader.take(key, value, range),
            "sleepy_weight" => settings.sleepy_weight = reader.take(key, value, weight),
            "park_max" => settings.park_max = reader.take(key, value, |v| time(v, parse_timeout)),
            "stir_run" => settings.stir_run = reader.take(key, value, |v| time(v, parse_stir)),
            "boost_nice" => settings.boost_nice = reader.take(key, value, boost),
            "boost_budget" => settings.boost_budget = reader.take(key, value, budget),
            "linger" => settings.linger = reader.take(key, value, |v| time(v, parse)),
            "request_timeout" => {
                settings.request_timeout = reader.take(key, value, |v| time(v, parse_timeout));
            }
            "max_sleep" => settings.max_sleep = reader.take(key, value, |v| time(v, parse_timeout)),
            "quiet" => settings.quiet = reader.take(key, value, |v| time(v, parse_timeout)),
            "spin" => settings.spin = reader.take(key, value, |v| time(v, parse_timeout)),
            "timer_slack" => settings.timer_slack = reader.take(key, value, |v| time(v, parse)),
            "auto_link" => self.auto_link = reader.take(key, value, boolean),
            "tcp_defaults" => self.tcp_defaults = reader.take(key, value, boolean),
            "noise" => self.noise = reader.take(key, value, boolean),
            RULE => self.rules = rules::read(value, reader),
            _ => return false,
        }
        let spot = reader.spot(value.span());
        self.keys.insert(key.to_string(), spot);
        if reader.report.errors() > errors {
            self.wrong.insert(key.to_string());
        }
        true
    }
}

fn events(set: Set, value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<u32> {
    let wanted = format!("a list of events, such as [\"{}\"]", set.all()[0]);
    let read = |event: &DeValue<'_>| set.bit(&string(event)?);
    let events = reader.list(set.key(), value, &wanted, read)?;
    Some(events.iter().fold(0, |bits, event| bits | event.value))
}

fn weight(value: &DeValue<'_>) -> Result<u32, String> {
    match value {
        DeValue::String(text) => parse_weight(text),
        DeValue::Integer(_) => integer(value, 1..=sleepy_uapi::MAX_WEIGHT.into()),
        other => Err(wrong(other, "a number from 1 to 10000, or \"idle\"")),
    }
}

fn budget(value: &DeValue<'_>) -> Result<Budget, String> {
    match value {
        DeValue::Boolean(false) => Ok(Budget::UNLIMITED),
        DeValue::String(text) => parse_budget(text),
        other => Err(wrong(
            other,
            "a text: BUDGET/PERIOD, such as \"20ms/100ms\"; or false",
        )),
    }
}

fn boost(value: &DeValue<'_>) -> Result<Boost, String> {
    match value {
        DeValue::Boolean(false) => Ok(Boost::Off),
        DeValue::Integer(_) => integer(value, -20..=19).map(Boost::To),
        other => Err(wrong(other, "a number from -20 to 19, or false")),
    }
}

/// A `[[vm]]`, as it was written.
#[derive(Default)]
pub struct Entry {
    /// Where it begins.
    pub spot: Spot,
    /// What it shall be called.
    pub name: Option<Spotted<String>>,
    /// The template that it is made by.
    pub template: Option<Spotted<String>>,
    /// Whether it is one VM for each process that matches.
    pub each: bool,
    /// Ways to find its process; there must be one.
    pub selectors: Vec<Spotted<Selector>>,
    /// The VMM's descriptor of the virtual machine.
    pub vm_fd: Option<i32>,
    /// Links besides its taps.
    pub links: Vec<Spotted<String>>,
    /// The rest.
    pub common: Common,
}

impl Entry {
    /// Reads one.
    pub fn read(table: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self> {
        let spot = reader.spot(table.span());
        let DeValue::Table(keys) = table.get_ref() else {
            return reader.take("vm", table, |v| Err(wrong(v, "a table: write [[vm]]")));
        };
        let mut entry = Self {
            spot,
            ..Self::default()
        };
        for (key, value) in keys {
            let (span, key) = (key.span(), key.get_ref().as_ref());
            match key {
                "name" => entry.name = reader.take_spotted(key, value, string),
                "template" => entry.template = reader.take_spotted(key, value, string),
                "each" => entry.each = reader.take(key, value, boolean) == Some(true),
                "vm_fd" => {
                    let read = |v: &DeValue<'_>| integer(v, 0..=i32::MAX.into());
                    entry.vm_fd = reader.take(key, value, read);
                }
                "links" => {
                    let wanted = "a list of devices, such as [\"tap0\"]";
                    let links = reader.list(key, value, wanted, |v| device(&string(v)?));
                    entry.links = links.unwrap_or_default();
                }
                _ if Selector::KEYS.contains(&key) => {
                    let read = |v: &DeValue<'_>| Selector::read(key, v);
                    let selector = reader.take_spotted(key, value, read);
                    entry.selectors.push(selector.unwrap_or(Spotted {
                        // The finding is there already; that none is given shall not be another one.
                        value: Selector::Unknown,
                        spot,
                    }));
                }
                _ if entry.common.read_key(key, value, reader) => {}
                _ => {
                    let known: Vec<&str> = VM.into_iter().chain(COMMON).chain([RULE]).collect();
                    reader.unknown_key(span, key, &known);
                }
            }
        }
        Some(entry)
    }
}

/// `[NETNS/]DEV`
pub fn device(text: &str) -> Result<String, String> {
    let name = text.rsplit('/').next().unwrap_or_default();
    let is_good = |c: char| !c.is_whitespace() && c != ':' && !c.is_control();
    if (1..sleepy_uapi::LINK_NAME_SIZE).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(text.to_string());
    }
    Err(format!(
        "`{text}` cannot be a device: write DEV or NETNS/DEV, where DEV has 1 to {} characters and no blanks",
        sleepy_uapi::LINK_NAME_SIZE - 1
    ))
}
