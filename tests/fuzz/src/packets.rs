// SPDX-License-Identifier: GPL-2.0-only

//! Packets to and from VMs, which need not be any, held against rules and filters that change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Instant;

use clap::Args;
use etherparse::{IpNumber, PacketBuilder};
use fastrand::Rng;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use serde::Serialize;
use sleepy_host::Result;
use sleepy_uapi as uapi;
use sleepy_uapi::{Info, Rule, Vcpu, VmArray, VmGet, VmSet, VmStats};

use crate::make::{self, by_length, once_in, pick};
use crate::sys::{self, Arena, Kcov, Plain};
use crate::{Amount, DEVICE, Fd, say, sorted};

/// So many packets are sent before the rules change.
const ROUND: u64 = 20_000;
const BATCH: usize = 32;
/// `struct virtio_net_hdr`, in front of each frame.
const HEADER: usize = 10;
const LONGEST: usize = 20_000;
const ETHERNET: usize = 14;
const TAGS: [u16; 2] = [0x8100, 0x88a8];

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
    /// The descriptor of that link's tap, with IFF_VNET_HDR
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

/// `struct virtio_net_hdr`, an Ethernet frame, and how it was made.
#[derive(Default)]
struct Frame {
    bytes: Vec<u8>,
    kinds: Vec<&'static str>,
}

impl Frame {
    /// Its length when a hook sees it, if it comes so far: on its way in, the outer tag is taken off first.
    fn seen(&self, to_vm: bool) -> Option<usize> {
        let frame = &self.bytes[HEADER..];
        let kind = u16::from_be_bytes([frame[12], frame[13]]);
        match frame.len() {
            length if to_vm || !TAGS.contains(&kind) => Some(length),
            length if length >= ETHERNET + 6 => Some(length - 4),
            _ => None,
        }
    }

    fn set16(&mut self, at: usize, value: u16) {
        if let Some(place) = self.bytes.get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Makes another one.
    fn make(&mut self, rng: &mut Rng) {
        self.kinds.clear();
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        let (v6, protocol) = (rng.bool(), rng.u32(..5));
        let payload = match rng.u32(..40) {
            0 => rng.usize(..LONGEST),
            1..=4 => rng.usize(..3000),
            _ => rng.usize(..100),
        };
        let payload = vec![rng.u8(..); payload];
        // Few flows, so that they are answered and closed now and then.
        let ports = (rng.u16(1000..1040), pick(rng, &[7, 80, 443]));
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let net = if v6 {
            let ends = ([0xfd; 16], [0xfe; 16]);
            link.ipv6(ends.0, ends.1, 64)
        } else {
            link.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
        };
        let mut transport = HEADER + ETHERNET + if v6 { 40 } else { 20 };
        let bytes = &mut self.bytes;
        let (kind, made) = match protocol {
            0 | 1 => {
                let seq = rng.u32(..) >> rng.u32(..32);
                let tcp = net.tcp(ports.0, ports.1, seq, 65535).ack(1);
                let tcp = match rng.u32(..6) {
                    0 => tcp.syn(),
                    1 => tcp.fin(),
                    2 => tcp.rst(),
                    3 => tcp,
                    _ => tcp.psh(),
                };
                (["tcp4", "tcp6"], tcp.write(bytes, &payload))
            }
            2 | 3 => (
                ["udp4", "udp6"],
                net.udp(ports.0, ports.1).write(bytes, &payload),
            ),
            _ if v6 => (
                ["icmp4", "icmp6"],
                net.icmpv6_echo_request(1, 2).write(bytes, &payload),
            ),
            _ => (
                ["icmp4", "icmp6"],
                net.icmpv4_echo_request(1, 2).write(bytes, &payload),
            ),
        };
        made.expect("a packet");
        self.kinds.push(kind[usize::from(v6)]);
        // What follows may be done all at once.
        if v6 && once_in(rng, 4) {
            transport += self.extend(rng, protocol);
        } else if !v6 && once_in(rng, 5) {
            let words = rng.u8(1..=10);
            let options: Vec<u8> = (0..4 * words)
                .map(|_| pick(rng, &[0, 1, 7, 68, 131, 148, 255, 4]))
                .collect();
            let at = HEADER + ETHERNET;
            self.bytes.splice(transport..transport, options);
            self.bytes[at] = 0x45 + words;
            self.set16(at + 2, (self.bytes.len() - at) as u16);
            transport += 4 * usize::from(words);
            self.kinds.push("ipv4 options");
        }
        if !v6 && once_in(rng, 8) {
            self.set16(
                HEADER + ETHERNET + 6,
                pick(rng, &[0x2000, 1, 0x2001, 0x1fff, 0x3fff, 0x4000, 0x8000]),
            );
            self.kinds.push("ipv4 fragment");
        }
        if protocol < 2 && once_in(rng, 6) {
            self.bytes[transport + 12] = rng.u8(..);
            self.kinds.push("tcp offset");
        }
        if once_in(rng, 6) {
            let place = if v6 {
                HEADER + ETHERNET + 4
            } else {
                HEADER + ETHERNET + 2
            };
            self.set16(place, rng.u16(..) >> rng.u32(..16));
            self.kinds.push("wrong length");
        }
        if once_in(rng, 5) {
            let depth = pick(rng, &[1, 1, 2, 3, 8]);
            for _ in 0..depth {
                let [a, b] = pick(rng, &TAGS).to_be_bytes();
                let at = HEADER + 12;
                self.bytes.splice(at..at, [a, b, rng.u8(..), rng.u8(..)]);
            }
            transport += 4 * depth;
            self.kinds
                .push(if depth == 1 { "vlan" } else { "vlan, nested" });
        }
        if once_in(rng, 4) {
            self.offload(rng, transport, protocol, v6);
        }
        if once_in(rng, 8) {
            let rest = self.bytes.len().min(transport + 40);
            self.bytes.truncate(rng.usize(HEADER + ETHERNET..=rest));
            self.kinds.push("truncated");
        }
        if once_in(rng, 5) {
            let headers = self.bytes.len().min(transport + 24);
            for _ in 0..rng.u32(1..6) {
                let at = rng.usize(HEADER..headers);
                self.bytes[at] = rng.u8(..);
            }
            self.kinds.push("mutated");
        }
        if once_in(rng, 40) {
            rng.fill(&mut self.bytes[HEADER + 12..]);
            self.kinds.push("noise");
        }
    }

    /// Puts extension headers into an IPv6 packet, some of which say another length than theirs; returns theirs.
    fn extend(&mut self, rng: &mut Rng, protocol: u32) -> usize {
        const KINDS: [u8; 9] = [0, 43, 44, 51, 60, 135, 139, 140, 59];
        let at = HEADER + ETHERNET;
        let upper = match protocol {
            0 | 1 => IpNumber::TCP,
            2 | 3 => IpNumber::UDP,
            _ => IpNumber::IPV6_ICMP,
        };
        let kinds: Vec<u8> = (0..pick(rng, &[1, 1, 2, 3, 12, 40]))
            .map(|_| pick(rng, &KINDS))
            .collect();
        let mut headers = Vec::new();
        for (index, &kind) in kinds.iter().enumerate() {
            // Fragments have 8 bytes; others say how many more units of 8 (AH: 4, and one less).
            let more = if kind == 44 { 0 } else { rng.usize(..3) };
            let said = match kind {
                51 => 2 * more,
                _ => more,
            };
            let said = if once_in(rng, 10) {
                rng.u8(..)
            } else {
                said as u8
            };
            let next = kinds.get(index + 1).copied().unwrap_or(upper.0);
            headers.extend([next, said]);
            headers.extend((0..8 * more + 6).map(|_| if once_in(rng, 4) { rng.u8(..) } else { 0 }));
        }
        self.bytes[at + 6] = kinds[0];
        let length = headers.len();
        self.bytes.splice(at + 40..at + 40, headers);
        self.set16(at + 4, (self.bytes.len() - at - 40) as u16);
        self.kinds.push("ipv6 extensions");
        length
    }

    /// Has the kernel take it for several packets in one, or for one without a checksum.
    fn offload(&mut self, rng: &mut Rng, transport: usize, protocol: u32, v6: bool) {
        const NONE: u8 = 0;
        const TCPV4: u8 = 1;
        const UDP: u8 = 3;
        const TCPV6: u8 = 4;
        const UDP_L4: u8 = 5;
        const ECN: u8 = 0x80;
        let right = match protocol {
            0 | 1 if v6 => TCPV6,
            0 | 1 => TCPV4,
            2 => UDP,
            3 => UDP_L4,
            _ => NONE,
        };
        let mut gso = if once_in(rng, 8) {
            pick(rng, &[NONE, TCPV4, UDP, TCPV6, UDP_L4, 2, 77])
        } else {
            right
        };
        if protocol < 2 && once_in(rng, 4) {
            gso |= ECN;
        }
        let start = (transport - HEADER) as u16;
        let (start, offset) = match rng.u32(..12) {
            0 => (rng.u16(..), rng.u16(..)),
            1 => (rng.u16(..200), rng.u16(..20)),
            _ => (start, if protocol < 2 { 16 } else { 6 }),
        };
        let size = pick(rng, &[1, 8, 100, 536, 1448, 1460, 9000, 0xfffe, 0xffff, 0]);
        let flags = pick(rng, &[1, 1, 1, 1, 0, 2, 3, 4, 0xff]);
        let [[s0, s1], [c0, c1], [o0, o1]] = [size, start, offset].map(u16::to_le_bytes);
        let [h0, h1] = pick(rng, &[start + 20, 0, 14, 0xffff]).to_le_bytes();
        self.bytes[..HEADER].copy_from_slice(&[flags, gso, h0, h1, s0, s1, c0, c1, o0, o1]);
        self.kinds.push(match gso & !ECN {
            NONE => "offload: checksum",
            TCPV4 => "offload: tcp4",
            TCPV6 => "offload: tcp6",
            UDP => "offload: udp",
            UDP_L4 => "offload: udp_l4",
            _ => "offload: unknown",
        });
        if gso & ECN != 0 {
            self.kinds.push("offload: ecn");
        }
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
        match rustix::io::write(&tap, &frame.bytes) {
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
