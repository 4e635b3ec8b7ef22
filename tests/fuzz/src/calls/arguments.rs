// SPDX-License-Identifier: GPL-2.0-only

//! What calls are made with: sense, most often.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use fastrand::Rng;
use sleepy_uapi as uapi;
use sleepy_uapi::{Link, Rule};

use super::Caller;
use crate::Fd;
use crate::make::{self, odd, once_in, pick};
use crate::sys::Plain;

/// The first number that no process has.
pub(super) const MAX_PID: u32 = 1 << 22;

impl Caller<'_> {
    /// Mostly one of a VM that is, or was until just now.
    pub(super) fn id(&mut self) -> u32 {
        let newest = self.world.newest.load(Ordering::Relaxed);
        let ids = self.world.ids();
        self.id = match self.rng.u32(..20) {
            0 => odd(&mut self.rng) as u32,
            1 => self.rng.u32(..newest.saturating_add(3)),
            2 => newest.saturating_sub(self.rng.u32(..10)),
            _ if ids.is_empty() => newest,
            _ => pick(&mut self.rng, &ids),
        };
        self.id
    }

    pub(super) fn group(&mut self, lever: u32) -> i32 {
        let right = if lever == uapi::LEVER_GROUP && !self.world.groups.is_empty() {
            pick(
                &mut self.rng,
                &self
                    .world
                    .groups
                    .iter()
                    .map(File::as_raw_fd)
                    .collect::<Vec<_>>(),
            )
        } else {
            -1
        };
        if once_in(&mut self.rng, 20) {
            self.some_fd()
        } else {
            right
        }
    }

    pub(super) fn some_fd(&mut self) -> i32 {
        let null = self.world.null.as_raw_fd();
        pick(
            &mut self.rng,
            &[
                -1,
                0,
                null,
                self.devices[0].as_raw_fd(),
                4000,
                i32::MIN,
                i32::MAX,
            ],
        )
    }

    pub(super) fn policy(&mut self) -> uapi::Policy {
        let group = !self.world.groups.is_empty();
        let mut policy = make::policy(&mut self.rng, &self.world.info, group);
        if once_in(&mut self.rng, 5) {
            make::spoil(&mut self.rng, &mut policy);
        }
        policy
    }

    /// Address and number.
    pub(super) fn rules(&mut self) -> (u64, u32) {
        let count = match self.rng.u32(..30) {
            0 => uapi::MAX_RULES + self.rng.u32(..2),
            _ => self.rng.u32(..8),
        };
        let programs: Vec<i32> = self
            .world
            .programs
            .iter()
            .map(|fd| fd.as_raw_fd())
            .collect();
        let mut rules: Vec<Rule> = (0..count)
            .map(|_| make::rule(&mut self.rng, &mut self.arena, &programs))
            .collect();
        if once_in(&mut self.rng, 3) && !rules.is_empty() {
            let which = self.rng.usize(..rules.len());
            self.spoil(&mut rules[which]);
        }
        let bytes: Vec<u8> = rules
            .iter()
            .flat_map(|rule| rule.bytes().to_vec())
            .collect();
        let address = self.arena.put(&bytes, 0);
        match self.rng.u32(..50) {
            0 => (pick(&mut self.rng, &self.arena.bad()), count),
            1 => (address, odd(&mut self.rng) as u32),
            _ => (address, count),
        }
    }

    fn spoil(&mut self, rule: &mut Rule) {
        let bad = pick(&mut self.rng, &self.arena.bad());
        let small = odd(&mut self.rng) as u32;
        match self.rng.u32(..10) {
            0 => rule.class = self.rng.u32(5..10),
            1 => rule.direction = self.rng.u32(..6),
            2 => {
                rule.len = pick(
                    &mut self.rng,
                    &[0, 1, 4096, 4097, 0xffff, 0x1_0000, 0x1_0001, small],
                )
            }
            3 => rule.insns = bad,
            4 => rule.text = bad,
            5 => {
                rule.text_len = pick(
                    &mut self.rng,
                    &[0, 1, uapi::MAX_TEXT, uapi::MAX_TEXT + 1, small],
                )
            }
            6 => rule.prog_fd = self.some_fd(),
            // Instructions that nobody has made.
            7 => {
                let mut noise = vec![0; 8 * self.rng.usize(1..20)];
                self.rng.fill(&mut noise);
                (rule.insns, rule.len) = (self.arena.put(&noise, 0), noise.len() as u32 / 8);
            }
            // One bit of a good program is wrong, or its end is missing.
            _ => {
                let mut program = make::filter(&mut self.rng);
                if self.rng.bool() {
                    let at = self.rng.usize(..program.len());
                    program[at] ^= 1 << self.rng.u32(..8);
                } else {
                    program.truncate(8 * self.rng.usize(..program.len() / 8 + 1));
                }
                (rule.insns, rule.len) = (self.arena.put(&program, 8), program.len() as u32 / 8);
            }
        }
    }

    pub(super) fn name(&mut self) -> [u8; uapi::NAME_SIZE] {
        let mut name = [0; uapi::NAME_SIZE];
        let text = format!("fuzz{}.{}", self.number, self.rng.u32(..12));
        name[..text.len()].copy_from_slice(text.as_bytes());
        match self.rng.u32(..60) {
            0 => name[0] = 0,
            1 => self.rng.fill(&mut name),
            2 => name[uapi::NAME_SIZE - 1] = b'x',
            3 => name[2] = pick(&mut self.rng, b"/ \n\x7f\xff"),
            4 => name.fill(b'n'),
            _ => {}
        }
        name
    }

    pub(super) fn links(&mut self) -> (u64, u32) {
        let names = &self.world.options.link;
        let count = if once_in(&mut self.rng, 40) {
            17
        } else {
            self.rng.usize(..3)
        };
        let mut bytes = Vec::new();
        for _ in 0..count {
            let name = &names[self.rng.usize(..names.len())];
            let index =
                fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).unwrap_or_default();
            let mut link = Link {
                netns_fd: self.world.netns.as_raw_fd(),
                ifindex: index.trim().parse().unwrap_or(1),
            };
            match self.rng.u32(..20) {
                0 => link.netns_fd = self.some_fd(),
                1 => link.ifindex = odd(&mut self.rng) as u32,
                _ => {}
            }
            bytes.extend(link.bytes());
        }
        let address = self.arena.put(&bytes, 0);
        match self.rng.u32(..50) {
            0 => (pick(&mut self.rng, &self.arena.bad()), count as u32),
            1 => (address, odd(&mut self.rng) as u32),
            _ => (address, count as u32),
        }
    }

    /// A descriptor of one of the process's VMs, or of its vCPUs, or of another's.
    pub(super) fn machine(&mut self, pid: u32) -> i32 {
        if self.machines.len() < 4 || once_in(&mut self.rng, 8) {
            let found = machine_of(&mut self.rng, pid);
            if self.machines.len() > 7 {
                self.machines.remove(0);
            }
            self.machines.extend(found);
        }
        match self.machines.last() {
            Some(last) if self.rng.bool() => last.as_raw_fd(),
            Some(_) => self.machines[self.rng.usize(..self.machines.len())].as_raw_fd(),
            None => -1,
        }
    }
}

/// Takes a descriptor of KVM's from a process, if it is there and has one.
fn machine_of(rng: &mut Rng, pid: u32) -> Option<OwnedFd> {
    let of_kvm = |entry: &fs::DirEntry| {
        let what = fs::read_link(entry.path()).unwrap_or_default();
        what.to_string_lossy().starts_with("anon_inode:kvm")
    };
    let fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .flatten()
        .filter(of_kvm)
        .collect();
    let fd = fds
        .get(rng.usize(..fds.len().max(1)))?
        .file_name()
        .to_str()?
        .parse()
        .ok()?;
    Fd(pid as i32, fd).take().ok()
}
