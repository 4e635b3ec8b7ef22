// SPDX-License-Identifier: GPL-2.0-only

//! `export`

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use sleepy_uapi::{
    CLASS_PROGRAM, Policy, SLEEP_QUIET, SLEEP_SPIN, VmGet, VmLink, VmRule, WAKE_TIMER,
};

use crate::boost::{boost, budget};
use crate::device::{Device, gone, rule_text, text, vm_name};
use crate::error::{Error, Result};
use crate::events::Set;
use crate::lever::{Lever, Weight, lever_name};
use crate::manifest::load::VERSION;
use crate::manifest::profile::Profile;
use crate::manifest::rules::CLASSES;
use crate::netns::{self, Netns};
use crate::output::{self, Output};
use crate::policy;
use crate::rule::{Origin, class_name, direction_name};
use crate::time;

#[derive(Serialize)]
struct Manifest {
    schema_version: i64,
    vm: Vec<Vm>,
}

#[derive(Serialize)]
struct Body {
    manifest: Manifest,
}

/// A `[[vm]]` that leaves nothing to defaults.
#[derive(Serialize)]
struct Vm {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    auto_link: bool,
    links: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<u16>,
    sleep_on: Vec<&'static str>,
    wake_on: Vec<&'static str>,
    lever: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sleepy_nice: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sleepy_weight: Option<Weight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    park_max: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stir_run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boost_nice: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boost_budget: Option<String>,
    linger: String,
    request_timeout: String,
    max_sleep: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quiet: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer_slack: Option<String>,
    tcp_defaults: bool,
    noise: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rule: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bpf: Option<String>,
}

/// Runs it.
pub fn run(output: Output, names: &[String]) -> Result<()> {
    let device = Device::open()?;
    let vms = if names.is_empty() {
        device.vms()?
    } else {
        device.named(names)?
    };
    let namespaces = Namespaces::here();
    let mut notes = Vec::new();
    let mut manifest = Manifest {
        schema_version: VERSION,
        vm: Vec::new(),
    };
    for vm in &vms {
        match (device.links(vm)?, device.rules(vm)?) {
            (Some(links), Some(rules)) => {
                let vm = export(vm, &links, &rules, &namespaces, &mut notes);
                manifest.vm.push(vm);
            }
            _ if names.is_empty() => {}
            _ => return Err(gone(vm)),
        }
    }
    notes.extend(of_one_process(&manifest.vm));
    for note in notes {
        output::say(format!("export: note: {note}"));
    }
    if output.json {
        return output.print(Body { manifest }, String::new);
    }
    let text = toml(&manifest)?;
    output::write(&text).map(drop)
}

/// What tells two VMs of one process apart is not known here.
fn of_one_process(vms: &[Vm]) -> Vec<String> {
    let mut first = HashMap::new();
    let note = |vm: &Vm| {
        let (pid, name) = (vm.pid?, vm.name.clone());
        let other = first.entry(pid).or_insert_with(|| name.clone());
        (*other != name).then(|| format!("{other} and {name} are both of process {pid}; add vm_fd"))
    };
    vms.iter().filter_map(note).collect()
}

/// The network namespaces that links can be named by.
struct Namespaces {
    own: Option<u64>,
    names: HashMap<u64, String>,
}

impl Namespaces {
    fn here() -> Self {
        Self {
            own: Netns::own().ok().map(|own| own.inode()),
            names: netns::names(),
        }
    }
}

fn toml(manifest: &Manifest) -> Result<String> {
    toml::to_string(manifest).map_err(|error| Error::failed(error.to_string()))
}

/// The time of an event; without the event, a time like the built-in one is of no interest.
fn used(events: u32, event: usize, time: u64, built_in: u64) -> Option<String> {
    (events >> event & 1 == 1 || time != built_in).then(|| time::exact(time))
}

fn export(
    vm: &VmGet,
    links: &[VmLink],
    rules: &[VmRule],
    namespaces: &Namespaces,
    notes: &mut Vec<String>,
) -> Vm {
    let name = vm_name(vm);
    let pid = (vm.pid != 0).then_some(vm.pid);
    if pid.is_none() {
        notes.push(format!(
            "the process of {name} has no number in this PID namespace; add a selector, such as cmdline"
        ));
    }
    if vm.lost_links > 0 {
        notes.push(format!("{name} has lost links, which are left out"));
    }
    let has = |origin: Origin| rules.iter().any(|rule| rule.tag == origin as u32);
    let profile = rules
        .iter()
        .filter(|rule| rule.tag == Origin::Profile as u32)
        .find_map(|rule| Profile::of_text(&rule_text(rule)));
    let Policy {
        linger,
        request_timeout,
        max_sleep,
        quiet,
        spin,
        timer_slack,
        park_max,
        stir_run,
        lever,
        sleepy_nice,
        sleepy_weight,
        sleep_on,
        wake_on,
        ..
    } = vm.policy;
    let built_in = policy::default();
    // What this host chose may not be what another one would.
    let asked = Lever::asked(&vm.policy);
    let uses = |key: &str| asked.is_some_and(|lever| lever.uses(key));
    Vm {
        pid,
        auto_link: false,
        links: links
            .iter()
            .filter_map(|link| link_name(vm, link, namespaces, notes))
            .collect(),
        profile: profile.as_ref().map(|(profile, _)| profile.name()),
        ports: profile.map_or_else(Vec::new, |(_, ports)| ports),
        sleep_on: Set::SleepOn.names(sleep_on),
        wake_on: Set::WakeOn.names(wake_on),
        lever: asked.map_or_else(|| lever_name(lever), |lever| lever.name().to_string()),
        sleepy_nice: (uses("sleepy_nice") || sleepy_nice != built_in.sleepy_nice)
            .then_some(sleepy_nice),
        sleepy_weight: (sleepy_weight != built_in.sleepy_weight).then_some(Weight(sleepy_weight)),
        park_max: (park_max != built_in.park_max).then(|| time::exact(park_max)),
        stir_run: (stir_run != built_in.stir_run).then(|| time::exact(stir_run)),
        boost_nice: boost(&vm.policy),
        boost_budget: budget(&vm.policy).map(|budget| budget.to_string()),
        linger: time::exact(linger),
        request_timeout: time::exact(request_timeout),
        max_sleep: time::exact(max_sleep),
        quiet: used(sleep_on, SLEEP_QUIET, quiet, built_in.quiet),
        spin: used(sleep_on, SLEEP_SPIN, spin, built_in.spin),
        timer_slack: used(wake_on, WAKE_TIMER, timer_slack, built_in.timer_slack),
        tcp_defaults: has(Origin::Tcp),
        noise: has(Origin::Noise),
        rule: rules
            .iter()
            .filter_map(|rule| exported_rule(&name, rule, notes))
            .collect(),
        name,
    }
}

/// As `links` takes it: its name alone, with its namespace's, or with the path of the VMM's.
fn link_name(
    vm: &VmGet,
    link: &VmLink,
    namespaces: &Namespaces,
    notes: &mut Vec<String>,
) -> Option<String> {
    let device = text(&link.name);
    let is_in = |path: &str| Netns::open(Path::new(path)).is_ok_and(|n| n.inode() == link.netns);
    if namespaces.own == Some(link.netns) {
        return Some(device);
    }
    if let Some(name) = namespaces.names.get(&link.netns) {
        return Some(format!("{name}/{device}"));
    }
    let theirs = format!("/proc/{}/ns/net", vm.pid);
    if is_in(&theirs) {
        return Some(format!("{theirs}/{device}"));
    }
    notes.push(format!(
        "{}: the network namespace of {device} has no name; give it one with `ip netns attach`",
        vm_name(vm)
    ));
    None
}

fn exported_rule(name: &str, rule: &VmRule, notes: &mut Vec<String>) -> Option<Rule> {
    let text = rule_text(rule);
    match Origin::of_tag(rule.tag) {
        Some(Origin::User) if !text.is_empty() => {}
        Some(Origin::Tcp | Origin::Noise) => return None,
        Some(Origin::Profile) if Profile::of_text(&text).is_some() => return None,
        _ => {
            let note = "has a rule that sleepyctl has not written, which is left out";
            notes.push(format!("{name} {note}"));
            return None;
        }
    }
    let is_program = rule.class == CLASS_PROGRAM;
    if !is_program && !CLASSES.contains(&rule.class) {
        let class = class_name(rule.class);
        notes.push(format!(
            "{name} has a rule of class {class}, which is left out"
        ));
        return None;
    }
    let (filter, bpf) = if is_program {
        (None, Some(text))
    } else {
        (Some(text), None)
    };
    Some(Rule {
        class: (!is_program).then(|| class_name(rule.class)),
        direction: direction_name(rule.direction),
        filter,
        bpf,
    })
}

#[cfg(any(test, feature = "fuzz"))]
pub mod round_trip;
#[cfg(test)]
mod tests;
