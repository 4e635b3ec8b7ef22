// SPDX-License-Identifier: GPL-2.0-only

//! Carries decisions out: takes weight from a VM's vCPU threads, and gives it back.

pub(crate) mod group;
pub(crate) mod idle;
pub(crate) mod later;
mod nice;
pub(crate) mod park;

use crate::{
    engine,
    policy::boost::{Boost, Limit},
    rust::{
        sched::{self, Policy},
        worker::Queued,
    },
    turns::Turns,
    uapi,
};
use core::{ops::Range, ptr};
use kernel::{
    prelude::*,
    sync::{aref::ARef, Arc},
    task::Task,
};
use later::Later;
use nice::Nice;
use park::{Parking, Seat};

/// How much weight a VM's threads are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Taken away.
    Sleepy,
    /// What they had before we came.
    Baseline,
    /// More than that.
    Boost,
}

/// How weight is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Not at all.
    Observe,
    /// By nice values.
    Nice,
    /// By the policy `SCHED_IDLE`.
    Idle,
    /// By the control group, to this weight; 0 for an idle one.
    Group(u32),
    /// By waiting in place of running.
    Park,
}

/// What is configured about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lever {
    kind: Kind,
    /// Nice value while the VM is sleepy.
    sleepy: i32,
    /// Nice value while a request is in flight.
    boost: Option<i32>,
    limit: Limit,
}

impl Lever {
    /// The lever of a policy that has been checked.
    pub(crate) fn new(policy: &uapi::Policy) -> Self {
        let kind = match policy.lever {
            uapi::LEVER_NICE => Kind::Nice,
            uapi::LEVER_IDLE => Kind::Idle,
            uapi::LEVER_GROUP => Kind::Group(policy.sleepy_weight),
            uapi::LEVER_PARK => Kind::Park,
            _ => Kind::Observe,
        };
        // A thread's policy and its nice value are changed together: by the worker, or by nobody else.
        let boosts =
            !matches!(kind, Kind::Observe | Kind::Idle) && policy.flags & uapi::POLICY_BOOST != 0;
        Self {
            kind,
            sleepy: policy.sleepy_nice,
            boost: boosts.then_some(policy.boost_nice),
            limit: Limit {
                budget: policy.boost_budget,
                period: policy.boost_period,
            },
        }
    }

    /// None, between this one and another. What was used of a boost stays used.
    fn none(&self) -> Self {
        Self {
            kind: Kind::Observe,
            boost: None,
            ..*self
        }
    }

    /// Whether [`Level::Boost`] differs from [`Level::Baseline`].
    pub(crate) fn boosts(&self) -> bool {
        self.boost.is_some()
    }

    /// The nice value for a thread at this level, given what it had before.
    fn nice(&self, level: Level, baseline: i32) -> i32 {
        match (level, self.boost) {
            (Level::Sleepy, _) if self.kind == Kind::Nice => self.sleepy.max(baseline),
            (Level::Boost, Some(boost)) => boost.min(baseline),
            _ => baseline,
        }
    }

    /// Whether a level may have to wait for its time.
    pub(crate) fn is_limited(&self) -> bool {
        self.boosts() || self.is_later()
    }

    /// Whether some of it waits for process context.
    fn is_later(&self) -> bool {
        matches!(self.kind, Kind::Idle | Kind::Group(_))
    }
}

/// How a thread is seen from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadState {
    /// Its nice value now.
    pub(crate) nice: i32,
    /// What it was before we came, and will be when we go.
    pub(crate) baseline: i32,
    /// It is not what it was.
    pub(crate) moved: bool,
    /// An administrator has changed it meanwhile; it is left alone.
    pub(crate) foreign: bool,
}

/// A thread in its part as one vCPU's.
struct Thread {
    task: ARef<Task>,
    /// What was done to it; in the first of its parts, if it runs several vCPUs.
    nice: Option<Nice>,
    /// It has, or had, other parts.
    shared: bool,
    seat: Arc<Seat>,
}

impl Thread {
    fn bring(&mut self, lever: &Lever, level: Level, turns: &Turns) {
        if let Some(nice) = &mut self.nice {
            nice.set(&self.task, turns, |baseline| lever.nice(level, baseline));
        }
    }

    fn is(&self, task: &Task) -> bool {
        ptr::eq(&*self.task, task)
    }

    fn restore(&mut self, turns: &Turns) {
        if let Some(nice) = &mut self.nice {
            nice.set(&self.task, turns, |baseline| baseline);
        }
    }
}

/// A VM's vCPU threads and the level they are at.
///
/// Lives in a lock that packet hooks and timers take: what is done under it neither sleeps nor allocates.
pub(crate) struct Act {
    lever: Lever,
    level: Level,
    boost: Boost,
    threads: KVec<Thread>,
    turns: Arc<Turns>,
    parking: Arc<Parking>,
    later: Arc<Queued<Later>>,
    closed: bool,
}

/// Appends one with memory that was made before a lock was taken: `room` has place for all of them. It has what they were in
/// afterwards.
fn append<T>(all: &mut KVec<T>, new: T, room: &mut KVec<T>) {
    for one in Iterator::chain(all.drain_all(), [new]) {
        let fits = room.push_within_capacity(one).is_ok();
        debug_assert!(fits);
    }
    core::mem::swap(all, room);
}

/// Room for one more thread, made before the lock is taken.
pub(crate) struct Room(KVec<Thread>);

impl Room {
    /// Room for `threads` threads.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        Ok(Self(KVec::with_capacity(threads, GFP_KERNEL)?))
    }
}

impl Act {
    /// No threads, which are at the baseline.
    pub(crate) fn new(
        lever: Lever,
        turns: Arc<Turns>,
        parking: Arc<Parking>,
        later: Arc<Queued<Later>>,
    ) -> Self {
        Self {
            lever,
            level: Level::Baseline,
            boost: Boost::default(),
            threads: KVec::new(),
            turns,
            parking,
            later,
            closed: false,
        }
    }

    /// Brings every thread to `level`, or to the baseline if a boost, or the worker's time, is spent. On return each has the weight
    /// it shall have. Returns when to call it again at the latest. `woken` is when what has woken the VM was seen, if something has.
    pub(crate) fn set_level(&mut self, level: Level, now: u64, woken: Option<u64>) -> Option<u64> {
        let wanted = level == Level::Boost && self.lever.boosts();
        let (boosted, mut again) = self.boost.set(wanted, &self.lever.limit, now);
        let level = match level {
            Level::Boost if !boosted => Level::Baseline,
            Level::Sleepy if self.level != level && self.lever.is_later() => {
                again = self.later.is_spent(now);
                again.map_or(level, |_| Level::Baseline)
            }
            level => level,
        };
        if self.level != level && !self.closed {
            let wakes = self.level == Level::Sleepy;
            self.level = level;
            self.move_threads(wakes.then(|| woken.unwrap_or(now)));
        } else if level == Level::Boost && !self.closed {
            // One that nobody watched when the boost began may be watched now.
            self.bring_all();
        }
        if let Some(woken) = woken.filter(|_| self.wakes_at_once()) {
            self.later
                .effect
                .record(engine::now().saturating_sub(woken));
        }
        again
    }

    /// Whether a wake-up has had its effect.
    fn wakes_at_once(&self) -> bool {
        let at_once = matches!(self.lever.kind, Kind::Nice | Kind::Park);
        at_once && self.level != Level::Sleepy && !self.closed
    }

    /// Whether the threads shall be parked.
    fn parks(&self) -> bool {
        self.lever.kind == Kind::Park && self.level == Level::Sleepy && !self.closed
    }

    /// Has those that are parked look whether they still shall be.
    pub(crate) fn unpark(&self) {
        for thread in self.threads.iter().filter(|t| t.seat.is_taken()) {
            thread.task.wake_up();
        }
    }

    /// Has those that have a CPU look whether they shall be parked.
    pub(crate) fn look(&self) {
        for cpu in self.threads.iter().filter_map(|t| sched::cpu_of(&t.task)) {
            self.turns.cpus.call(cpu);
        }
    }

    /// Whether threads have less weight than they had before we came.
    pub(crate) fn lowered(&self) -> bool {
        let lowers = self.lever.kind != Kind::Observe;
        lowers && self.level == Level::Sleepy && !self.closed
    }

    /// `woken` is when the VM was woken, if that is why.
    fn move_threads(&mut self, woken: Option<u64>) {
        let parks = self.parks();
        if !parks {
            self.parking.end();
        }
        self.bring_all();
        if parks {
            self.parking.begin();
            self.look();
        } else {
            self.unpark();
        }
        if self.lever.is_later() {
            Later::want(&self.later, self.level == Level::Sleepy, woken);
        }
    }

    fn bring_all(&mut self) {
        self.bring(0..self.threads.len());
    }

    fn bring(&mut self, threads: Range<usize>) {
        for index in threads {
            let level = self.level_of(index);
            self.threads[index].bring(&self.lever, level, &self.turns);
        }
    }

    /// The level for a thread: while nobody watches what it makes, it is not boosted.
    fn level_of(&self, index: usize) -> Level {
        let thread = &self.threads[index];
        let is_watched = || {
            let mut same = self.parts(&thread.task).filter(|_| thread.shared);
            thread.seat.is_watched() || same.any(|t| t.seat.is_watched())
        };
        match self.level {
            Level::Boost if !is_watched() => Level::Baseline,
            level => level,
        }
    }

    /// Replaces the lever, through the baseline. Threads that an administrator had changed are taken on
    /// again, with the new value as baseline.
    pub(crate) fn set_lever(&mut self, lever: Lever) {
        if self.closed {
            return;
        }
        self.restore();
        for thread in &mut self.threads {
            if let Some(nice) = &mut thread.nice {
                *nice = Nice::new(&thread.task);
            }
        }
        self.lever = lever;
        self.move_threads(None);
    }

    /// Has none, until it is given one.
    pub(crate) fn drop_lever(&mut self) {
        self.set_lever(self.lever.none());
    }

    fn restore(&mut self) {
        self.parking.end();
        for thread in &mut self.threads {
            thread.restore(&self.turns);
        }
        self.unpark();
    }

    /// Restores every thread, and does nothing any more.
    pub(crate) fn close(&mut self) {
        self.restore();
        self.closed = true;
    }

    /// Whether a thread has a CPU or waits for one.
    pub(crate) fn runnable(&self) -> bool {
        self.threads.iter().any(|t| sched::runnable(&t.task))
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Takes a thread on, and brings it to the level of the others. `room` must be for one thread more than
    /// there are; what is returned is to be dropped outside of the lock.
    pub(crate) fn add(&mut self, task: ARef<Task>, seat: Arc<Seat>, mut room: Room) -> Room {
        let mut shared = false;
        for other in self.threads.iter_mut().filter(|t| t.is(&task)) {
            other.shared = true;
            shared = true;
        }
        let thread = Thread {
            nice: (!shared).then(|| Nice::new(&task)),
            task,
            shared,
            seat,
        };
        append(&mut self.threads, thread, &mut room.0);
        if !self.closed {
            self.bring(self.threads.len() - 1..self.threads.len());
        }
        room
    }

    /// Restores a thread and lets go of it; the reference is to be dropped outside of the lock.
    pub(crate) fn remove(&mut self, seat: &Arc<Seat>) -> Option<ARef<Task>> {
        let mut threads = self.threads.iter();
        let index = threads.position(|t| Arc::ptr_eq(&t.seat, seat))?;
        let mut thread = self.threads.remove(index).ok()?;
        let mut other = self.threads.iter_mut().find(|t| t.is(&thread.task));
        match &mut other {
            // It is there still.
            Some(other) if thread.nice.is_some() => other.nice = thread.nice,
            Some(_) => {}
            // When it was closed, it was restored: what the thread has now may be another VM's.
            None if self.closed => {}
            None => thread.restore(&self.turns),
        }
        Some(thread.task)
    }

    /// How a thread is.
    pub(crate) fn state(&self, seat: &Arc<Seat>) -> Option<ThreadState> {
        let mut threads = self.threads.iter();
        let task = &threads.find(|t| Arc::ptr_eq(&t.seat, seat))?.task;
        Some(self.nice(task)?.state(task))
    }

    /// `parent`, one of the threads, has made another, which begins with what that one has: it is to have the nice value that
    /// the parent would have without us. For its policy, see [`idle::forked`].
    pub(crate) fn forked(&self, parent: &Task, child: &Task) {
        if !sched::policy(parent).is_fair() {
            return;
        }
        let now = sched::nice(parent);
        let mut own = self.nice(parent).map_or(now, |nice| nice.own(now));
        if sched::resets_on_fork(parent) {
            own = own.max(0);
        }
        if sched::nice(child) != own {
            sched::set_nice(child, own);
        }
    }

    /// A thread's own scheduling policy, while it has ours.
    pub(crate) fn lent(&self, task: &Task) -> Option<Policy> {
        self.parts(task).find_map(|t| t.seat.lent())
    }

    fn parts<'a, 'b>(&'a self, task: &'b Task) -> impl Iterator<Item = &'a Thread> + use<'a, 'b> {
        self.threads.iter().filter(move |t| t.is(task))
    }

    fn nice(&self, task: &Task) -> Option<&Nice> {
        self.parts(task).find_map(|t| t.nice.as_ref())
    }
}
