// SPDX-License-Identifier: GPL-2.0-only

//! Who goes first where an awake VM and sleepy ones share a CPU.
//!
//! With its weight back, a vCPU thread may still have to wait: the scheduler remembers that it has just had
//! a turn, and the sleepy threads theirs to come, and each of those lasts until the tick after next. So the
//! sleepy threads on that CPU give up their turn, one after the other, until the awake one has it. They
//! lose it as if they had used it; never two of a thread in a row, so that each keeps moving.

use crate::{
    engine::now,
    rust::{cpus::Cpus, sched},
    sense::vcpu::Vcpu,
};
use kernel::{
    cpu,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    task::Task,
};

/// How long sleepy threads give way on a CPU unless the awake thread gets it earlier, in nanoseconds. It may
/// have been moved to another CPU, or have been stopped.
const PATIENCE: u64 = 10_000_000;

/// The CPUs, and on which of them an awake thread waits for its turn.
pub(crate) struct Turns {
    /// The CPUs.
    pub(crate) cpus: Arc<Cpus<Vcpu>>,
    /// For each CPU, until when sleepy threads give way on it.
    wanted: KVec<Atomic<u64>>,
}

impl Turns {
    /// Nobody waits.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let number = cpu::nr_cpu_ids() as usize;
        let mut wanted = KVec::with_capacity(number, GFP_KERNEL)?;
        for _ in 0..number {
            wanted.push(Atomic::new(0), GFP_KERNEL)?;
        }
        let cpus = Cpus::new()?;
        Ok(Arc::new(Self { cpus, wanted }, GFP_KERNEL)?)
    }

    /// A thread has its weight back. If it waits for a CPU, whoever is sleepy there gives way.
    pub(crate) fn hurry(&self, task: &Task) {
        if let Some(cpu) = sched::cpu_waited_for(task) {
            if let Some(wanted) = self.wanted.get(cpu as usize) {
                wanted.store(now().saturating_add(PATIENCE), Relaxed);
                self.cpus.call(cpu);
            }
        }
    }

    /// Whether an awake thread waits for this CPU.
    pub(crate) fn wanted(&self, cpu: u32, now: u64) -> bool {
        let wanted = self.wanted.get(cpu as usize);
        wanted.is_some_and(|until| until.load(Relaxed) > now)
    }

    /// An awake thread has got this CPU.
    pub(crate) fn served(&self, cpu: u32) {
        if let Some(wanted) = self.wanted.get(cpu as usize) {
            if wanted.load(Relaxed) != 0 {
                wanted.store(0, Relaxed);
            }
        }
    }
}
