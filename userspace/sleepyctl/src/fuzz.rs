// SPDX-License-Identifier: GPL-2.0-only

//! What must hold of any text that comes from outside: for the fuzzer, and for tests with what it has found worth
//! keeping.

use std::fmt::Debug;

use procfs::FromRead;
use procfs::process::Stat;
use sleepy_uapi::{CLASS_REQUEST, TO_VM};

use crate::boost::{parse_budget, parse_budget_or_none};
use crate::cgroup::{below, common, up};
use crate::events::Set;
use crate::export::round_trip::{round_trip, vm};
use crate::filter::{Code, Compiler};
use crate::lever::{Lever, Weight, parse_weight};
use crate::link::split;
use crate::manifest::entry::{COMMON, RULE, VM, device};
use crate::manifest::load::{Manifests, TOP, of_texts};
use crate::manifest::pattern::{arguments, components, glob};
use crate::manifest::profile::Profile;
use crate::manifest::report::Finding;
use crate::manifest::rules::{CLASSES, DIRECTIONS, KEYS, program};
use crate::manifest::vm::check_name;
use crate::policy::Settings;
use crate::probe::machine::session_of;
use crate::rule::{Rule, class_name, direction_name};
use crate::time::{exact, parse, parse_stir, parse_timeout};
use crate::vmm::names_interface;

mod classic;

#[cfg(test)]
mod tests;

/// What stands in manifests: keys, and names that are values.
pub fn vocabulary() -> Vec<String> {
    let keys = TOP
        .into_iter()
        .chain(COMMON)
        .chain(VM)
        .chain(KEYS)
        .chain([RULE]);
    let names = Profile::names().into_iter().chain(Lever::names());
    let events = Set::SleepOn.all().into_iter().chain(Set::WakeOn.all());
    let known = keys.chain(names).chain(events).map(str::to_string);
    let rules = CLASSES.map(class_name).into_iter();
    let directions = DIRECTIONS.map(direction_name).map(str::to_string);
    known.chain(rules).chain(directions).collect()
}

/// A manifest: each finding has its place, and VMs with nothing wrong are the same when exported and read again.
pub fn manifest(text: &str) {
    let read = of_texts(&[("f".to_string(), text.to_string())]);
    let Manifests { report, vms } = read.unwrap();
    let findings = report.findings();
    findings.iter().for_each(|finding| has_place(finding, text));
    let is_toml = text.parse::<toml::Table>().is_ok();
    assert!(is_toml || report.has_errors(), "taken, and is no TOML");
    if report.has_errors() {
        return;
    }
    for found in vms {
        let mut kernel = vm(&Settings::default());
        kernel.policy = found.policy;
        round_trip(&kernel, &found.rules());
    }
}

fn has_place(finding: &Finding, text: &str) {
    let lines: Vec<&str> = text.split('\n').collect();
    let line = lines.get(finding.line - 1);
    let columns = line.map(|line| line.chars().count());
    assert!(
        columns.is_some_and(|columns| (1..=columns + 1).contains(&finding.column)),
        "{finding}"
    );
    is_one_line(&finding.to_string());
}

fn is_one_line(message: &str) {
    let last = message.rsplit(": ").next().unwrap_or_default();
    assert!(!last.trim().is_empty(), "says nothing: {message:?}");
    assert!(!message.contains(char::is_control), "{message:?}");
}

/// A filter: the kernel takes what it becomes; or the error begins with the rule.
pub fn filter(text: &str) {
    let rule = Rule::filter(CLASS_REQUEST, TO_VM, text);
    let mut compiler = Compiler::dead().unwrap();
    match compiler.compile(vec![rule]) {
        Ok(compiled) => {
            let Code::Classic(program) = &compiled[0].code else {
                panic!("no filter")
            };
            classic::check(program.get_instructions()).unwrap();
            // It looks at no byte that is not there.
            for length in 0..64 {
                program.filter(&vec![0x45; length]);
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("request rule '"), "{error}");
            is_one_line(&error);
        }
    }
}

/// Values of options and keys: what is read is written so that it reads the same.
pub fn value(text: &str) {
    for parse in [parse, parse_timeout, parse_stir] {
        if let Some(ns) = said(parse(text)) {
            assert_eq!(parse(&exact(ns)), Ok(ns));
        }
    }
    if let Some(budget) = said(parse_budget(text)) {
        assert_eq!(parse_budget(&budget.to_string()), Ok(budget));
        assert_eq!(parse_budget_or_none(text), Ok(budget));
    }
    if let Some(weight) = said(parse_weight(text)) {
        assert_eq!(parse_weight(&Weight(weight).to_string()), Ok(weight));
    }
    for set in [Set::SleepOn, Set::WakeOn] {
        if let Some(bits) = said(set.parse(text)) {
            assert_eq!(set.parse(&set.names(bits).join(",")), Ok(bits));
        }
    }
    if let Some(lever) = said(Lever::of_name(text)) {
        assert_eq!(lever.name(), text);
    }
    if let Some(profile) = said(Profile::of_name(text)) {
        assert_eq!(profile.name(), text);
    }
    if let Some((profile, ports)) = Profile::of_text(text) {
        for rule in profile.rules(&ports) {
            assert_eq!(Profile::of_text(&rule.text), Some((profile, ports.clone())));
        }
    }
    said(check_name(text));
    if let Some(device) = said(device(text)) {
        let (netns, name) = split(&device);
        assert!(!name.contains('/') && netns.is_none_or(|path| path.contains('/')));
    }
    said(program(text));
}

fn said<T: Debug>(result: Result<T, String>) -> Option<T> {
    result
        .map_err(|why| assert!(!why.trim().is_empty(), "says nothing"))
        .ok()
}

/// What `/proc` says of a process, as that would have it, and a pattern: the first line.
pub fn process(text: &str) {
    let (pattern, text) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(star) = glob(pattern, text) {
        let filled = pattern.replacen('*', &star, 1);
        assert!(glob(&filled, text).is_some(), "{star:?}");
    }
    if text.len() < 32 && pattern.matches('*').count() < 4 {
        assert_eq!(glob(pattern, text), plain_glob(pattern, text));
    }
    let args: Vec<String> = text.split('\0').map(str::to_string).collect();
    arguments(pattern, &args);
    for path in text.lines() {
        components(pattern, path, true);
        components(pattern, path, false);
        for above in up(path).take(64) {
            assert!(
                !path.starts_with('/') || below(above, path).is_some(),
                "{above:?}"
            );
        }
    }
    let groups = || text.lines().filter(|path| path.starts_with('/'));
    if let Some(above) = common(groups()) {
        assert!(
            groups().all(|group| below(&above, group).is_some()),
            "{above:?}"
        );
    }
    names_interface(text);
    session_of(text);
    comm(text.as_bytes());
}

/// What a star stands for, the long way.
fn plain_glob(pattern: &str, text: &str) -> Option<String> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == text).then(String::new);
    };
    let rest = text.strip_prefix(before)?;
    let mut ends = (0..=rest.len()).filter(|end| rest.is_char_boundary(*end));
    ends.find(|end| plain_glob(after, &rest[*end..]).is_some())
        .map(|end| rest[..end].to_string())
}

/// A process may be called anything, and is still known by when it started.
fn comm(name: &[u8]) {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = &name[..name.len().min(15)];
    let rest = format!(
        ") S 1 {}77 {}\n",
        "0 ".repeat(17),
        "0 ".repeat(30).trim_end()
    );
    let line = [b"42 (", name, rest.as_bytes()].concat();
    let stat = Stat::from_read(&line[..]).unwrap();
    assert_eq!((stat.pid, stat.state, stat.starttime), (42, 'S', 77));
    assert_eq!(stat.comm, String::from_utf8_lossy(name));
}
