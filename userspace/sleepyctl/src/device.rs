// SPDX-License-Identifier: GPL-2.0-only

//! `/dev/sleepy`.

use std::collections::HashMap;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use sleepy_uapi as uapi;
use sleepy_uapi::{Info, Link, Vcpu, VmAdd, VmGet, VmLink, VmRemove, VmRule, VmSet, VmStats};

use crate::error::{Error, Result, words};
use crate::ioctl::{self, KernelRule};

const PATH: &str = "/dev/sleepy";
const RIGHTS: &str =
    "run as root, or with CAP_SYS_NICE and CAP_NET_ADMIN in the initial user namespace";

/// The open device, of a module that speaks our ABI.
pub struct Device(OwnedFd);

impl Device {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let device = open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(open_error)?;
        let version = device.info()?.version;
        if version != uapi::ABI_VERSION {
            let ours = uapi::ABI_VERSION;
            return Err(Error::failed(format!(
                "the loaded sleepy.ko has ABI {version}, this sleepyctl {ours}; install both from one release"
            )));
        }
        Ok(device)
    }

    /// What the module is and can do.
    pub fn info(&self) -> Result<Info> {
        ioctl::info(&self.0).map_err(call_error)
    }

    /// Every VM, by id.
    pub fn vms(&self) -> Result<Vec<VmGet>> {
        let mut vms = Vec::new();
        let mut id = 0;
        loop {
            let mut vm = VmGet {
                id,
                flags: uapi::GET_NEXT,
                ..VmGet::default()
            };
            match ioctl::vm_get(&self.0, &mut vm) {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(vms),
                Err(errno) => return Err(call_error(errno)),
            }
            vms.push(vm);
            match vm.id.checked_add(1) {
                Some(next) => id = next,
                None => return Ok(vms),
            }
        }
    }

    /// The VMs with these names, in this order.
    pub fn named(&self, names: &[String]) -> Result<Vec<VmGet>> {
        let vms = self.vms()?.into_iter().map(|vm| (vm_name(&vm), vm));
        let vms: HashMap<String, VmGet> = vms.collect();
        let find = |name: &String| {
            let vm = vms.get(name).copied();
            vm.ok_or_else(|| unknown(name))
        };
        names.iter().map(find).collect()
    }

    /// Adds a VM. The error is the kernel's: only the caller can name what it speaks of.
    pub fn add(
        &self,
        add: &mut VmAdd,
        links: &[Link],
        rules: &[KernelRule<'_>],
    ) -> rustix::io::Result<()> {
        ioctl::vm_add(&self.0, add, links, rules)
    }

    /// Removes a VM; one that is gone already is removed.
    pub fn remove(&self, vm: &VmGet) -> Result<()> {
        let remove = VmRemove {
            id: vm.id,
            reserved: 0,
        };
        unless_gone(ioctl::vm_remove(&self.0, remove)).map(|_| ())
    }

    /// Replaces a VM's policy, rules, or both. The error is the kernel's, as in [`add`](Self::add).
    pub fn set(&self, set: &mut VmSet, rules: Option<&[KernelRule<'_>]>) -> rustix::io::Result<()> {
        ioctl::vm_set(&self.0, set, rules)
    }

    /// A VM's statistics; none if it is gone.
    pub fn stats(&self, vm: &VmGet) -> Result<Option<VmStats>> {
        let mut stats = VmStats {
            id: vm.id,
            ..VmStats::default()
        };
        unless_gone(ioctl::vm_stats(&self.0, &mut stats).map(|()| stats))
    }

    /// A VM's vCPU threads; none if it is gone.
    pub fn vcpus(&self, vm: &VmGet) -> Result<Option<Vec<Vcpu>>> {
        unless_gone(all(vm.n_vcpus, |room: &mut [Vcpu]| {
            ioctl::vm_vcpus(&self.0, vm.id, room)
        }))
    }

    /// A VM's links; none if it is gone.
    pub fn links(&self, vm: &VmGet) -> Result<Option<Vec<VmLink>>> {
        unless_gone(all(vm.n_links, |room: &mut [VmLink]| {
            ioctl::vm_links(&self.0, vm.id, room)
        }))
    }

    /// A VM's rules, in their order; none if it is gone.
    pub fn rules(&self, vm: &VmGet) -> Result<Option<Vec<VmRule>>> {
        unless_gone(all(vm.n_rules, |room: &mut [VmRule]| {
            ioctl::vm_rules(&self.0, vm.id, room)
        }))
    }
}

/// Asks for items until all of them had room: their number may grow between two calls.
fn all<T: Copy + Default>(
    expected: u32,
    mut ask: impl FnMut(&mut [T]) -> rustix::io::Result<u32>,
) -> rustix::io::Result<Vec<T>> {
    let mut items = vec![T::default(); expected as usize];
    loop {
        let count = ask(&mut items)? as usize;
        let enough = count <= items.len();
        items.resize(count, T::default());
        if enough {
            return Ok(items);
        }
    }
}

/// A VM's name.
pub fn vm_name(vm: &VmGet) -> String {
    text(&vm.name)
}

/// A rule's text.
pub fn rule_text(rule: &VmRule) -> String {
    let len = rule.text.len().min(rule.text_len as usize);
    String::from_utf8_lossy(&rule.text[..len]).into_owned()
}

/// The text before the first NUL.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn unknown(name: &str) -> Error {
    Error::failed(format!(
        "no VM is named {name}; `sleepyctl vm list` shows those there are"
    ))
}

fn open_error(errno: Errno) -> Error {
    match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => Error::not_loaded(format!(
            "the module is not loaded (no {PATH}); load it: `modprobe sleepy`, or `insmod sleepy.ko` where it was built"
        )),
        Errno::PERM | Errno::ACCESS => {
            Error::not_permitted(format!("{PATH}: not permitted; {RIGHTS}"))
        }
        _ => Error::failed(format!("{PATH}: {}", words(errno))),
    }
}

/// An error of any call, where nothing more is known.
pub fn call_error(errno: Errno) -> Error {
    match errno {
        Errno::PERM => Error::not_permitted(format!("{PATH}: not permitted; {RIGHTS}")),
        Errno::NOTTY | Errno::MSGSIZE => Error::failed(format!(
            "the loaded sleepy.ko does not know this call of ABI {}; install sleepy.ko and sleepyctl from one release",
            uapi::ABI_VERSION
        )),
        _ => Error::failed(format!("{PATH}: {}", words(errno))),
    }
}

/// What a call about a VM has returned; none if the VM is gone.
fn unless_gone<T>(result: rustix::io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(call_error(errno)),
    }
}

/// A VM that was there is no more.
pub fn gone(vm: &VmGet) -> Error {
    Error::failed(format!(
        "VM {} is gone: it was removed, or its VMM has ended",
        vm_name(vm)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn open_errors_have_their_exit_codes() {
        assert_eq!(open_error(Errno::NOENT).exit, Exit::NotLoaded);
        assert_eq!(open_error(Errno::ACCESS).exit, Exit::NotPermitted);
        assert_eq!(open_error(Errno::PERM).exit, Exit::NotPermitted);
        assert_eq!(open_error(Errno::NOMEM).exit, Exit::Failed);
    }

    #[test]
    fn vm_that_is_gone_is_no_error() {
        assert_eq!(unless_gone(Ok(7)).unwrap(), Some(7));
        assert_eq!(unless_gone::<()>(Err(Errno::NOENT)).unwrap(), None);
        let error = unless_gone::<()>(Err(Errno::PERM)).unwrap_err();
        assert_eq!(error.exit, Exit::NotPermitted);
    }

    #[test]
    fn items_that_appear_meanwhile_are_asked_for_again() {
        let mut rooms = Vec::new();
        let items = all(1, |room: &mut [Vcpu]| {
            rooms.push(room.len());
            room.iter_mut()
                .zip(10..)
                .for_each(|(vcpu, tid)| vcpu.tid = tid);
            Ok(3)
        });
        assert_eq!(rooms, [1, 3]);
        assert_eq!(
            items
                .unwrap()
                .iter()
                .map(|vcpu| vcpu.tid)
                .collect::<Vec<_>>(),
            [10, 11, 12]
        );
    }

    #[test]
    fn items_that_vanish_meanwhile_are_not_shown() {
        assert_eq!(all(3, |_: &mut [Vcpu]| Ok(1)).unwrap().len(), 1);
    }
}
