// SPDX-License-Identifier: GPL-2.0-only

//! `vm set`

use serde::Serialize;

use crate::cli::SetArgs;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::policy::{self, PolicyJson};

#[derive(Serialize)]
struct Body<'a> {
    set: Set<'a>,
}

#[derive(Serialize)]
struct Set<'a> {
    id: u32,
    name: &'a str,
    policy: PolicyJson,
}

/// Runs it.
pub fn run(output: Output, args: &SetArgs) -> Result<()> {
    if args.policy.is_empty() && !args.no_boost {
        return Err(Error::usage(
            "nothing to set; give an option, such as --linger 1ms (see --help)",
        ));
    }
    let device = Device::open()?;
    let vms = device.named(std::slice::from_ref(&args.name))?;
    let vm = &vms[0];
    let before = if args.no_boost {
        policy::without_boost(vm.policy)
    } else {
        vm.policy
    };
    let policy = args.policy.apply(before);
    device.set(vm, policy)?;
    let body = Body {
        set: Set {
            id: vm.id,
            name: &args.name,
            policy: PolicyJson::from(&policy),
        },
    };
    output.print(body, || {
        let (lever, times) = (policy::lever_text(&policy), policy::times_text(&policy));
        format!("{}: {lever}; {times}\n", args.name)
    })
}
