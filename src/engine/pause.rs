// SPDX-License-Identifier: GPL-2.0-only

//! What a sleepy VM's vCPU thread does in place of running its guest.

use super::{now, Engine};
use crate::{
    act::park::{Kick, Seat},
    rust::{
        kvm::{self, Parked, VcpuId},
        sched,
        task_work::Errand,
        timed::Timed,
    },
    stats::Counter,
};
use core::mem;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// What one thread does before it next enters its guest. Written by that thread alone, and by what interrupts it.
pub(crate) struct Pause {
    engine: Arc<Timed<Engine>>,
    vcpu: VcpuId,
    seat: Arc<Seat>,
    /// Since when it is on a CPU; 0 if it is not.
    since: Atomic<u64>,
    /// Nanoseconds on a CPU, until it last left one.
    oncpu: Counter,
    /// It gives this turn up.
    gives: Atomic<bool>,
    /// It shall be parked.
    parks: Atomic<bool>,
    /// The round that it is in, see [`Parking`](crate::act::park::Parking); how long it may run in that, counted from when
    /// it got its CPU.
    round: Atomic<u64>,
    left: Atomic<u64>,
    /// Its guest has halted, since it last used up what it was allowed to run: it gives its CPU away itself.
    halts: Atomic<bool>,
    /// When it was last allowed to run for `stir_run`, and its time on a CPU then.
    fed: Atomic<u64>,
    fed_oncpu: Atomic<u64>,
    /// How many interrupts had been injected when it was last parked.
    injected: Atomic<u64>,
    /// How often it was parked; and whether that counts the last time.
    pub(crate) parked: Counter,
    counted: Atomic<bool>,
}

/// A guest that halts may take so many times `stir_run` to do so, once its VM sleeps.
const TO_HALT: u64 = 4;

impl Pause {
    /// For the thread of this vCPU.
    pub(crate) fn new(engine: Arc<Timed<Engine>>, vcpu: VcpuId, seat: Arc<Seat>) -> Self {
        Self {
            engine,
            vcpu,
            seat,
            since: Atomic::new(0),
            oncpu: Counter::new(),
            gives: Atomic::new(false),
            parks: Atomic::new(false),
            round: Atomic::new(0),
            left: Atomic::new(0),
            halts: Atomic::new(false),
            fed: Atomic::new(0),
            fed_oncpu: Atomic::new(0),
            injected: Atomic::new(0),
            parked: Counter::new(),
            counted: Atomic::new(false),
        }
    }

    /// Its thread's seat.
    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Whether it gives this turn up.
    pub(crate) fn gives(&self) -> bool {
        self.gives.load(Relaxed)
    }

    /// Has it give this turn up, or not any more; true if it was to.
    pub(crate) fn give(&self, gives: bool) -> bool {
        self.gives.xchg(gives, Relaxed)
    }

    /// Whether it blocks because it is parked.
    pub(crate) fn blocks(&self) -> bool {
        let parked = self.seat.is_taken();
        if parked && !self.counted.xchg(true, Relaxed) {
            self.parked.add(1);
        }
        parked
    }

    /// It gets a CPU.
    pub(crate) fn run_in(&self, now: u64) {
        self.since.store(now.max(1), Relaxed);
    }

    /// It loses its CPU.
    pub(crate) fn run_out(&self, now: u64) {
        let used = self.used(now);
        self.since.store(0, Relaxed);
        self.oncpu.add(used);
        let left = self.left.load(Relaxed);
        self.left.store(left.saturating_sub(used), Relaxed);
    }

    /// Since when it is on a CPU, if it is.
    pub(crate) fn since(&self) -> Option<u64> {
        Some(self.since.load(Relaxed)).filter(|&since| since != 0)
    }

    /// Nanoseconds on a CPU, until now.
    pub(crate) fn oncpu(&self, now: u64) -> u64 {
        self.oncpu.get() + self.used(now)
    }

    /// How long it has had its CPU.
    fn used(&self, now: u64) -> u64 {
        self.since().map_or(0, |since| now.saturating_sub(since))
    }

    /// Whether it shall be parked now; otherwise sees to it that it is asked again.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        if !self.engine.parking.on() || self.seat.is_taken() {
            return false;
        }
        self.follow(now);
        let (left, used) = (self.left.load(Relaxed), self.used(now));
        if left > used {
            self.engine.set(now.saturating_add(left - used));
            return false;
        }
        self.halts.store(false, Relaxed);
        self.parks.store(true, Relaxed);
        true
    }

    /// Goes into the round that is.
    fn follow(&self, now: u64) {
        let (round, run) = self.engine.parking.round();
        if self.round.xchg(round, Relaxed) != round {
            self.may_run(self.feed(run, now), now);
        }
    }

    /// For how long it may run in a round of `run`. In the first, that is what it has had too little of: of
    /// `stir_run`, in the last `park_max`, if its VM was awake for too short a time for it to get a CPU. And if its guest
    /// is one that halts, it may do so.
    fn feed(&self, run: u64, now: u64) -> u64 {
        let (config, oncpu) = (self.engine.config(), self.oncpu(now));
        if run == 0 && self.halts.load(Relaxed) {
            return config.stir_run.saturating_mul(TO_HALT);
        }
        let had = oncpu.saturating_sub(self.fed_oncpu.load(Relaxed));
        let lacks = config.stir_run.saturating_sub(had);
        let hungry = now.saturating_sub(self.fed.load(Relaxed)) >= config.park_max;
        if run == 0 && lacks != 0 && !hungry {
            return 0;
        }
        self.fed.store(now, Relaxed);
        self.fed_oncpu.store(oncpu, Relaxed);
        if run == 0 {
            lacks
        } else {
            run
        }
    }

    fn may_run(&self, time: u64, now: u64) {
        let left = time.saturating_add(self.used(now));
        self.left.store(left, Relaxed);
    }

    /// Its guest has halted.
    pub(crate) fn halted(&self) {
        self.halts.store(true, Relaxed);
    }

    /// KVM has woken it from a halt.
    pub(crate) fn unhalted(&self, now: u64) {
        let parking = &self.engine.parking;
        if !parking.on() {
            return;
        }
        let stir_run = self.engine.config().stir_run;
        self.follow(now);
        let left = self.left.load(Relaxed);
        if left < stir_run && parking.unhalted(now, stir_run) {
            self.may_run(stir_run, now);
        }
    }

    /// Whether its guest was given an interrupt since it was last parked, beside the one for which it ran: that may have
    /// come so late that the guest has not handled it, and nothing tells of it any more.
    fn has_late(&self) -> bool {
        let (_, run) = self.engine.parking.round();
        run != 0 && kvm::injections(self.vcpu) > self.injected.load(Relaxed) + 1
    }

    fn park(&self) {
        let (engine, parking) = (&self.engine, &self.engine.parking);
        let config = engine.config();
        if !sched::policy(current!()).is_fair() {
            return;
        }
        let over = || !parking.on() || parking.round().0 != self.round.load(Relaxed);
        let look = || match (over(), parking.is_knocked()) {
            (true, _) => Some(Parked::Stopped),
            (false, true) => Some(Parked::Kicked),
            (false, false) => None,
        };
        self.counted.store(false, Relaxed);
        self.seat.take();
        let end = now().saturating_add(config.park_max);
        // What came and has to wait, and until when: for no longer than it would without us knowing.
        let mut refused: Option<(Kick, u64)> = None;
        let mut late = self.has_late();
        let (why, run) = loop {
            let echo = parking.echo();
            let free = refused.map(|(_, free)| free);
            let until = end.min(echo.unwrap_or(end)).min(free.unwrap_or(end));
            let why = if mem::take(&mut late) {
                Parked::Pending
            } else {
                kvm::park(self.vcpu, until, refused.is_none(), &look)
            };
            let now = now();
            let kick = match (why, refused) {
                (Parked::Pending, _) => Kick::Pending,
                (Parked::Tick, _) => Kick::Timer,
                (Parked::Kicked, _) => Kick::Device,
                (Parked::Over, _) if echo.is_some_and(|at| at <= now) => Kick::Echo,
                (Parked::Over, Some((kick, _))) if until < end => kick,
                _ => break (why, config.stir_run),
            };
            if over() {
                break (why, config.stir_run);
            }
            match parking.kicked(kick, now, config.park_max, config.stir_run) {
                Ok(run) => break (why, run),
                Err(free) if refused.is_some_and(|(_, at)| now < at && at <= free) => {}
                Err(free) => refused = Some((kick, free)),
            }
        };
        if !over() {
            if !matches!(why, Parked::Outside | Parked::Signal) {
                engine.stir(run);
            } else if parking.unhalted(now(), run) {
                // Its VMM may have something for the guest.
                self.may_run(run, now());
            }
        }
        self.injected.store(kvm::injections(self.vcpu), Relaxed);
        self.follow(now());
        self.seat.leave();
        engine.set(now().saturating_add(run));
    }
}

impl Errand for Pause {
    fn run(&self) {
        if self.gives() {
            sched::give_up_turn();
        }
        // It may have been given a run since it was queued.
        if self.parks.xchg(false, Relaxed) && self.is_due(now()) {
            self.parks.store(false, Relaxed);
            self.park();
        }
    }
}
