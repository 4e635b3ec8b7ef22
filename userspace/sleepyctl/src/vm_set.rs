// SPDX-License-Identifier: GPL-2.0-only

//! `vm set`

use serde::Serialize;
use sleepy_uapi::LEVER_GROUP;

use crate::boost::Boost;
use crate::cli::SetArgs;
use crate::device::{Device, gone};
use crate::error::{Error, Result};
use crate::events::Set as Events;
use crate::filter;
use crate::lever::{Lever, lever_text};
use crate::link;
use crate::output::{Output, hang, say};
use crate::policy::{self, PolicyJson, Settings};
use crate::probe::{self, Choice, Survey};
use crate::wanted::{change, check_events, wakes_on_packets};

#[derive(Serialize)]
struct Body<'a> {
    set: Set<'a>,
}

#[derive(Serialize)]
struct Set<'a> {
    id: u32,
    name: &'a str,
    policy: PolicyJson,
    /// Why its lever is this one, if sleepyctl has just chosen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// How many rules there are now, if they were replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<usize>,
}

/// Runs it.
pub fn run(output: Output, args: &SetArgs) -> Result<()> {
    let settings = Settings {
        boost_nice: args
            .policy
            .boost_nice
            .or(args.no_boost.then_some(Boost::Off)),
        ..args.policy.clone()
    };
    if args.rules.is_empty() && (args.rules.no_tcp_defaults || args.rules.no_noise) {
        return Err(Error::usage(
            "--no-tcp-defaults and --no-noise are for new rules; give them, with --request and the like",
        ));
    }
    if args.rules.is_empty() && settings.is_empty() {
        return Err(Error::usage(
            "nothing to set; give an option, such as --linger 1ms (see --help)",
        ));
    }
    let device = Device::open()?;
    let vms = device.named(std::slice::from_ref(&args.name))?;
    let vm = &vms[0];
    let mut policy = settings.apply(vm.policy);
    settings.check(&policy).map_err(Error::usage)?;
    check_events(&device.info()?, &policy)?;
    let packets = settings.wake_on.is_some() && wakes_on_packets(&policy);
    if vm.n_links == 0 && (packets || !args.rules.is_empty()) {
        let name = &args.name;
        return Err(Error::failed(format!(
            "no link to see packets on: {name} has none; remove it, and add it again with --link DEV"
        )));
    }
    let rules = if args.rules.is_empty() {
        None
    } else {
        let links = link::of_vm(&device, vm)?;
        Some(filter::compile(args.rules.complete(), &links)?)
    };
    let (mut choice, mut group) = (None, None);
    let chooses = settings.lever == Some(Lever::Auto);
    if chooses || (!settings.is_empty() && policy.lever == LEVER_GROUP) {
        let survey = Survey::take(Some(&device))?;
        let machine = survey.with_id(vm.id).ok_or_else(|| gone(vm))?;
        if chooses {
            choice = survey.settle(machine, &mut policy);
        }
        group = survey.group(machine, &policy, vm.group)?;
    }
    let changed = (!settings.is_empty()).then_some((policy, group.as_ref()));
    change(&device, vm, changed, rules.as_deref())?;
    let given = settings.lever.is_some();
    let note = given.then(|| probe::note(&device, vm.id, &policy));
    if let Some(note) = note.flatten() {
        say(format!("vm set: {note}"));
    }
    let rules = rules.map(|rules| rules.len());
    let body = Body {
        set: Set {
            id: vm.id,
            name: &args.name,
            policy: PolicyJson::from(&policy),
            why: choice.as_ref().map(|choice| choice.why.clone()),
            rules,
        },
    };
    output.print(body, || {
        let rules = rules.map_or_else(String::new, |number| format!("  {number} rules\n"));
        let chosen = choice.as_ref().map(Choice::to_string);
        let chosen = chosen.map(|text| hang("  ", &text, " "));
        format!(
            "{}{}  {}\n  sleeps on {}\n  wakes on {}\n{rules}",
            hang(&format!("{}: ", args.name), &lever_text(&policy), " "),
            chosen.unwrap_or_default(),
            policy::times_text(&policy),
            policy::events_text(&policy, Events::SleepOn),
            policy::events_text(&policy, Events::WakeOn),
        )
    })
}
