// SPDX-License-Identifier: GPL-2.0-only

//! `vm add`

use serde::Serialize;
use sleepy_uapi::{LEVER_OBSERVE, WAKE_REQUEST};

use crate::cli::AddArgs;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::filter;
use crate::lever;
use crate::link;
use crate::output::{Output, hang, say};
use crate::policy;
use crate::probe::{self, Choice, Survey};
use crate::vmm::Vmm;
use crate::wanted::{Wanted, check_events};

#[derive(Serialize)]
struct Body<'a> {
    added: Added<'a>,
}

#[derive(Serialize)]
struct Added<'a> {
    id: u32,
    name: &'a str,
    links: Vec<&'a str>,
    lever: String,
    /// Why, if sleepyctl has chosen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// Runs it.
pub fn run(output: Output, args: &AddArgs) -> Result<()> {
    let device = Device::open()?;
    let vmm = Vmm::open(args.pid)?;
    let links = link::find(&vmm, &args.link, !args.no_auto_link)?;
    let policy = args.policy.apply(policy::default());
    args.policy.check(&policy).map_err(Error::usage)?;
    let mut wanted = Wanted {
        name: args.name.clone(),
        vm_fd: args.vm_fd,
        policy,
        group: None,
        choice: None,
        rules: filter::compile(args.rules.complete(), &links)?,
        vmm,
        links,
    };
    wanted.virtual_machines()?;
    wanted.check_links(!args.rules.is_empty(), !args.no_auto_link)?;
    check_events(&device.info()?, &wanted.policy)?;
    if Survey::is_needed(&wanted.policy) {
        let survey = Survey::take(Some(&device))?;
        let machine = survey.of_process(&wanted.vmm, wanted.vm_fd)?;
        wanted.choice = survey.settle(machine, &mut wanted.policy);
        wanted.group = survey.group(machine, &wanted.policy, 0)?;
    }
    let id = wanted.add(&device)?;

    let policy = &wanted.policy;
    let only_requests = policy.wake_on & !(1 << WAKE_REQUEST) == 0;
    if only_requests && !args.rules.wakes() && policy.lever != LEVER_OBSERVE {
        say(format!(
            "vm add: note: without --request or --wake no packet wakes {}, only --max-sleep does",
            args.name
        ));
    }
    if let Some(note) = probe::note(&device, id, policy) {
        say(format!("vm add: {note}"));
    }
    let body = Body {
        added: Added {
            id,
            name: &args.name,
            links: wanted.link_names(),
            lever: lever::lever_name(policy.lever),
            why: wanted.choice.as_ref().map(|choice| choice.why.as_str()),
        },
    };
    output.print(body, || {
        let chosen = wanted.choice.as_ref().map(Choice::to_string);
        let chosen = chosen.map(|text| hang("  ", &text, " "));
        format!(
            "added {} (id {id}): {}\n{}",
            args.name,
            wanted.about(),
            chosen.unwrap_or_default()
        )
    })
}
