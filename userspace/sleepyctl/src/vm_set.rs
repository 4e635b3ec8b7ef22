// SPDX-License-Identifier: GPL-2.0-only

//! `vm set`

use serde::Serialize;

use crate::cli::SetArgs;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::events::Set as Events;
use crate::filter;
use crate::link;
use crate::output::Output;
use crate::policy::{self, Boost, PolicyJson, Settings};
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
    let policy = settings.apply(vm.policy);
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
    change(
        &device,
        vm,
        (!settings.is_empty()).then_some(policy),
        rules.as_deref(),
    )?;
    let rules = rules.map(|rules| rules.len());
    let body = Body {
        set: Set {
            id: vm.id,
            name: &args.name,
            policy: PolicyJson::from(&policy),
            rules,
        },
    };
    output.print(body, || {
        let rules = rules.map_or_else(String::new, |number| format!("  {number} rules\n"));
        format!(
            "{}: {}\n  {}\n  sleeps on {}\n  wakes on {}\n{rules}",
            args.name,
            policy::lever_text(&policy),
            policy::times_text(&policy),
            policy::events_text(&policy, Events::SleepOn),
            policy::events_text(&policy, Events::WakeOn),
        )
    })
}
