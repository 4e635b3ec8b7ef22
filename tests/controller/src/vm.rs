// SPDX-License-Identifier: GPL-2.0-only

//! A VM: the capture on its tap, and the weight of its vCPU threads.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use pcap::{Active, Capture, Error, Precision};
use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::packet;
use crate::spec::Spec;
use crate::state::{State, Times};

/// In bytes, for each tap: some hundred packets.
const BUFFER: i32 = 128 << 10;

/// One of the VMs.
pub struct Vm {
    spec: Spec,
    capture: Capture<Active>,
    state: State,
    nice: i32,
}

impl Vm {
    /// Begins to capture its packets. `nice` is for when it has nothing to do.
    pub fn new(spec: Spec, times: Times, nice: i32) -> Result<Self> {
        let capture =
            open(&spec).map_err(|error| format!("{}: {}: {error}", spec.name, spec.tap))?;
        let vm = Self {
            spec,
            capture,
            state: State::new(times, Instant::now()),
            nice,
        };
        vm.set_nice(0)?;
        Ok(vm)
    }

    /// To wait on for packets.
    pub fn fd(&self) -> RawFd {
        self.capture.as_raw_fd()
    }

    /// Deals with the packets that have come. If they brought the threads back to nice 0, the time from the first of them
    /// that did to when all threads had it, in ns, is added to `reactions`.
    pub fn packets(&mut self, reactions: &mut Vec<u64>) -> Result<()> {
        loop {
            let packet = match self.capture.next_packet() {
                Ok(packet) => packet,
                Err(Error::TimeoutExpired) => return Ok(()),
                Err(error) => {
                    return Err(format!("{}: {}: {error}", self.spec.name, self.spec.tap).into());
                }
            };
            let Some((meaning, peer)) = packet::classify(packet.data, self.spec.port) else {
                continue;
            };
            // With Precision::Nano, tv_usec counts ns.
            let seen = packet.header.ts.tv_sec * 1_000_000_000 + packet.header.ts.tv_usec;
            if self.state.packet(meaning, peer, Instant::now()) {
                self.set_nice(0)?;
                let now = clock_gettime(ClockId::Realtime);
                let now = now.tv_sec * 1_000_000_000 + now.tv_nsec;
                reactions.push(u64::try_from(now - seen).unwrap_or(0));
            }
        }
    }

    /// When [`Vm::time`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.state.deadline()
    }

    /// Nices the threads if the VM has nothing to do any more.
    pub fn time(&mut self, now: Instant) -> Result<()> {
        if self.state.time(now) {
            self.set_nice(self.nice)?;
        }
        Ok(())
    }

    /// Sets the nice value of every vCPU thread; fails if one is gone, after the others are done.
    pub fn set_nice(&self, nice: i32) -> Result<()> {
        let mut result = Ok(());
        for vcpu in &self.spec.vcpus {
            // Of a thread id, Linux changes that thread alone.
            if let Err(error) = setpriority_process(Some(*vcpu), nice) {
                let tid = vcpu.as_raw_pid();
                result =
                    Err(format!("{}: thread {tid}: nice {nice}: {error}", self.spec.name).into());
            }
        }
        result
    }
}

fn open(spec: &Spec) -> std::result::Result<Capture<Active>, Error> {
    let mut capture = Capture::from_device(&*spec.tap)?
        .immediate_mode(true)
        .precision(Precision::Nano)
        .snaplen(packet::CAPTURED)
        .buffer_size(BUFFER)
        .open()?
        .setnonblock()?;
    capture.filter(&format!("tcp port {}", spec.port), true)?;
    Ok(capture)
}
