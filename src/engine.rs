// SPDX-License-Identifier: GPL-2.0-only

//! What of a VM the hot paths need: its state machine, its threads, its statistics.

use crate::{
    act::{Act, Level, Lever, Room, ThreadState},
    policy::{
        machine::{Cause, Machine, Times},
        state::{Change, Event, State},
        Word,
    },
    rust::timed::{Expire, Timed},
    stats::Stats,
    turns::Turns,
    uapi,
};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        barrier::smp_mb,
        Arc, SpinLockIrq,
    },
    task::Task,
    time::{hrtimer::HrTimerExpires, Instant, Monotonic},
};

/// The word that the policy works on.
struct AtomicWord(Atomic<u64>);

impl Word for AtomicWord {
    fn new(value: u64) -> Self {
        Self(Atomic::new(value))
    }

    fn load(&self) -> u64 {
        self.0.load(Acquire)
    }

    fn store(&self, value: u64) {
        self.0.store(value, Release);
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.cmpxchg(old, new, Full).map(|_| ())
    }
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    Instant::<Monotonic>::now().as_nanos() as u64
}

/// The shared heart of a VM. Hooks, notifiers and the timer call into it from softirq, from within the
/// scheduler and from process context at once.
#[pin_data]
pub(crate) struct Engine {
    machine: Machine<AtomicWord>,
    /// Statistics.
    pub(crate) stats: Stats,
    /// When the request came that still waits for a vCPU to get a CPU; 0 if none does.
    trigger: Atomic<u64>,
    linger: Atomic<u64>,
    request_timeout: Atomic<u64>,
    max_sleep: Atomic<u64>,
    boosts: Atomic<bool>,
    /// Unset: every thread has its weight, and nobody is about to take any. Set before `act`'s holder looks
    /// at the state, so that a request that has made the state awake and finds this unset is done.
    lowered: Atomic<bool>,
    /// Who goes first.
    pub(crate) turns: Arc<Turns>,
    /// Taken with interrupts off, by everything but the notifiers. Under it, whoever has changed the state
    /// makes the threads be as the state *now* says: so the last one to come is right, in whatever order
    /// they come. Runqueue locks nest inside.
    #[pin]
    act: SpinLockIrq<Act>,
}

impl Engine {
    /// A VM that is awake, to be looked at for the first time after `linger`.
    pub(crate) fn new(policy: uapi::Policy, turns: Arc<Turns>) -> impl PinInit<Self> {
        let lever = Lever::new(&policy);
        pin_init!(Self {
            machine: Machine::new(now()),
            stats: Stats::new(),
            trigger: Atomic::new(0),
            linger: Atomic::new(policy.linger),
            request_timeout: Atomic::new(policy.request_timeout),
            max_sleep: Atomic::new(policy.max_sleep),
            boosts: Atomic::new(lever.boosts()),
            lowered: Atomic::new(false),
            act <- new_spinlock_irq!(Act::new(lever, turns.clone())),
            turns,
        })
    }

    fn times(&self) -> Times {
        Times {
            linger: self.linger.load(Relaxed),
            request_timeout: self.request_timeout.load(Relaxed),
            max_sleep: self.max_sleep.load(Relaxed),
        }
    }

    /// The state now.
    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// Makes the threads be as the state says, if a change asks for it.
    fn follow(&self, change: &Change) {
        self.stats.account(change);
        let (before, after) = (change.before, change.after);
        let boost_edge = self.boosts.load(Relaxed) && before.phase() != after.phase();
        if before.sleepy() != after.sleepy() || boost_edge {
            self.apply();
        }
    }

    fn level(&self) -> Level {
        let state = self.machine.state();
        if state.sleepy() {
            Level::Sleepy
        } else if state.in_flight() > 0 {
            Level::Boost
        } else {
            Level::Baseline
        }
    }

    fn apply(&self) {
        self.act(|act| act.set_level(self.level()));
    }

    fn act(&self, f: impl FnOnce(&mut Act)) {
        let mut act = self.act.lock();
        self.lowered.xchg(true, Full);
        f(&mut act);
        self.lowered.store(act.lowered(), Release);
    }

    /// Whether the threads have less than their weight.
    pub(crate) fn lowered(&self) -> bool {
        self.lowered.load(Relaxed)
    }

    /// A packet asks the VM for something. On return its threads have their weight.
    pub(crate) fn request(this: &Timed<Self>, hash: u32) {
        let now = now();
        this.stats.requests.add(1);
        let request = this.machine.request(hash, &this.times(), now);
        if request.overflow {
            this.stats.overflows.add(1);
        }
        if let Some(change) = request.change {
            this.requested(&change, now);
        }
        // Somebody else may be at it, having seen the state before this request: not before that is done.
        smp_mb(Full);
        if this.lowered() {
            this.apply();
        }
        if let Some(at) = request.timer {
            this.set(at);
        }
    }

    fn requested(&self, change: &Change, now: u64) {
        // Before the weight changes, lest the notifier come first.
        if change.before.on_cpu() > 0 {
            self.stats.trigger.record(0);
        } else {
            let _ = self.trigger.cmpxchg(0, now.max(1), Full);
        }
        if change.woke() {
            self.stats.wakes[uapi::WAKE_REQUEST].add(1);
        }
        self.follow(change);
    }

    /// A packet answers, or closes its flow.
    pub(crate) fn end(this: &Timed<Self>, hash: u32, cause: Cause) {
        let now = now();
        let response = cause == Cause::Response;
        if response {
            this.stats.responses.add(1);
        }
        let end = this.machine.end(hash, cause, &this.times(), now, |since| {
            if response {
                this.stats.exec.record(now.saturating_sub(since));
            }
        });
        if !response {
            this.stats.closed.add(end.flows);
        }
        if let Some(change) = end.change {
            this.follow(&change);
        }
        if let Some(at) = end.timer {
            this.set(at);
        }
    }

    /// A vCPU gets a CPU. From its notifier.
    pub(crate) fn run_in(&self, now: u64) {
        let change = self.machine.update(Event::RunIn, now);
        self.stats.account(&change);
        if self.trigger.load(Relaxed) != 0 {
            let since = self.trigger.xchg(0, Full);
            if since != 0 {
                self.stats.trigger.record(now.saturating_sub(since));
            }
        }
    }

    /// A vCPU leaves its CPU. From its notifier.
    pub(crate) fn run_out(&self, now: u64) {
        let change = self.machine.update(Event::RunOut, now);
        self.stats.account(&change);
    }

    /// Keeps the VM awake from now on.
    pub(crate) fn hold(&self) {
        let change = self.machine.update(Event::Hold, now());
        if change.woke() {
            self.stats.wakes[uapi::WAKE_ADMIN].add(1);
        }
        self.follow(&change);
    }

    /// Brings the accounts up to now.
    pub(crate) fn touch(&self) {
        self.stats
            .account(&self.machine.update(Event::Touch, now()));
    }

    /// Replaces the policy, which has been checked. The VM is awake for `linger` at least.
    pub(crate) fn set_policy(this: &Timed<Self>, policy: &uapi::Policy) {
        let lever = Lever::new(policy);
        this.linger.store(policy.linger, Relaxed);
        this.request_timeout.store(policy.request_timeout, Relaxed);
        this.max_sleep.store(policy.max_sleep, Relaxed);
        this.boosts.store(lever.boosts(), Relaxed);
        let change = this.machine.update(Event::Wake, now());
        if change.woke() {
            this.stats.wakes[uapi::WAKE_ADMIN].add(1);
        }
        this.follow(&change);
        this.act(|act| act.set_lever(lever));
        this.apply();
        Self::start(this);
    }

    /// Looks after the VM from now on.
    pub(crate) fn start(this: &Timed<Self>) {
        this.set(now().saturating_add(this.linger.load(Relaxed)));
    }

    /// Restores every thread and does nothing to any from now on.
    pub(crate) fn close(&self) {
        self.act(Act::close);
    }

    /// Takes a vCPU thread on. Callers are serialised by the owner.
    pub(crate) fn add_thread(&self, task: ARef<Task>) -> Result {
        let threads = self.act.lock().threads();
        let room = Room::new(threads + 1)?;
        let old = self.act.lock().add(task, room);
        drop(old);
        Ok(())
    }

    /// Restores a vCPU thread and lets go of it.
    pub(crate) fn remove_thread(&self, task: &Task) {
        let removed = self.act.lock().remove(task);
        drop(removed);
    }

    /// How a vCPU thread is.
    pub(crate) fn thread_state(&self, task: &Task) -> Option<ThreadState> {
        self.act.lock().state(task)
    }
}

impl Expire for Engine {
    fn expire(this: &Timed<Self>) {
        let now = now();
        let times = this.times();
        let tick = this.machine.tick(&times, now);
        if let Some(expiry) = tick.expiry {
            this.stats.timeouts.add(tick.lost);
            this.follow(&expiry);
        }
        if tick.change.woke() {
            this.stats.wakes[uapi::WAKE_STIR].add(1);
        } else if tick.change.fell_asleep() {
            this.stats.sleeps[tick.cause as usize].add(1);
        }
        this.follow(&tick.change);
        this.set(tick.next);
        if let Some(sooner) = this.machine.sooner(&times, now, tick.next) {
            this.set(sooner);
        }
    }
}
