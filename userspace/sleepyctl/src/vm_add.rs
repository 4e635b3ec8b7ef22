// SPDX-License-Identifier: GPL-2.0-only

//! `vm add`

use rustix::fd::{AsFd, AsRawFd};
use serde::Serialize;
use sleepy_uapi::{LEVER_OBSERVE, NAME_SIZE, VmAdd, VmGet};

use crate::add_error::Attempt;
use crate::cli::AddArgs;
use crate::device::{Device, vm_name};
use crate::error::{Error, Result};
use crate::filter::Compiled;
use crate::link::{self, Found};
use crate::output::Output;
use crate::policy;
use crate::vmm::Vmm;

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

/// The VM that has this link.
fn owner(device: &Device, link: &Found) -> Option<String> {
    let (ifindex, netns) = (link.ifindex, link.netns.inode());
    let has = |vm: &VmGet| {
        let links = device.links(vm).unwrap_or_default();
        links
            .iter()
            .any(|l| l.ifindex == ifindex && l.netns == netns)
    };
    device.vms().ok()?.iter().find(|vm| has(vm)).map(vm_name)
}

/// Runs it.
pub fn run(output: Output, args: &AddArgs) -> Result<()> {
    let device = Device::open()?;
    let vmm = Vmm::open(args.pid)?;
    let vm_fds = choose_vm(&vmm, args.vm_fd)?;
    let links = link::find(&vmm, &args.link, !args.no_auto_link)?;
    let policy = args.policy.apply(policy::default());
    check(args, &vmm, &links)?;
    let rules = args.rules.compile(&links)?;
    let kernel_rules: Vec<_> = rules.iter().map(Compiled::kernel_rule).collect();

    // With several descriptors, of one virtual machine perhaps, the kernel looks for itself.
    let vm_fd = match vm_fds[..] {
        [fd] => Some(vmm.take(fd).map_err(|errno| vmm.take_error(fd, errno))?),
        _ => None,
    };
    let mut add = VmAdd {
        name: name_bytes(&args.name),
        pid: vmm.pid(),
        vm_fd: vm_fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()),
        start_time: vmm.start_time(),
        policy,
        ..VmAdd::default()
    };
    device
        .add(&mut add, &kernel_links(&links), &kernel_rules)
        .map_err(|errno| {
            let attempt = Attempt {
                name: &args.name,
                process: vmm.to_string(),
                vm_fds: &vm_fds,
                added_as: device
                    .vms()
                    .ok()
                    .and_then(|vms| crate::vm_list::name_of_pid(&vms, vmm.pid())),
                link_owner: links
                    .get(add.fault_index as usize)
                    .and_then(|link| owner(&device, link)),
                links: links.iter().map(|link| link.name.as_str()).collect(),
                rules: rules.iter().map(|rule| rule.rule.name()).collect(),
            };
            attempt.error(errno, &add)
        })?;

    if args.rules.request.is_empty() && policy.lever != LEVER_OBSERVE {
        eprintln!(
            "vm add: note: without --request no packet wakes {}, only --max-sleep does",
            args.name
        );
    }
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let body = Body {
        added: Added {
            id: add.id,
            name: &args.name,
            links: names.clone(),
        },
    };
    output.print(body, || {
        let links = if names.is_empty() {
            "no links".to_string()
        } else {
            format!("links {}", names.join(", "))
        };
        format!(
            "added {} (id {}): {vmm}, {links}, {} rules\n",
            args.name,
            add.id,
            rules.len()
        )
    })
}

/// The descriptors of the virtual machine that is meant.
fn choose_vm(vmm: &Vmm, wanted: Option<i32>) -> Result<Vec<i32>> {
    let fds = vmm.vm_fds()?;
    match wanted {
        Some(fd) if fds.contains(&fd) => Ok(vec![fd]),
        Some(fd) => Err(Error::failed(format!(
            "--vm-fd {fd}: descriptor {fd} of {vmm} is not a KVM virtual machine; {}",
            if fds.is_empty() {
                "none is".to_string()
            } else {
                format!("these are: {}", list(&fds))
            }
        ))),
        None if fds.is_empty() && !vmm.holds_vcpu()? => Err(Error::failed(format!(
            "no KVM virtual machine in {vmm}; give the VMM's pid"
        ))),
        None => Ok(fds),
    }
}

/// Numbers with commas between them.
pub fn list(numbers: &[i32]) -> String {
    numbers
        .iter()
        .map(i32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Rules that no packet can ever meet are a mistake.
fn check(args: &AddArgs, vmm: &Vmm, links: &[Found]) -> Result<()> {
    if !links.is_empty() || (args.rules.is_empty()) {
        return Ok(());
    }
    let why = if args.no_auto_link {
        "--no-auto-link leaves out its taps".to_string()
    } else {
        format!("{vmm} holds no tap open")
    };
    Err(Error::failed(format!(
        "no link to see requests on: {why}; name the device with --link"
    )))
}

fn name_bytes(name: &str) -> [u8; NAME_SIZE] {
    let mut bytes = [0; NAME_SIZE];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn kernel_links(links: &[Found]) -> Vec<sleepy_uapi::Link> {
    let kernel_link = |link: &Found| sleepy_uapi::Link {
        netns_fd: link.netns.as_fd().as_raw_fd(),
        ifindex: link.ifindex,
    };
    links.iter().map(kernel_link).collect()
}
