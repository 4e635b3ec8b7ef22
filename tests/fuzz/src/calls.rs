// SPDX-License-Identifier: GPL-2.0-only

//! Calls of `/dev/sleepy`, from several threads, while the VMMs and links that they name come and go.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Args;
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;
use sleepy_host::Result;
use sleepy_uapi as uapi;
use sleepy_uapi::{Info, Link, Rule, VmAdd, VmArray, VmGet, VmRemove, VmSet, VmStats};

use crate::make::{self, odd, once_in, pick};
use crate::sys::{self, Arena, Kcov, Plain};
use crate::{Amount, DEVICE, Fd, say, sorted};

const MAX_PID: u32 = 1 << 22;

/// What may be called with.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    amount: Amount,
    /// How many threads call
    #[arg(long, default_value_t = 3)]
    threads: u64,
    /// A VMM; there may be another one of this number later on
    #[arg(long, required = true)]
    vmm: Vec<u32>,
    /// A link; there may be another one of this name later on
    #[arg(long, required = true)]
    link: Vec<String>,
    /// A control group
    #[arg(long)]
    group: Vec<String>,
    /// An eBPF program
    #[arg(long)]
    program: Vec<Fd>,
}

/// What was done and found.
#[derive(Default, Serialize)]
pub struct Report {
    calls: u64,
    seconds: f64,
    /// How often each call ended with which errno, or 0.
    outcomes: BTreeMap<String, BTreeMap<i32, u64>>,
    added: u64,
    findings: Vec<String>,
    /// What was reached in the module; none without KCOV.
    pcs: Option<Vec<u64>>,
}

/// What all threads share.
struct World {
    options: Options,
    info: Info,
    netns: File,
    null: File,
    groups: Vec<File>,
    programs: Vec<OwnedFd>,
    /// The last id that was given to a VM.
    newest: AtomicU32,
    /// Those that nobody has missed yet.
    ids: Mutex<Vec<u32>>,
    done: AtomicU64,
    began: Instant,
}

impl World {
    fn ids(&self) -> MutexGuard<'_, Vec<u32>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does that.
pub fn run(options: Options) -> Result<Report> {
    let open = |path: &String| File::open(path);
    let mut arena = Arena::new()?;
    let device = File::options().read(true).write(true).open(DEVICE)?;
    let info = arena.put(&[], size_of::<Info>());
    sys::call(&device, uapi::IOC_INFO, info)?;
    let world = World {
        info: arena.get(info),
        netns: File::open("/proc/self/ns/net")?,
        null: File::open("/dev/null")?,
        groups: options
            .group
            .iter()
            .map(open)
            .collect::<std::io::Result<_>>()?,
        programs: options
            .program
            .iter()
            .map(Fd::take)
            .collect::<Result<_>>()?,
        newest: AtomicU32::new(0),
        ids: Mutex::default(),
        done: AtomicU64::new(0),
        began: Instant::now(),
        options,
    };
    let reports: Vec<Result<Report>> = thread::scope(|scope| {
        let threads = 0..world.options.threads;
        let started: Vec<_> = threads
            .map(|number| {
                let world = &world;
                scope.spawn(move || Ok(Caller::new(world, number)?.run()))
            })
            .collect();
        let joined = started.into_iter().map(|thread| thread.join());
        joined
            .map(|report| report.expect("a thread panicked"))
            .collect()
    });
    let mut all = Report::default();
    for report in reports {
        let report = report?;
        all.calls += report.calls;
        all.added += report.added;
        all.findings.extend(report.findings);
        for (call, outcomes) in report.outcomes {
            for (error, count) in outcomes {
                *all.outcomes
                    .entry(call.clone())
                    .or_default()
                    .entry(error)
                    .or_default() += count;
            }
        }
        if let Some(pcs) = report.pcs {
            all.pcs.get_or_insert_default().extend(pcs);
        }
    }
    all.pcs = all.pcs.map(sorted);
    all.seconds = world.began.elapsed().as_secs_f64();
    Ok(all)
}

/// One thread.
struct Caller<'a> {
    world: &'a World,
    number: u64,
    rng: Rng,
    arena: Arena,
    /// The last one that was chosen.
    id: u32,
    devices: Vec<File>,
    /// Descriptors of VMs, some of VMMs that are gone.
    machines: Vec<OwnedFd>,
    report: Report,
}

impl<'a> Caller<'a> {
    fn new(world: &'a World, number: u64) -> Result<Self> {
        Ok(Self {
            world,
            number,
            rng: Rng::new(),
            arena: Arena::new()?,
            id: 0,
            devices: vec![File::options().read(true).write(true).open(DEVICE)?],
            machines: Vec::new(),
            report: Report::default(),
        })
    }

    fn run(mut self) -> Report {
        let mut kcov = Kcov::start();
        let amount = &self.world.options.amount;
        for turn in 0.. {
            if amount.is_over(
                self.world.done.fetch_add(1, Ordering::Relaxed),
                self.world.began,
            ) {
                break;
            }
            if self.number == 0 && turn % 20_000 == 0 {
                say(&format!("seed {}, call {turn} of thread 0", amount.seed));
            }
            // What a call is made of depends on nothing but its number.
            let seed = amount.seed ^ self.number << 56 ^ turn << 20;
            self.rng = Rng::with_seed(seed);
            self.arena.clear();
            self.step();
            if let Some(kcov) = &mut kcov {
                kcov.take();
            }
        }
        self.report.pcs = kcov.map(|kcov| kcov.pcs.clone());
        self.report
    }

    fn step(&mut self) {
        // Those that change something take a thousand times as long as the others.
        match self.rng.u32(..100) {
            0..=5 => self.info(),
            6..=9 => self.add(),
            10 => self.remove(),
            11..=14 => self.set(),
            15..=39 => self.get(),
            40..=54 => self.stats(),
            55..=66 => self.array("VM_VCPUS", uapi::IOC_VM_VCPUS),
            67..=76 => self.array("VM_LINKS", uapi::IOC_VM_LINKS),
            77..=86 => self.array("VM_RULES", uapi::IOC_VM_RULES),
            87..=93 => self.unknown(),
            _ => self.file(),
        }
    }

    fn find(&mut self, what: String) {
        self.report.findings.push(what);
    }

    /// Puts an argument somewhere, calls, and returns where that was if it succeeded, or the place and the errno.
    fn call(&mut self, name: &str, number: u32, argument: &impl Plain) -> (u64, Option<Errno>) {
        let bytes = argument.bytes();
        let size = bytes.len();
        let address = match self.rng.u32(..40) {
            0 => pick(&mut self.rng, &self.arena.bad()),
            1 => self.arena.put_across(bytes, self.rng.usize(1..=size)),
            2 => self.arena.put_read_only(bytes),
            _ => self.arena.put(bytes, 0),
        };
        self.made(name, number, address)
    }

    fn made(&mut self, name: &str, number: u32, address: u64) -> (u64, Option<Errno>) {
        let device = self.rng.usize(..self.devices.len());
        let error = sys::call(&self.devices[device], number, address).err();
        let code = error.map_or(0, Errno::raw_os_error);
        let outcomes = self.report.outcomes.entry(name.to_owned()).or_default();
        *outcomes.entry(code).or_default() += 1;
        self.report.calls += 1;
        if error == Some(Errno::NOENT) {
            self.world.ids().retain(|&id| id != self.id);
        }
        const DOCUMENTED: [Errno; 19] = [
            Errno::PERM,
            Errno::NOTTY,
            Errno::MSGSIZE,
            Errno::INVAL,
            Errno::FAULT,
            Errno::NOENT,
            Errno::EXIST,
            Errno::SRCH,
            Errno::STALE,
            Errno::NODEV,
            Errno::NOTUNIQ,
            Errno::BADF,
            Errno::XDEV,
            Errno::ALREADY,
            Errno::BUSY,
            Errno::OPNOTSUPP,
            Errno::TOOBIG,
            Errno::NOSPC,
            Errno::NOMEM,
        ];
        if error.is_some_and(|error| !DOCUMENTED.contains(&error)) {
            self.find(format!("{name}: errno {code}, which is not documented"));
        }
        (address, error)
    }

    /// Whether the call has written into its argument.
    fn is_written(&self, made: (u64, Option<Errno>)) -> bool {
        made.1 != Some(Errno::FAULT) && made.0 != self.arena.bad()[0]
    }

    /// Mostly one of a VM that is, or was until just now.
    fn id(&mut self) -> u32 {
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

    fn info(&mut self) {
        let made = self.call("INFO", uapi::IOC_INFO, &Info::default());
        if made.1.is_none() {
            let info: Info = self.arena.get(made.0);
            if info.version != uapi::ABI_VERSION || info.vms > uapi::MAX_VMS {
                self.find(format!("INFO: {info:?}"));
            }
        }
    }

    fn group(&mut self, lever: u32) -> i32 {
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

    fn some_fd(&mut self) -> i32 {
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

    fn policy(&mut self) -> uapi::Policy {
        let group = !self.world.groups.is_empty();
        let mut policy = make::policy(&mut self.rng, &self.world.info, group);
        if once_in(&mut self.rng, 5) {
            make::spoil(&mut self.rng, &mut policy);
        }
        policy
    }

    /// Address and number.
    fn rules(&mut self) -> (u64, u32) {
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

    fn name(&mut self) -> [u8; uapi::NAME_SIZE] {
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

    fn links(&mut self) -> (u64, u32) {
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
    fn machine(&mut self, pid: u32) -> i32 {
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

    fn add(&mut self) {
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

    fn remove(&mut self) {
        let reserved = if once_in(&mut self.rng, 10) {
            self.rng.u32(..)
        } else {
            0
        };
        let id = self.id();
        self.call("VM_REMOVE", uapi::IOC_VM_REMOVE, &VmRemove { id, reserved });
    }

    fn set(&mut self) {
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

    fn get(&mut self) {
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

    fn stats(&mut self) {
        let mut stats = VmStats {
            id: self.id(),
            ..VmStats::default()
        };
        if once_in(&mut self.rng, 10) {
            stats.reserved = self.rng.u32(..);
        }
        self.call("VM_STATS", uapi::IOC_VM_STATS, &stats);
    }

    fn array(&mut self, name: &str, number: u32) {
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
    fn unknown(&mut self) {
        let known = uapi::IOC_VM_GET;
        let number = match self.rng.u32(..3) {
            0 => known & !0xff | self.rng.u32(9..256),
            1 => known & !0x3fff_00ff | self.rng.u32(..9) | self.rng.u32(1..0x4000) << 16 | 0xb900,
            _ => 0xb9 << 8 | self.rng.u32(..) & 0xffff_00ff,
        };
        let all = [
            uapi::IOC_INFO,
            uapi::IOC_VM_ADD,
            uapi::IOC_VM_REMOVE,
            uapi::IOC_VM_SET,
            uapi::IOC_VM_GET,
            uapi::IOC_VM_STATS,
            uapi::IOC_VM_VCPUS,
            uapi::IOC_VM_LINKS,
            uapi::IOC_VM_RULES,
        ];
        if all.contains(&number) {
            return;
        }
        let address = self.arena.put(&[], 1 << 14);
        let (_, error) = self.made("unknown", number, address);
        if !matches!(error, Some(Errno::NOTTY | Errno::MSGSIZE)) {
            self.find(format!("call {number:#x}: {error:?}"));
        }
    }

    /// What is done with a descriptor, but for calls.
    fn file(&mut self) {
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
