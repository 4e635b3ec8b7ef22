// SPDX-License-Identifier: GPL-2.0-only

//! vCPU threads that get and lose their CPU.

use crate::{
    act::park::Seat,
    engine::{now, pause::Pause, Engine},
    rust::{
        forks::Parent,
        kvm::{self, VcpuId},
        preempt_notifier::{Leave, Observer},
        sched,
        task_work::TaskWork,
        timed::Timed,
    },
    stats::Counter,
};
use kernel::{
    cpu::CpuId,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    task::Task,
};

/// What is known of one vCPU's thread. Written by that thread alone.
pub(crate) struct Vcpu {
    /// The VM.
    pub(super) engine: Arc<Timed<Engine>>,
    /// The vCPU.
    pub(crate) id: VcpuId,
    /// Its number.
    pub(crate) index: u32,
    /// How often it lost its CPU while it could run.
    pub(crate) preempted: Counter,
    /// How often it left its CPU because the guest had halted.
    pub(crate) halted: Counter,
    /// How often it left its CPU for another reason.
    pub(crate) blocked: Counter,
    /// How often it gave up its turn to a VM that is awake.
    pub(crate) yielded: Counter,
    /// What it does before it enters its guest.
    pub(crate) pause: Arc<TaskWork<Pause>>,
    /// It has left its CPU because the guest had halted, and has not had one since.
    idle: Atomic<bool>,
    /// It has given the last one up.
    gave: Atomic<bool>,
}

impl Vcpu {
    /// Not on a CPU yet.
    pub(crate) fn new(
        engine: Arc<Timed<Engine>>,
        id: VcpuId,
        index: u32,
        seat: Arc<Seat>,
    ) -> Result<Self> {
        Ok(Self {
            pause: TaskWork::new(Pause::new(engine.clone(), id, seat))?,
            engine,
            id,
            index,
            preempted: Counter::new(),
            halted: Counter::new(),
            blocked: Counter::new(),
            yielded: Counter::new(),
            idle: Atomic::new(false),
            gave: Atomic::new(false),
        })
    }

    /// Gives way to an awake thread that waits for this CPU, if it is sleepy and its last turn was whole. Not one that runs in
    /// real time, of which the administrator has said when it does.
    fn give_way(&self, cpu: CpuId, now: u64) {
        let may = self.engine.lowered()
            && !self.gave.load(Relaxed)
            && !self.pause.gives()
            && sched::policy(current!()).is_fair();
        if may && self.engine.turns.wanted(cpu.as_u32(), now) {
            self.pause.give(true);
            TaskWork::queue(&self.pause);
        }
    }

    /// Has itself parked, if it shall be; not if it runs in real time.
    fn park(&self, now: u64) {
        if self.pause.is_due(now) && sched::policy(current!()).is_fair() {
            TaskWork::queue(&self.pause);
        }
    }

    fn end_turn(&self) {
        let gave = self.pause.give(false);
        self.gave.store(gave, Relaxed);
        if gave {
            self.yielded.add(1);
        }
    }

    /// Whether it is on a CPU.
    pub(crate) fn on_cpu(&self) -> bool {
        self.pause.since().is_some()
    }

    /// Nanoseconds on a CPU, until now.
    pub(crate) fn oncpu_time(&self) -> u64 {
        self.pause.oncpu(now())
    }
}

impl Observer for Vcpu {
    fn sched_in(&self, cpu: CpuId) {
        let now = now();
        self.pause.run_in(now);
        if !self.pause.seat().is_watched() {
            self.pause.seat().watch(true);
            Engine::watched(&self.engine);
        }
        if self.idle.load(Relaxed) {
            self.idle.store(false, Relaxed);
            self.engine.unhalted(now);
            self.pause.unhalted(now);
        }
        self.engine.run_in(now);
        if self.engine.lowered() {
            self.give_way(cpu, now);
            self.park(now);
        } else {
            self.engine.turns.served(cpu.as_u32());
        }
    }

    fn called(&self) {
        let now = now();
        self.give_way(CpuId::current(), now);
        self.park(now);
    }

    fn sched_out(&self, leave: Leave) {
        let now = now();
        self.pause.run_out(now);
        self.engine.run_out(now);
        self.end_turn();
        match leave {
            Leave::Preempted => self.preempted.add(1),
            Leave::Blocked if kvm::current_is_halted(self.id) => {
                self.halted.add(1);
                self.idle.store(true, Relaxed);
                self.pause.halted();
                self.engine.halted(now);
            }
            Leave::Blocked if self.pause.blocks() => {}
            Leave::Blocked => self.blocked.add(1),
            Leave::Dead | Leave::Unwatched => {
                self.pause.seat().watch(false);
                self.engine.unwatched();
            }
        }
    }
}

impl Parent for Vcpu {
    fn forks(&self, child: &Task) {
        self.engine.forked(self.pause.seat(), child);
    }
}
