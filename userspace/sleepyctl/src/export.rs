// SPDX-License-Identifier: GPL-2.0-only

//! `export`

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use sleepy_uapi::{
    CLASS_PROGRAM, Policy, SLEEP_QUIET, SLEEP_SPIN, VmGet, VmLink, VmRule, WAKE_TIMER,
};

use crate::device::{Device, gone, rule_text, text, vm_name};
use crate::error::{Error, Result};
use crate::events::Set;
use crate::manifest::load::VERSION;
use crate::manifest::profile::Profile;
use crate::manifest::rules::CLASSES;
use crate::netns::{self, Netns};
use crate::output::{self, Output};
use crate::policy::{self, boost, lever_name};
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
    sleepy_nice: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    boost_nice: Option<i32>,
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
        eprintln!("export: note: {note}");
    }
    if output.json {
        return output.print(Body { manifest }, String::new);
    }
    let text = toml(&manifest)?;
    output::write(&text)
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
        lever,
        sleepy_nice,
        sleep_on,
        wake_on,
        ..
    } = vm.policy;
    let built_in = policy::default();
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
        lever: lever_name(lever),
        sleepy_nice,
        boost_nice: boost(&vm.policy),
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

#[cfg(test)]
mod tests {
    use sleepy_uapi::{CLASS_IGNORE, CLASS_REQUEST, CLASS_WAKE, FROM_VM, TO_VM};

    use super::*;
    use crate::manifest::load::of_texts;
    use crate::policy::{self, Boost, Settings};
    use crate::rule::{self, BOTH, complete};

    fn link() -> VmLink {
        let mut link = VmLink {
            netns: Netns::own().unwrap().inode(),
            ..VmLink::default()
        };
        link.name[..4].copy_from_slice(b"tap0");
        link
    }

    /// Exports a VM, and reads that again.
    fn round_trip(vm: &VmGet, rules: &[rule::Rule]) {
        let kernel: Vec<VmRule> = rules.iter().map(rule::Rule::in_kernel).collect();
        let mut notes = Vec::new();
        let manifest = Manifest {
            schema_version: VERSION,
            vm: vec![export(
                vm,
                &[link()],
                &kernel,
                &Namespaces::here(),
                &mut notes,
            )],
        };
        let text = toml(&manifest).unwrap();
        let read = of_texts(&[("f".to_string(), text.clone())]).unwrap();
        assert!(
            !read.report.has_errors(),
            "{text}{:#?}",
            read.report.findings()
        );
        assert_eq!(notes, [""; 0]);
        let [again] = &read.vms[..] else {
            panic!("{text}")
        };
        assert_eq!(again.name.value, "a");
        assert_eq!(again.policy, vm.policy, "{text}");
        assert_eq!(again.rules(), rules, "{text}");
        assert_eq!(again.links[0].value, "tap0");
        assert!(!again.auto_link);
    }

    fn vm(settings: &Settings) -> VmGet {
        let mut vm = VmGet {
            pid: 42,
            policy: settings.apply(policy::default()),
            ..VmGet::default()
        };
        vm.name[0] = b'a';
        vm
    }

    #[test]
    fn what_is_exported_reads_the_same() {
        let own = vec![
            rule::Rule::filter(CLASS_IGNORE, BOTH, "tcp port 80 and host 10.0.0.9"),
            rule::Rule::filter(CLASS_REQUEST, FROM_VM, "udp[4:2] > 8"),
            rule::Rule::filter(CLASS_WAKE, TO_VM, "icmp"),
            rule::Rule::program(TO_VM, "/sys/fs/bpf/x"),
        ];
        let settings = Settings {
            boost_nice: Some(Boost::To(-5)),
            sleep_on: Some(0),
            wake_on: Some(sleepy_uapi::WAKE_EVENTS),
            linger: Some(1_234_567),
            ..Settings::default()
        };
        round_trip(&vm(&settings), &complete(own.clone(), true, true));
        round_trip(&vm(&settings), &complete(own, false, false));
        let profile = Profile::Grpc;
        let with_ports = complete(profile.rules(&[80, 8080]), true, true);
        round_trip(&vm(&profile.settings()), &with_ports);
        round_trip(&vm(&Settings::default()), &with_ports);
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let mut foreign = rule::Rule::filter(CLASS_WAKE, TO_VM, "icmp").in_kernel();
        foreign.tag = 77;
        let mut other_profile = Profile::Http.rules(&[80])[0].in_kernel();
        other_profile.text[0] = b'x';
        let elsewhere = VmLink { netns: 1, ..link() };
        let outside = VmGet {
            pid: 0,
            ..vm(&Settings::default())
        };
        let mut notes = Vec::new();
        let exported = export(
            &outside,
            &[elsewhere],
            &[foreign, other_profile],
            &Namespaces::here(),
            &mut notes,
        );
        assert!(exported.links.is_empty() && exported.rule.is_empty());
        assert_eq!((exported.pid, exported.profile), (None, None));
        assert_eq!(notes.len(), 4, "{notes:?}");
    }

    #[test]
    fn vms_of_one_process_are_named() {
        let export = |name: u8, pid| {
            let mut vm = vm(&Settings::default());
            (vm.name[0], vm.pid) = (name, pid);
            export(&vm, &[], &[], &Namespaces::here(), &mut Vec::new())
        };
        let vms = [(b'a', 42), (b'b', 0), (b'c', 42), (b'd', 0), (b'e', 7)];
        let vms = vms.map(|(name, pid)| export(name, pid));
        let note = "a and c are both of process 42; add vm_fd";
        assert_eq!(of_one_process(&vms), [note]);
    }
}
