// SPDX-License-Identifier: GPL-2.0-only

//! `vm set`

use rustix::io::Errno;
use serde::Serialize;
use sleepy_uapi::{FAULT_RULE, VmGet, VmSetRules};

use crate::cli::SetArgs;
use crate::device::{Device, call_error, gone};
use crate::error::{Error, Result, words};
use crate::filter::Compiled;
use crate::link;
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
    /// How many rules there are now, if they were replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<usize>,
}

fn set_rules(device: &Device, vm: &VmGet, args: &SetArgs) -> Result<usize> {
    let rules = args.rules.compile(&link::of_vm(device, vm)?)?;
    let kernel_rules: Vec<_> = rules.iter().map(Compiled::kernel_rule).collect();
    let mut set = VmSetRules {
        id: vm.id,
        ..VmSetRules::default()
    };
    device
        .set_rules(&mut set, &kernel_rules)
        .map_err(|errno| match (errno, set.fault) {
            (Errno::NOENT, _) => gone(vm),
            (_, FAULT_RULE) => {
                let rule = rules.get(set.fault_index as usize);
                let name = rule.map_or_else(|| "a rule".to_string(), |rule| rule.rule.name());
                Error::failed(format!("{name}: {}", words(errno)))
            }
            _ => call_error(errno),
        })?;
    Ok(rules.len())
}

/// Runs it.
pub fn run(output: Output, args: &SetArgs) -> Result<()> {
    let sets_policy = !args.policy.is_empty() || args.no_boost;
    if args.rules.is_empty() && args.rules.no_tcp_defaults {
        return Err(Error::usage(
            "--no-tcp-defaults is for new rules; give them with --request and --response",
        ));
    }
    if args.rules.is_empty() && !sets_policy {
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
    let rules = if args.rules.is_empty() {
        None
    } else {
        Some(set_rules(&device, vm, args)?)
    };
    if sets_policy {
        device.set(vm, policy)?;
    }
    let body = Body {
        set: Set {
            id: vm.id,
            name: &args.name,
            policy: PolicyJson::from(&policy),
            rules,
        },
    };
    output.print(body, || {
        let (lever, times) = (policy::lever_text(&policy), policy::times_text(&policy));
        let rules = rules.map_or_else(String::new, |number| format!("; {number} rules"));
        format!("{}: {lever}; {times}{rules}\n", args.name)
    })
}
