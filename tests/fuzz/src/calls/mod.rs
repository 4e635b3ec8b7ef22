// SPDX-License-Identifier: GPL-2.0-only

//! Calls of `/dev/sleepy`, from several threads, while the VMMs and links that they name come and go.

mod arguments;
mod operations;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Args;
use fastrand::Rng;
use rustix::io::Errno;
use serde::Serialize;
use sleepy_host::Result;
use sleepy_uapi as uapi;
use sleepy_uapi::Info;

use crate::make::pick;
use crate::sys::{self, Arena, Kcov, Plain};
use crate::{Amount, DEVICE, Fd, say, sorted};

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
            if amount.is_over(self.world.done.load(Ordering::Relaxed), self.world.began) {
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
        self.world.done.fetch_add(1, Ordering::Relaxed);
        if error == Some(Errno::NOENT) {
            self.world.ids().retain(|&id| id != self.id);
        }
        if error.is_some_and(|error| !documented(name).contains(&error)) {
            self.find(format!("{name}: errno {code}, which is not documented"));
        }
        (address, error)
    }

    /// Whether the call has written into its argument.
    fn is_written(&self, made: (u64, Option<Errno>)) -> bool {
        made.1 != Some(Errno::FAULT) && made.0 != self.arena.bad()[0]
    }
}

/// With what a call may end, for one who has all capabilities.
fn documented(call: &str) -> &'static [Errno] {
    match call {
        "INFO" => &[Errno::FAULT],
        "VM_ADD" => &[
            Errno::INVAL,
            Errno::FAULT,
            Errno::EXIST,
            Errno::SRCH,
            Errno::AGAIN,
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
        ],
        "VM_SET" => &[
            Errno::INVAL,
            Errno::FAULT,
            Errno::NOENT,
            Errno::SRCH,
            Errno::AGAIN,
            Errno::BADF,
            Errno::BUSY,
            Errno::OPNOTSUPP,
            Errno::TOOBIG,
            Errno::NOMEM,
        ],
        "VM_REMOVE" => &[Errno::INVAL, Errno::FAULT, Errno::NOENT],
        "unknown" => &[Errno::NOTTY, Errno::MSGSIZE],
        _ => &[Errno::INVAL, Errno::FAULT, Errno::NOENT, Errno::NOMEM],
    }
}
