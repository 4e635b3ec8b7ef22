// SPDX-License-Identifier: GPL-2.0-only

//! What of a VM the hot paths need: its state machine, its threads, its statistics.

mod events;
mod packets;
pub(crate) mod pause;

use crate::{
    act::{
        group::Group,
        idle,
        later::Later,
        park::{Parking, Seat},
        Act, Level, Lever, Room, ThreadState,
    },
    policy::{
        machine::{Machine, Settings, Threads, Woke},
        state::{Change, Event, State},
        Word,
    },
    rust::{
        apart::apart,
        rcu_cell::RcuCell,
        series::{new_spinlock_irq, SpinLockIrq},
        timed::{Expire, Timed},
        worker::{Queued, Worker},
    },
    stats::Stats,
    turns::Turns,
    uapi,
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        rcu, Arc,
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

/// What an administrator has configured.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    settings: Settings,
    /// Bits of [`uapi::WAKE_EVENTS`].
    wake_on: u32,
    boosts: bool,
    /// The threads may have to be brought to their level later.
    limited: bool,
    park_max: u64,
    stir_run: u64,
}

impl Config {
    /// That of a policy that has been checked.
    pub(crate) fn new(policy: &uapi::Policy) -> Self {
        let lever = Lever::new(policy);
        Self {
            settings: Settings {
                linger: policy.linger,
                request_timeout: policy.request_timeout,
                max_sleep: policy.max_sleep,
                quiet: policy.quiet,
                spin: policy.spin,
                timer_slack: policy.timer_slack,
                sleep_on: policy.sleep_on,
            },
            wake_on: policy.wake_on,
            boosts: lever.boosts(),
            limited: lever.is_limited(),
            park_max: policy.park_max,
            stir_run: policy.stir_run,
        }
    }

    fn wakes(&self, cause: usize) -> bool {
        self.wake_on >> cause & 1 == 1
    }

    fn sleeps(&self, cause: usize) -> bool {
        self.settings.sleep_on >> cause & 1 == 1
    }

    /// Whether I/O other than that of rules is of interest.
    fn minds_io(&self) -> bool {
        self.sleeps(uapi::SLEEP_SPIN) || self.sleeps(uapi::SLEEP_QUIET)
    }
}

/// The shared heart of a VM. Hooks, notifiers, probes and the timer call into it from softirq, from within the
/// scheduler, from KVM and from process context at once.
#[pin_data]
pub(crate) struct Engine {
    machine: Machine<AtomicWord>,
    /// Statistics.
    pub(crate) stats: Stats,
    /// When the request came that still waits for a vCPU to get a CPU; 0 if none does.
    trigger: Atomic<u64>,
    /// When what has woken the VM was seen, if that is to be carried out by [`poked`](Expire::poked); 0 otherwise.
    poked: Atomic<u64>,
    config: RcuCell<Config>,
    /// Number of vCPU threads that are watched. One that is not has not run since we came.
    vcpus: Atomic<u64>,
    /// The second in which the guest last gave a hint, and how many it gave in it.
    hints: Atomic<u64>,
    /// Unset: every thread has its weight, and nobody is about to take any. Set before `act`'s holder looks
    /// at the state, so that a request that has made the state awake and finds this unset is done.
    lowered: Atomic<bool>,
    /// Who goes first.
    pub(crate) turns: Arc<Turns>,
    /// Whether the threads are to be parked.
    parking: Arc<Parking>,
    /// What a worker does.
    pub(crate) later: Arc<Queued<Later>>,
    /// Taken with interrupts off, by everything but notifiers and probes. Under it, whoever has changed the state
    /// makes the threads be as the state *now* says: so the last one to come is right, in whatever order
    /// they come. Runqueue locks nest inside.
    #[pin]
    act: SpinLockIrq<Act>,
}

impl Engine {
    /// A VM that is awake, to be looked at for the first time after `linger`.
    pub(crate) fn new(
        policy: &uapi::Policy,
        config: KBox<Config>,
        turns: Arc<Turns>,
        worker: Arc<Worker>,
    ) -> Result<impl PinInit<Self>> {
        let lever = Lever::new(policy);
        let parking = Parking::new()?;
        let later = Later::new(worker, turns.clone())?;
        Ok(pin_init!(Self {
            machine <- apart(|| Machine::new(now())),
            stats <- apart(Stats::new),
            trigger: Atomic::new(0),
            poked: Atomic::new(0),
            config: RcuCell::new(config),
            vcpus: Atomic::new(0),
            hints: Atomic::new(0),
            lowered: Atomic::new(false),
            act <- new_spinlock_irq!(Act::new(lever, turns.clone(), parking.clone(), later.clone())),
            turns,
            parking,
            later,
        }))
    }

    /// Lets the threads that are parked run for `run` nanoseconds.
    fn stir(&self, run: u64) {
        let act = self.act.lock();
        self.parking.stir(run);
        act.unpark();
    }

    fn config(&self) -> Config {
        *self.config.read(&rcu::read_lock())
    }

    /// The state now.
    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// Makes the threads be as the state says, if a change asks for it. What brought that about was seen at the time `now`.
    fn follow(this: &Timed<Self>, change: &Change, now: u64) {
        this.stats.account(change);
        let (before, after) = (change.before, change.after);
        let boost_edge = before.phase() != after.phase() && this.config().boosts;
        if before.sleepy() != after.sleepy() || boost_edge {
            Self::apply(this, change.woke().then_some(now));
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

    /// Makes the threads be as the state says. `woken` is when what has woken the VM was seen, for whoever has done that: so
    /// each wake-up is measured once, even if somebody else carries it out.
    fn apply(this: &Timed<Self>, woken: Option<u64>) {
        if let Some(again) = this.act(|act| act.set_level(this.level(), now(), woken)) {
            this.set(again);
        }
    }

    fn act<R>(&self, f: impl FnOnce(&mut Act) -> R) -> R {
        let mut act = self.act.lock();
        self.lowered.xchg(true, Full);
        let result = f(&mut act);
        self.lowered.store(act.lowered(), Release);
        result
    }

    /// Whether the threads have less than their weight.
    pub(crate) fn lowered(&self) -> bool {
        self.lowered.load(Relaxed)
    }

    /// A vCPU gets a CPU. From its notifier.
    pub(crate) fn run_in(&self, now: u64) {
        let change = self.machine.update(Event::RunIn, now);
        self.stats.account(&change);
        if self.trigger.load(Relaxed) != 0 {
            let since = self.trigger.xchg(0, Full);
            if since != 0 {
                self.stats.trigger.record(now.saturating_sub(since));
                self.stats.last.ran(now.max(since));
            }
        }
    }

    /// A vCPU leaves its CPU. From its notifier.
    pub(crate) fn run_out(&self, now: u64) {
        let change = self.machine.update(Event::RunOut, now);
        self.stats.account(&change);
    }

    fn threads(&self) -> Threads {
        let vcpus = self.vcpus.load(Relaxed);
        // One that had halted may have been woken, and wait for its CPU.
        let halted = self.machine.idle.since(vcpus).is_some() && !self.act.lock().runnable();
        Threads {
            vcpus: if halted { vcpus } else { 0 },
            oncpu: self.stats.oncpu(),
        }
    }

    /// A vCPU is watched from now on. From its notifier.
    pub(crate) fn watched(this: &Timed<Self>) {
        this.vcpus.add(1, Relaxed);
        if this.config().boosts {
            // A boost has waited for that.
            this.poke();
        }
    }

    /// A vCPU is not watched any more. From its notifier.
    pub(crate) fn unwatched(&self) {
        self.vcpus.fetch_sub(1, Relaxed);
    }

    /// A vCPU has halted. From its notifier.
    pub(crate) fn halted(&self, now: u64) {
        self.machine.idle.halt(now);
    }

    /// A vCPU that had halted runs again. From its notifier.
    pub(crate) fn unhalted(&self, now: u64) {
        self.machine.idle.run(now);
    }

    /// Keeps the VM awake from now on.
    pub(crate) fn hold(this: &Timed<Self>) {
        let now = now();
        let change = this.machine.update(Event::Hold, now);
        if change.woke() {
            this.stats.wakes[uapi::WAKE_ADMIN].add(1);
        }
        Self::follow(this, &change, now);
    }

    /// Brings the accounts up to now.
    pub(crate) fn touch(&self) {
        self.stats
            .account(&self.machine.update(Event::Touch, now()));
    }

    /// Replaces the policy, which has been checked. The VM is awake for `linger` at least.
    pub(crate) fn set_policy(
        this: &Timed<Self>,
        policy: &uapi::Policy,
        config: KBox<Config>,
        group: Option<Group>,
    ) {
        drop(this.config.replace(config));
        let lever = Lever::new(policy);
        let now = now();
        let change = this.machine.update(Event::Wake, now);
        if change.woke() {
            this.stats.wakes[uapi::WAKE_ADMIN].add(1);
        }
        Self::follow(this, &change, now);
        this.later.release();
        // A thread's policy is changed while nobody sets its nice value.
        this.act(Act::drop_lever);
        this.later.set_lever(lever, group);
        this.act(|act| act.set_lever(lever));
        Self::apply(this, None);
        Self::start(this);
    }

    /// Looks after the VM from now on.
    pub(crate) fn start(this: &Timed<Self>) {
        let settings = this.config().settings;
        let soon = settings.linger.min(settings.request_timeout);
        this.set(now().saturating_add(soon));
    }

    /// Restores every thread and does nothing to any from now on.
    pub(crate) fn close(&self) {
        self.act(Act::close);
    }

    /// Takes a vCPU thread on. `E2BIG` if there are [`uapi::MAX_VCPUS`], `ENOMEM`. Callers are serialised by the owner.
    pub(crate) fn add_thread(&self, task: ARef<Task>, seat: Arc<Seat>) -> Result {
        let threads = self.act.lock().threads();
        if threads >= uapi::MAX_VCPUS as usize {
            return Err(E2BIG);
        }
        let room = Room::new(threads + 1)?;
        self.later.add(task.clone(), seat.clone())?;
        let old = self.act.lock().add(task, seat, room);
        drop(old);
        Ok(())
    }

    /// Restores a vCPU thread and lets go of it.
    pub(crate) fn remove_thread(&self, seat: &Arc<Seat>) {
        let removed = self.act.lock().remove(seat);
        drop(removed);
        self.later.remove(seat);
    }

    /// A vCPU thread, the current one, has made another, which has not run yet.
    pub(crate) fn forked(&self, seat: &Seat, child: &Task) {
        let act = self.act.lock();
        act.forked(current!(), child);
        let lent = act.lent(current!());
        drop(act);
        // Whoever lets go of it gives its policy back later.
        idle::forked(current!(), lent.or(seat.lent()), child);
    }

    /// How a vCPU thread is.
    pub(crate) fn thread_state(&self, seat: &Arc<Seat>) -> Option<ThreadState> {
        let state = self.act.lock().state(seat)?;
        let (moved, foreign) = self.later.thread(seat);
        Some(ThreadState {
            moved: state.moved || moved,
            foreign: state.foreign || foreign,
            ..state
        })
    }
}

impl Expire for Engine {
    fn expire(this: &Timed<Self>) {
        let now = now();
        let config = this.config();
        let settings = config.settings;
        // Only what is on a CPU now has time that is not booked yet.
        this.touch();
        let threads = this.threads();
        let tick = this.machine.tick(&settings, &threads, now);
        this.stats.timeouts.add(tick.lost);
        if let Some(woke) = tick.woke {
            let cause = match woke {
                Woke::Stir => uapi::WAKE_STIR,
                Woke::Timer => uapi::WAKE_TIMER,
                Woke::Answer => uapi::WAKE_ANSWER,
            };
            this.stats.wakes[cause].add(1);
        }
        if let Some(cause) = tick.slept {
            this.stats.sleeps[cause as usize].add(1);
        }
        for change in tick.changes.iter().flatten() {
            Self::follow(this, change, now);
        }
        this.set(tick.next);
        if config.limited {
            Self::apply(this, None);
        }
        if this.parking.on() {
            this.act.lock().look();
        }
    }

    fn poked(this: &Timed<Self>) {
        let woken = this.poked.xchg(0, Full);
        Self::apply(this, (woken != 0).then_some(woken));
        if this.state().sleepy() {
            // A timer of the guest has fired, the guest sleeps by a hint, or a thread has come: the machine knows for how long.
            this.set(now());
        } else {
            Self::start(this);
        }
    }
}
