// SPDX-License-Identifier: GPL-2.0-only

//! A VM as it shall be, and how it comes to be so: the one way of `vm add`, `vm set` and `apply`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use sleepy_uapi as uapi;
use sleepy_uapi::{FAULT_GROUP, Info, MAX_LINKS, NAME_SIZE, Policy, VmAdd, VmGet, VmSet};

use crate::attempt::{Attempt, too_many_links};
use crate::cgroup::Group;
use crate::device::{Device, gone, vm_name};
use crate::error::{Error, Result};
use crate::events::Set;
use crate::filter::Compiled;
use crate::link::Found;
use crate::probe::Choice;
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
    /// The control group that the lever needs.
    pub group: Option<Group>,
    /// Why its lever is this one, if it was chosen for the user.
    pub choice: Option<Choice>,
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
        let group = self.group.as_ref().map(Group::open).transpose()?;
        let mut add = VmAdd {
            name: name_bytes(&self.name),
            pid: self.vmm.pid(),
            vm_fd: vm_fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()),
            start_time: self.vmm.start_time(),
            policy: self.policy,
            group_fd: fd_number(group.as_ref()),
            ..VmAdd::default()
        };
        let rules: Vec<_> = self.rules.iter().map(Compiled::kernel_rule).collect();
        device
            .add(&mut add, &kernel_links(&self.links), &rules)
            .map_err(|errno| {
                // To find out who has something takes a look at all VMs.
                let namesake = || crate::vm_list::name_of_pid(&device.vms().ok()?, self.vmm.pid());
                let link_owner = || owner(device, self.links.get(add.fault_index as usize)?);
                let group_owner = || group_owner(device, self.group.as_ref());
                let owner: &dyn Fn() -> Option<String> = match (errno, add.fault) {
                    (Errno::ALREADY, _) => &namesake,
                    (Errno::BUSY, FAULT_GROUP) => &group_owner,
                    (Errno::BUSY, _) => &link_owner,
                    _ => &|| None,
                };
                let attempt = Attempt {
                    name: &self.name,
                    process: self.vmm.to_string(),
                    vm_fds: &vm_fds,
                    owner: owner(),
                    links: self.link_names(),
                    rules: rule_names(&self.rules),
                    group: self.group.as_ref().map(|group| group.name.as_str()),
                };
                attempt.error(errno, add.fault, add.fault_index)
            })?;
        Ok(add.id)
    }

    /// The descriptors of the virtual machine that is meant.
    pub fn virtual_machines(&self) -> Result<Vec<i32>> {
        virtual_machines(&self.vmm, self.vm_fd)
    }

    /// Its links' names.
    pub fn link_names(&self) -> Vec<&str> {
        self.links.iter().map(|link| link.name.as_str()).collect()
    }

    /// What it is, as a part of a sentence.
    pub fn about(&self) -> String {
        let links = match &self.link_names()[..] {
            [] => "no links".to_string(),
            names => format!("links {}", names.join(", ")),
        };
        format!("{}, {links}, {} rules", self.vmm, self.rules.len())
    }

    /// More links than the kernel takes are a mistake, and so are rules and events that no packet can ever meet.
    pub fn check_links(&self, own_rules: bool, auto_link: bool) -> Result<()> {
        if self.links.len() > MAX_LINKS as usize {
            return Err(Error::failed(too_many_links(self.links.len())));
        }
        if !self.links.is_empty() || !(wakes_on_packets(&self.policy) || own_rules) {
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

/// A process's descriptors of its virtual machine, or of all of them; perhaps that which was named.
pub fn virtual_machines(vmm: &Vmm, vm_fd: Option<i32>) -> Result<Vec<i32>> {
    match (vm_fd, vmm.vm_fds()?) {
        (Some(fd), Some(fds)) if fds.contains(&fd) => Ok(vec![fd]),
        (Some(fd), fds) => Err(Error::failed(format!(
            "vm_fd {fd}: descriptor {fd} of {vmm} is not a KVM virtual machine; {}",
            match &fds.unwrap_or_default()[..] {
                [] => "none is".to_string(),
                fds => format!("these are: {}", list(fds)),
            }
        ))),
        (None, Some(fds)) => Ok(fds),
        (None, None) => Err(Error::failed(format!(
            "no KVM virtual machine in {vmm}; give the VMM's pid"
        ))),
    }
}

/// Whether packets that no rule knows wake a VM.
pub fn wakes_on_packets(policy: &Policy) -> bool {
    policy.wake_on >> uapi::WAKE_PACKET & 1 == 1
}

/// A descriptor's number for the kernel, which takes -1 for none.
fn fd_number(fd: Option<&OwnedFd>) -> i32 {
    fd.map_or(-1, AsRawFd::as_raw_fd)
}

/// Replaces a VM's policy, with the control group that its lever needs, its rules, or both, in one step.
pub fn change(
    device: &Device,
    vm: &VmGet,
    policy: Option<(Policy, Option<&Group>)>,
    rules: Option<&[Compiled]>,
) -> Result<()> {
    let flag = |set, flag| if set { flag } else { 0 };
    let group = policy.and_then(|(_, group)| group);
    let fd = group.map(Group::open).transpose()?;
    let mut set = VmSet {
        id: vm.id,
        flags: flag(policy.is_some(), uapi::SET_POLICY) | flag(rules.is_some(), uapi::SET_RULES),
        policy: policy.map(|(policy, _)| policy).unwrap_or_default(),
        group_fd: fd_number(fd.as_ref()),
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
                owner: (errno == Errno::BUSY)
                    .then(|| group_owner(device, group))
                    .flatten(),
                links: Vec::new(),
                rules: rule_names(rules.unwrap_or_default()),
                group: group.map(|group| group.name.as_str()),
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
        let links = device.links(vm).ok().flatten();
        links
            .iter()
            .flatten()
            .any(|other| (other.netns, other.ifindex) == link.key())
    };
    device.vms().ok()?.iter().find(|vm| has(vm)).map(vm_name)
}

/// The VM whose lever has this group.
fn group_owner(device: &Device, group: Option<&Group>) -> Option<String> {
    let inode = group?.inode()?;
    let vms = device.vms().ok()?;
    vms.iter().find(|vm| vm.group == inode).map(vm_name)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;
    use crate::policy;

    fn wanted(links: u32, wake_on: u32) -> Wanted {
        let link = |number: u32| Found {
            name: format!("tap{number}"),
            device: format!("tap{number}"),
            netns: Netns::own().unwrap(),
            ifindex: number,
        };
        Wanted {
            name: "a".to_string(),
            vmm: Vmm::open(std::process::id() as i32).unwrap(),
            vm_fd: None,
            links: (0..links).map(link).collect(),
            policy: Policy {
                wake_on,
                ..policy::default()
            },
            group: None,
            choice: None,
            rules: Vec::new(),
        }
    }

    #[test]
    fn number_of_links_is_checked() {
        let (request, packet) = (1 << uapi::WAKE_REQUEST, 1 << uapi::WAKE_PACKET);
        for (links, wake_on, own_rules, why) in [
            (0, request, false, None),
            (0, packet, false, Some("no link to see packets on")),
            (0, request, true, Some("no link to see packets on")),
            (MAX_LINKS, packet, true, None),
            (MAX_LINKS + 1, request, false, Some("17 links are too many")),
        ] {
            let checked = wanted(links, wake_on).check_links(own_rules, true);
            let error = checked.err().map(|error| error.message);
            assert_eq!(error.is_some(), why.is_some(), "{links} links: {error:?}");
            assert!(error.unwrap_or_default().starts_with(why.unwrap_or("")));
        }
    }

    #[test]
    fn what_it_is_fits_in_a_sentence() {
        let text = wanted(2, 0).about();
        assert!(text.ends_with("), links tap0, tap1, 0 rules"), "{text}");
        assert!(wanted(0, 0).about().ends_with("), no links, 0 rules"));
    }
}
