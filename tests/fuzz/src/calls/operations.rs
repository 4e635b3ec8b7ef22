// SPDX-License-Identifier: GPL-2.0-only

//! Each call, and what is expected of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sleepy_uapi as uapi;
use sleepy_uapi::{Info, VmAdd, VmArray, VmGet, VmRemove, VmSet, VmStats};

use super::Caller;
use super::arguments::MAX_PID;
use crate::DEVICE;
use crate::make::{odd, once_in, pick};

impl Caller<'_> {
    pub(super) fn info(&mut self) {
        let made = self.call("INFO", uapi::IOC_INFO, &Info::default());
        if made.1.is_none() {
            let info: Info = self.arena.get(made.0);
            if info.version != uapi::ABI_VERSION || info.vms > uapi::MAX_VMS {
                self.find(format!("INFO: {info:?}"));
            }
        }
    }

    pub(super) fn add(&mut self) {
        let vmms = &self.world.options.vmm;
        let mut pid = pick(&mut self.rng, vmms);
        if once_in(&mut self.rng, 15) {
            pid = pick(
                &mut self.rng,
                &[0, 1, std::process::id(), MAX_PID, 1 << 31, u32::MAX],
            );
        }
        let policy = self.policy();
        let ((links, n_links), (rules, n_rules)) = (self.links(), self.rules());
        let vm_fd = match self.rng.u32(..16) {
            0..=2 => self.machine(pid),
            3 => self.some_fd(),
            _ => -1,
        };
        let start_time = start_time(pid).wrapping_add(u64::from(once_in(&mut self.rng, 20)));
        let add = VmAdd {
            name: self.name(),
            pid,
            vm_fd,
            start_time,
            policy,
            links,
            rules,
            n_links,
            n_rules,
            id: self.rng.u32(..),
            fault: self.rng.u32(..),
            fault_index: self.rng.u32(..),
            group_fd: self.group(policy.lever),
        };
        let made = self.call("VM_ADD", uapi::IOC_VM_ADD, &add);
        if !self.is_written(made) {
            return;
        }
        let out: VmAdd = self.arena.get(made.0);
        if made.1.is_some() {
            if out.fault > uapi::FAULT_GROUP || out.id != add.id {
                self.find(format!("VM_ADD refused, with {out:?}"));
            }
        } else {
            self.report.added += 1;
            self.world.ids().push(out.id);
            let before = self.world.newest.fetch_max(out.id, Ordering::Relaxed);
            if out.fault != uapi::FAULT_NONE || out.id == 0 || out.id == before {
                self.find(format!(
                    "VM_ADD done, with {out:?}; the last id was {before}"
                ));
            }
        }
    }

    pub(super) fn remove(&mut self) {
        let reserved = if once_in(&mut self.rng, 10) {
            self.rng.u32(..)
        } else {
            0
        };
        let id = self.id();
        self.call("VM_REMOVE", uapi::IOC_VM_REMOVE, &VmRemove { id, reserved });
    }

    pub(super) fn set(&mut self) {
        let flags = match self.rng.u32(..16) {
            0 => 0,
            1 => self.rng.u32(..),
            _ => self.rng.u32(1..=3),
        };
        let policy = self.policy();
        let (rules, n_rules) = self.rules();
        let lever = if flags & uapi::SET_POLICY != 0 {
            policy.lever
        } else {
            0
        };
        let set = VmSet {
            id: self.id(),
            flags,
            policy,
            rules,
            n_rules,
            fault: 0,
            fault_index: 0,
            group_fd: self.group(lever),
        };
        let made = self.call("VM_SET", uapi::IOC_VM_SET, &set);
        if self.is_written(made) {
            let out: VmSet = self.arena.get(made.0);
            if out.fault > uapi::FAULT_GROUP || (made.1.is_none() && out.fault != 0) {
                self.find(format!("VM_SET: {out:?}"));
            }
        }
    }

    pub(super) fn get(&mut self) {
        let flags = match self.rng.u32(..10) {
            0 => self.rng.u32(..),
            1..=3 => uapi::GET_NEXT,
            _ => 0,
        };
        let get = VmGet {
            id: self.id(),
            flags,
            ..VmGet::default()
        };
        let made = self.call("VM_GET", uapi::IOC_VM_GET, &get);
        if made.1.is_none() {
            let vm: VmGet = self.arena.get(made.0);
            let right = if flags == 0 {
                vm.id == get.id
            } else {
                vm.id >= get.id
            };
            let many = vm.n_rules > uapi::MAX_RULES || vm.n_links + vm.lost_links > uapi::MAX_LINKS;
            if !right || many || vm.state > uapi::STATE_SLEEPY || vm.name[0] == 0 {
                self.find(format!("VM_GET of {}: {vm:?}", get.id));
            }
        }
    }

    pub(super) fn stats(&mut self) {
        let mut stats = VmStats {
            id: self.id(),
            ..VmStats::default()
        };
        if once_in(&mut self.rng, 10) {
            stats.reserved = self.rng.u32(..);
        }
        self.call("VM_STATS", uapi::IOC_VM_STATS, &stats);
    }

    pub(super) fn array(&mut self, name: &str, number: u32) {
        let count = match self.rng.u32(..10) {
            0 => odd(&mut self.rng) as u32,
            _ => self.rng.u32(..70),
        };
        // Room for as many as the kernel may have; it writes no more than it is asked for.
        let items = match self.rng.u32(..20) {
            0 => pick(&mut self.rng, &self.arena.bad()),
            1 => self.arena.put_across(&[0xee; 4096], self.rng.usize(..4096)),
            _ => self.arena.put(&[], 70 * size_of::<uapi::VmRule>()),
        };
        let array = VmArray {
            id: self.id(),
            count,
            items,
        };
        let made = self.call(name, number, &array);
        if made.1.is_none() {
            let out: VmArray = self.arena.get(made.0);
            if out.count > 1000 || out.id != array.id || out.items != array.items {
                self.find(format!("{name} of {array:?}: {out:?}"));
            }
        }
    }

    /// A call that there is not, or with an argument of another size.
    pub(super) fn unknown(&mut self) {
        let known = uapi::IOC_VM_GET;
        let number = match self.rng.u32(..3) {
            0 => known & !0xff | self.rng.u32(9..256),
            1 => known & !0x3fff_00ff | self.rng.u32(..9) | self.rng.u32(1..0x4000) << 16 | 0xb900,
            _ => 0xb9 << 8 | self.rng.u32(..) & 0xffff_00ff,
        };
        if uapi::CALLS.contains(&number) {
            return;
        }
        let address = self.arena.put(&[], 1 << 14);
        let (_, error) = self.made("unknown", number, address);
        if error.is_none() {
            self.find(format!("call {number:#x}: no error"));
        }
    }

    /// What is done with a descriptor, but for calls.
    pub(super) fn file(&mut self) {
        let last = self.devices.len() - 1;
        match self.rng.u32(..6) {
            0 if last < 8 => self
                .devices
                .extend(File::options().read(true).write(true).open(DEVICE)),
            1 if last < 8 => self.devices.extend(self.devices[0].try_clone()),
            2 if last > 0 => drop(self.devices.pop()),
            3 => {
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                let _ = poll(
                    &mut [PollFd::new(&self.devices[last], PollFlags::IN)],
                    Some(&now),
                );
            }
            4 => {
                if (&self.devices[last]).read(&mut [0; 64]).is_ok() {
                    self.find("it can be read".to_owned());
                }
            }
            _ => {
                if (&self.devices[last]).write(&[0; 64]).is_ok() {
                    self.find("it can be written to".to_owned());
                }
            }
        }
    }
}

/// Field 22 of `/proc/PID/stat`.
fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}
