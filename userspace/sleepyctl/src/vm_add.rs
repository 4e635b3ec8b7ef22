// SPDX-License-Identifier: GPL-2.0-only

//! `vm add`

use serde::Serialize;
use sleepy_uapi::{LEVER_OBSERVE, WAKE_REQUEST};

use crate::cli::AddArgs;
use crate::device::Device;
use crate::error::Result;
use crate::filter;
use crate::link;
use crate::output::Output;
use crate::policy;
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
}

/// Runs it.
pub fn run(output: Output, args: &AddArgs) -> Result<()> {
    let device = Device::open()?;
    let vmm = Vmm::open(args.pid)?;
    let links = link::find(&vmm, &args.link, !args.no_auto_link)?;
    let wanted = Wanted {
        name: args.name.clone(),
        vm_fd: args.vm_fd,
        policy: args.policy.apply(policy::default()),
        rules: filter::compile(args.rules.complete(), &links)?,
        vmm,
        links,
    };
    wanted.virtual_machines()?;
    wanted.check_links(!args.rules.is_empty(), !args.no_auto_link)?;
    check_events(&device.info()?, &wanted.policy)?;
    let id = wanted.add(&device)?;

    let policy = &wanted.policy;
    let only_requests = policy.wake_on & !(1 << WAKE_REQUEST) == 0;
    if only_requests && !args.rules.wakes() && policy.lever != LEVER_OBSERVE {
        eprintln!(
            "vm add: note: without --request or --wake no packet wakes {}, only --max-sleep does",
            args.name
        );
    }
    let body = Body {
        added: Added {
            id,
            name: &args.name,
            links: wanted.link_names(),
        },
    };
    output.print(body, || {
        format!("added {} (id {id}): {}\n", args.name, wanted.about())
    })
}
