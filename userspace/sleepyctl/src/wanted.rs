// SPDX-License-Identifier: GPL-2.0-only

//! A VM as it shall be, and how it comes to be so: the one way of `vm add`, `vm set` and `apply`.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use sleepy_uapi as uapi;
use sleepy_uapi::{Info, NAME_SIZE, Policy, VmAdd, VmGet, VmSet};

use crate::attempt::Attempt;
use crate::device::{Device, gone, vm_name};
use crate::error::{Error, Result};
use crate::events::Set;
use crate::filter::Compiled;
use crate::link::Found;
use crate::vmm::Vmm;

/// A VM as it shall be.
pub struct Wanted {
    /// What it is called.
    pub name: String,
    /// Its process.
    pub vmm: Vmm,
    /// The process's descriptor of the virtual machine, if it was named.
    pub vm_fd: Option<i32>,
    /// Its links.
    pub links: Vec<Found>,
    /// How it sleeps and wakes.
    pub policy: Policy,
    /// What its packets mean.
    pub rules: Vec<Compiled>,
}

impl Wanted {
    /// Adds it; returns its id.
    pub fn add(&self, device: &Device) -> Result<u32> {
        let vm_fds = self.virtual_machines()?;
        // With several descriptors, of one virtual machine perhaps, the kernel looks for itself.
        let vm_fd = match vm_fds[..] {
            [fd] => {
                let taken = self.vmm.take(fd);
                Some(taken.map_err(|errno| self.vmm.take_error(fd, errno))?)
            }
            _ => None,
        };
        let mut add = VmAdd {
            name: name_bytes(&self.name),
            pid: self.vmm.pid(),
            vm_fd: vm_fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()),
            start_time: self.vmm.start_time(),
            policy: self.policy,
            ..VmAdd::default()
        };
        let rules: Vec<_> = self.rules.iter().map(Compiled::kernel_rule).collect();
        device
            .add(&mut add, &kernel_links(&self.links), &rules)
            .map_err(|errno| {
                let attempt = Attempt {
                    name: &self.name,
                    process: self.vmm.to_string(),
                    vm_fds: &vm_fds,
                    added_as: device
                        .vms()
                        .ok()
                        .and_then(|vms| crate::vm_list::name_of_pid(&vms, self.vmm.pid())),
                    link_owner: self
                        .links
                        .get(add.fault_index as usize)
                        .and_then(|link| owner(device, link)),
                    links: self.links.iter().map(|link| link.name.as_str()).collect(),
                    rules: rule_names(&self.rules),
                };
                attempt.error(errno, add.fault, add.fault_index)
            })?;
        Ok(add.id)
    }

    /// The descriptors of the virtual machine that is meant.
    pub fn virtual_machines(&self) -> Result<Vec<i32>> {
        let (vmm, fds) = (&self.vmm, self.vmm.vm_fds()?);
        match self.vm_fd {
            Some(fd) if fds.contains(&fd) => Ok(vec![fd]),
            Some(fd) => Err(Error::failed(format!(
                "vm_fd {fd}: descriptor {fd} of {vmm} is not a KVM virtual machine; {}",
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

    /// Rules and events that no packet can ever meet are a mistake.
    pub fn check_links(&self, own_rules: bool, auto_link: bool) -> Result<()> {
        let packets = self.policy.wake_on >> uapi::WAKE_PACKET & 1 == 1;
        if !self.links.is_empty() || !(packets || own_rules) {
            return Ok(());
        }
        let why = if auto_link {
            format!("{} holds no tap open", self.vmm)
        } else {
            "its taps are left out".to_string()
        };
        Err(Error::failed(format!(
            "no link to see packets on: {why}; name the device (--link, or `links` in a manifest)"
        )))
    }
}

/// Replaces a VM's policy, rules, or both, in one step.
pub fn change(
    device: &Device,
    vm: &VmGet,
    policy: Option<Policy>,
    rules: Option<&[Compiled]>,
) -> Result<()> {
    let flag = |set, flag| if set { flag } else { 0 };
    let mut set = VmSet {
        id: vm.id,
        flags: flag(policy.is_some(), uapi::SET_POLICY) | flag(rules.is_some(), uapi::SET_RULES),
        policy: policy.unwrap_or_default(),
        ..VmSet::default()
    };
    let kernel_rules: Option<Vec<_>> =
        rules.map(|rules| rules.iter().map(Compiled::kernel_rule).collect());
    device
        .set(&mut set, kernel_rules.as_deref())
        .map_err(|errno| {
            if errno == Errno::NOENT {
                return gone(vm);
            }
            let attempt = Attempt {
                name: &vm_name(vm),
                process: format!("process {}", vm.pid),
                vm_fds: &[],
                added_as: None,
                link_owner: None,
                links: Vec::new(),
                rules: rule_names(rules.unwrap_or_default()),
            };
            attempt.error(errno, set.fault, set.fault_index)
        })
}

/// Whether this host shows the events that a policy wants.
pub fn check_events(info: &Info, policy: &Policy) -> Result<()> {
    for (set, wanted, shown) in [
        (Set::SleepOn, policy.sleep_on, info.sleep_on),
        (Set::WakeOn, policy.wake_on, info.wake_on),
    ] {
        let missing = set.names(wanted & !shown);
        if !missing.is_empty() {
            return Err(Error::failed(format!(
                "{} {}: this kernel does not show it; build it with CONFIG_KPROBES and \
                 CONFIG_TRACEPOINTS. It shows: {}",
                set.key(),
                missing.join(", "),
                set.names(shown).join(", ")
            )));
        }
    }
    Ok(())
}

/// The VM that has this link.
pub fn owner(device: &Device, link: &Found) -> Option<String> {
    let has = |vm: &VmGet| {
        let links = device.links(vm).unwrap_or_default();
        links
            .iter()
            .any(|other| (other.netns, other.ifindex) == link.key())
    };
    device.vms().ok()?.iter().find(|vm| has(vm)).map(vm_name)
}

/// Numbers with commas between them.
pub fn list(numbers: &[i32]) -> String {
    numbers
        .iter()
        .map(i32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn rule_names(rules: &[Compiled]) -> Vec<String> {
    rules.iter().map(|rule| rule.rule.name()).collect()
}

fn name_bytes(name: &str) -> [u8; NAME_SIZE] {
    let mut bytes = [0; NAME_SIZE];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn kernel_links(links: &[Found]) -> Vec<uapi::Link> {
    let kernel_link = |link: &Found| uapi::Link {
        netns_fd: link.netns.as_fd().as_raw_fd(),
        ifindex: link.ifindex,
    };
    links.iter().map(kernel_link).collect()
}
