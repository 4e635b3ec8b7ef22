// SPDX-License-Identifier: GPL-2.0-only

//! Packets to and from VMs, held against rules and filters that change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Instant;

use clap::Args;
use fastrand::Rng;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use serde::Serialize;
use sleepy_host::Result;
use sleepy_uapi as uapi;
use sleepy_uapi::{Info, Rule, Vcpu, VmArray, VmGet, VmSet, VmStats};

use crate::frame::{Frame, HEADER};
use crate::make::{self, by_length, once_in};
use crate::sys::{self, Arena, Kcov, Plain};
use crate::{Amount, DEVICE, Fd, say, sorted};

/// So many packets are sent before the rules change.
const ROUND: u64 = 20_000;
const BATCH: usize = 32;

/// What packets may be made for.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    amount: Amount,
    /// The id of a VM
    #[arg(long, required = true)]
    vm: Vec<u32>,
    /// A packet socket on that VM's link, with PACKET_VNET_HDR
    #[arg(long, required = true)]
    host: Vec<Fd>,
    /// The descriptor of that link's tap, with IFF_VNET_HDR, whose headers have room for what is said of tunnels
    #[arg(long, required = true)]
    tap: Vec<Fd>,
    /// An eBPF program
    #[arg(long)]
    program: Vec<Fd>,
}

/// What was done and found.
#[derive(Default, Serialize)]
pub struct Report {
    /// Packets that went through a hook.
    packets: u64,
    seconds: f64,
    rounds: u64,
    /// Sent to VMs and from VMs, by what was done to them.
    to_vm: BTreeMap<&'static str, u64>,
    from_vm: BTreeMap<&'static str, u64>,
    /// Packets that the kernel would not send, by errno.
    refused: BTreeMap<i32, u64>,
    /// What the module has counted.
    counted: BTreeMap<&'static str, u64>,
    /// Of these, those whose number had to be, and was, a certain one.
    exact: u64,
    /// In what state the VMs were, in samples.
    states: BTreeMap<&'static str, u64>,
    parked: u64,
    findings: Vec<String>,
    /// What was reached in the module; none without KCOV.
    pcs: Option<Vec<u64>>,
}

/// What one side of a link has sent in a round.
#[derive(Default)]
struct Sent {
    kinds: BTreeMap<&'static str, u64>,
    refused: BTreeMap<i32, u64>,
    /// By length, modulo 8, as a hook sees it.
    lengths: [u64; 8],
    pcs: Option<Vec<u64>>,
}

impl Sent {
    fn count(&mut self, frame: &Frame, to_vm: bool) {
        for kind in &frame.kinds {
            *self.kinds.entry(kind).or_default() += 1;
        }
        if let Some(length) = frame.seen(to_vm) {
            self.lengths[length % 8] += 1;
        }
    }

    fn total(&self) -> u64 {
        self.lengths.iter().sum()
    }
}

/// Sends so many packets to a VM.
fn to_vm(socket: impl AsFd, rng: &mut Rng, count: u64) -> Sent {
    let (mut sent, mut kcov) = (Sent::default(), Kcov::start());
    let mut frames: [Frame; BATCH] = Default::default();
    for _ in 0..count / BATCH as u64 {
        frames.iter_mut().for_each(|frame| frame.make(rng));
        let mut begin = 0;
        while begin < BATCH {
            let mut controls: [SendAncillaryBuffer; BATCH] = Default::default();
            let slices: Vec<_> = frames[begin..]
                .iter()
                .map(|frame| [IoSlice::new(&frame.bytes)])
                .collect();
            let mut messages: Vec<_> = slices
                .iter()
                .zip(&mut controls)
                .map(|(slice, control)| MMsgHdr::new(slice, control))
                .collect();
            // It ends at the first packet that is refused.
            let done = match sendmmsg(&socket, &mut messages, SendFlags::DONTWAIT) {
                Ok(done) => {
                    frames[begin..begin + done]
                        .iter()
                        .for_each(|frame| sent.count(frame, true));
                    done
                }
                Err(error) => {
                    *sent.refused.entry(error.raw_os_error()).or_default() += 1;
                    1
                }
            };
            begin += done;
        }
        if let Some(kcov) = &mut kcov {
            kcov.take();
        }
    }
    sent.pcs = kcov.map(|kcov| kcov.pcs.clone());
    sent
}

/// Sends so many packets from a VM.
fn from_vm(tap: impl AsFd, rng: &mut Rng, count: u64) -> Sent {
    let (mut sent, mut kcov) = (Sent::default(), Kcov::start());
    let mut frame = Frame::default();
    for _ in 0..count {
        frame.make(rng);
        let (header, rest) = frame.bytes.split_at(HEADER);
        let slices = [header, &frame.tunnel, rest].map(IoSlice::new);
        match rustix::io::writev(&tap, &slices) {
            Ok(_) => sent.count(&frame, false),
            Err(error) => *sent.refused.entry(error.raw_os_error()).or_default() += 1,
        }
        if let Some(kcov) = &mut kcov {
            kcov.take();
        }
    }
    sent.pcs = kcov.map(|kcov| kcov.pcs.clone());
    sent
}

/// The module, and what it is asked with.
struct Module {
    device: File,
    arena: Arena,
}

impl Module {
    fn ask<T: Plain>(&mut self, number: u32, argument: T) -> rustix::io::Result<T> {
        let address = self.arena.put(argument.bytes(), 0);
        sys::call(&self.device, number, address)?;
        Ok(self.arena.get(address))
    }

    fn stats(&mut self, id: u32) -> Result<VmStats> {
        Ok(self.ask(
            uapi::IOC_VM_STATS,
            VmStats {
                id,
                ..VmStats::default()
            },
        )?)
    }

    fn state(&mut self, id: u32) -> Result<&'static str> {
        let vm = self.ask(
            uapi::IOC_VM_GET,
            VmGet {
                id,
                ..VmGet::default()
            },
        )?;
        Ok(match (vm.state, vm.policy.lever) {
            (uapi::STATE_AWAKE, _) => "awake",
            (_, uapi::LEVER_PARK) => "sleepy, to be parked",
            _ => "sleepy",
        })
    }

    fn parked(&mut self, id: u32) -> Result<u64> {
        const MOST: usize = 16;
        let items = self.arena.put(&[], MOST * size_of::<Vcpu>());
        let array = self.ask(
            uapi::IOC_VM_VCPUS,
            VmArray {
                id,
                count: MOST as u32,
                items,
            },
        )?;
        let at = |index: usize| items + (index * size_of::<Vcpu>()) as u64;
        let vcpus =
            (0..MOST.min(array.count as usize)).map(|index| self.arena.get::<Vcpu>(at(index)));
        Ok(vcpus.map(|vcpu| vcpu.parked).sum())
    }

    /// Gives the VM another policy and other rules.
    fn set(&mut self, id: u32, policy: uapi::Policy, rules: &[Rule]) -> Result<()> {
        let bytes: Vec<u8> = rules
            .iter()
            .flat_map(|rule| rule.bytes().to_vec())
            .collect();
        let set = VmSet {
            id,
            flags: uapi::SET_POLICY | uapi::SET_RULES,
            policy,
            rules: self.arena.put(&bytes, 0),
            n_rules: rules.len() as u32,
            group_fd: -1,
            ..VmSet::default()
        };
        Ok(self.ask(uapi::IOC_VM_SET, set).map(drop)?)
    }
}

/// Does that.
pub fn run(options: Options) -> Result<Report> {
    let take = |fds: &[Fd]| fds.iter().map(Fd::take).collect::<Result<Vec<OwnedFd>>>();
    let (hosts, taps, programs) = (
        take(&options.host)?,
        take(&options.tap)?,
        take(&options.program)?,
    );
    let programs: Vec<i32> = programs.iter().map(|fd| fd.as_raw_fd()).collect();
    let mut module = Module {
        device: File::options().read(true).write(true).open(DEVICE)?,
        arena: Arena::new()?,
    };
    let info = module.ask(uapi::IOC_INFO, Info::default())?;
    let mut report = Report::default();
    let mut pcs: Option<Vec<u64>> = None;
    let began = Instant::now();
    while !options.amount.is_over(report.packets, began) {
        // A round depends on nothing but its seed, so that one can be repeated alone.
        let seed = options.amount.seed + report.rounds;
        say(&format!("packets, round {}: seed {seed}", report.rounds));
        let mut rng = Rng::with_seed(seed);
        let which = rng.usize(..options.vm.len());
        let id = options.vm[which];
        module.arena.clear();
        let exact = seed % 2 == 0;
        let rules: Vec<Rule> = if exact {
            let rule = |class| Rule {
                class,
                direction: uapi::TO_VM | uapi::FROM_VM,
                len: 5,
                insns: module.arena.put(&by_length(class), 0),
                ..Rule::default()
            };
            (0..6).map(rule).collect()
        } else {
            let count = if once_in(&mut rng, 10) {
                uapi::MAX_RULES
            } else {
                rng.u32(..9)
            };
            (0..count)
                .map(|_| make::rule(&mut rng, &mut module.arena, &programs))
                .collect()
        };
        module.set(id, make::policy(&mut rng, &info, false), &rules)?;
        let before = module.stats(id)?;
        let (mut one, mut other) = (rng.fork(), rng.fork());
        let (to, from) = thread::scope(|scope| -> Result<(Sent, Sent)> {
            let to = scope.spawn(|| to_vm(&hosts[which], &mut one, ROUND / 2));
            let from = scope.spawn(|| from_vm(&taps[which], &mut other, ROUND / 2));
            while !to.is_finished() || !from.is_finished() {
                thread::sleep(std::time::Duration::from_millis(50));
                module.arena.clear();
                *report.states.entry(module.state(id)?).or_default() += 1;
            }
            Ok((
                to.join().expect("a thread panicked"),
                from.join().expect("a thread panicked"),
            ))
        })?;
        module.arena.clear();
        let after = module.stats(id)?;
        let [request, response] =
            [uapi::CLASS_REQUEST, uapi::CLASS_RESPONSE].map(|class| class as usize);
        for (name, counted, sent, class) in [
            ("requests", after.requests - before.requests, &to, request),
            ("answers", after.answers - before.answers, &to, response),
            ("calls", after.calls - before.calls, &from, request),
            (
                "responses",
                after.responses - before.responses,
                &from,
                response,
            ),
        ] {
            *report.counted.entry(name).or_default() += counted;
            let expected = sent.lengths[class];
            if exact && counted != expected {
                report.findings.push(format!(
                    "seed {seed}: {counted} {name}, and {expected} were sent"
                ));
            } else if counted > sent.total() {
                report.findings.push(format!(
                    "seed {seed}: {counted} {name} of {} packets",
                    sent.total()
                ));
            }
            report.exact += if exact { counted } else { 0 };
        }
        report.packets += to.total() + from.total();
        report.rounds += 1;
        for (sent, kinds) in [(to, &mut report.to_vm), (from, &mut report.from_vm)] {
            sent.kinds
                .iter()
                .for_each(|(kind, count)| *kinds.entry(kind).or_default() += count);
            for (error, count) in sent.refused {
                *report.refused.entry(error).or_default() += count;
            }
            if let Some(more) = sent.pcs {
                pcs = Some(sorted([pcs.unwrap_or_default(), more].concat()));
            }
        }
    }
    for &id in &options.vm {
        module.arena.clear();
        report.parked += module.parked(id)?;
    }
    (report.pcs, report.seconds) = (pcs, began.elapsed().as_secs_f64());
    Ok(report)
}
