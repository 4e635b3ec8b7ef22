// SPDX-License-Identifier: GPL-2.0-only

//! vCPU threads that get and lose their CPU.

use crate::{
    engine::{now, Engine},
    rust::{
        kvm::{self, VcpuId},
        preempt_notifier::{Leave, Observer},
        timed::Timed,
    },
    stats::Counter,
};
use kernel::sync::{
    atomic::{Atomic, Relaxed},
    Arc,
};

/// What is known of one vCPU's thread. Written by that thread alone.
pub(crate) struct Vcpu {
    engine: Arc<Timed<Engine>>,
    /// The vCPU.
    pub(crate) id: VcpuId,
    /// Its number.
    pub(crate) index: u32,
    /// Since when it is on a CPU; 0 if it is not.
    since: Atomic<u64>,
    /// Nanoseconds on a CPU, until it last left one.
    oncpu: Counter,
    /// How often it lost its CPU while it could run.
    pub(crate) preempted: Counter,
    /// How often it left its CPU because the guest had halted.
    pub(crate) halted: Counter,
    /// How often it left its CPU for another reason.
    pub(crate) blocked: Counter,
}

impl Vcpu {
    /// Not on a CPU yet.
    pub(crate) fn new(engine: Arc<Timed<Engine>>, id: VcpuId, index: u32) -> Self {
        Self {
            engine,
            id,
            index,
            since: Atomic::new(0),
            oncpu: Counter::new(),
            preempted: Counter::new(),
            halted: Counter::new(),
            blocked: Counter::new(),
        }
    }

    /// Whether it is on a CPU.
    pub(crate) fn on_cpu(&self) -> bool {
        self.since.load(Relaxed) != 0
    }

    /// Nanoseconds on a CPU, until now.
    pub(crate) fn oncpu_time(&self) -> u64 {
        let since = self.since.load(Relaxed);
        let running = if since == 0 {
            0
        } else {
            now().saturating_sub(since)
        };
        self.oncpu.get() + running
    }
}

impl Observer for Vcpu {
    fn sched_in(&self) {
        let now = now();
        self.since.store(now.max(1), Relaxed);
        self.engine.run_in(now);
    }

    fn sched_out(&self, leave: Leave) {
        let now = now();
        let since = self.since.xchg(0, Relaxed);
        self.oncpu.add(now.saturating_sub(since));
        self.engine.run_out(now);
        match leave {
            Leave::Preempted => self.preempted.add(1),
            Leave::Blocked if kvm::current_is_halted(self.id) => self.halted.add(1),
            Leave::Blocked => self.blocked.add(1),
            Leave::Dead | Leave::Unwatched => {}
        }
    }
}
