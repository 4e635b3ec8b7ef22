// SPDX-License-Identifier: GPL-2.0-only

//! Carries decisions out: takes weight from a VM's vCPU threads, and gives it back.

mod nice;

use crate::{rust::sched, turns::Turns, uapi};
use kernel::{
    prelude::*,
    sync::{aref::ARef, Arc},
    task::Task,
};
use nice::Nice;

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

/// What is configured about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lever {
    /// Nothing is changed.
    Observe,
    /// Nice values.
    Nice {
        /// While the VM is sleepy.
        sleepy: i32,
        /// While a request is in flight.
        boost: Option<i32>,
    },
}

impl Lever {
    /// The lever of a policy that has been checked.
    pub(crate) fn new(policy: &uapi::Policy) -> Self {
        match policy.lever {
            uapi::LEVER_NICE => Self::Nice {
                sleepy: policy.sleepy_nice,
                boost: (policy.flags & uapi::POLICY_BOOST != 0).then_some(policy.boost_nice),
            },
            _ => Self::Observe,
        }
    }

    /// Whether [`Level::Boost`] differs from [`Level::Baseline`].
    pub(crate) fn boosts(&self) -> bool {
        matches!(self, Self::Nice { boost: Some(_), .. })
    }

    /// The nice value for a thread at this level, given what it had before.
    fn nice(&self, level: Level, baseline: i32) -> i32 {
        match (*self, level) {
            (Self::Nice { sleepy, .. }, Level::Sleepy) => sleepy.max(baseline),
            (Self::Nice { boost: Some(n), .. }, Level::Boost) => n.min(baseline),
            _ => baseline,
        }
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

struct Thread {
    task: ARef<Task>,
    nice: Nice,
}

/// A VM's vCPU threads and the level they are at.
///
/// Lives in a lock that packet hooks and timers take: what is done under it neither sleeps nor allocates.
pub(crate) struct Act {
    lever: Lever,
    level: Level,
    threads: KVec<Thread>,
    turns: Arc<Turns>,
    closed: bool,
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
    pub(crate) fn new(lever: Lever, turns: Arc<Turns>) -> Self {
        Self {
            lever,
            level: Level::Baseline,
            threads: KVec::new(),
            turns,
            closed: false,
        }
    }

    /// Brings every thread to `level`. On return each has the weight it shall have.
    pub(crate) fn set_level(&mut self, level: Level) {
        if self.level == level || self.closed {
            return;
        }
        self.level = level;
        self.move_threads();
    }

    /// Whether threads have less weight than they had before we came.
    pub(crate) fn lowered(&self) -> bool {
        let lowers = self.lever != Lever::Observe;
        lowers && self.level == Level::Sleepy && !self.closed
    }

    fn move_threads(&mut self) {
        for thread in &mut self.threads {
            let (lever, level) = (self.lever, self.level);
            thread.nice.set(&thread.task, &self.turns, |baseline| {
                lever.nice(level, baseline)
            });
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
            thread.nice = Nice::new(&thread.task);
        }
        self.lever = lever;
        self.move_threads();
    }

    fn restore(&mut self) {
        for thread in &mut self.threads {
            thread
                .nice
                .set(&thread.task, &self.turns, |baseline| baseline);
        }
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
    pub(crate) fn add(&mut self, task: ARef<Task>, mut room: Room) -> Room {
        let mut thread = Thread {
            nice: Nice::new(&task),
            task,
        };
        if !self.closed {
            let (lever, level) = (self.lever, self.level);
            thread.nice.set(&thread.task, &self.turns, |baseline| {
                lever.nice(level, baseline)
            });
        }
        let mut fits = true;
        for old in self.threads.drain_all() {
            fits &= room.0.push_within_capacity(old).is_ok();
        }
        fits &= room.0.push_within_capacity(thread).is_ok();
        debug_assert!(fits);
        core::mem::swap(&mut self.threads, &mut room.0);
        room
    }

    /// Restores a thread and lets go of it; the reference is to be dropped outside of the lock.
    pub(crate) fn remove(&mut self, task: &Task) -> Option<ARef<Task>> {
        let index = self.threads.iter().position(|t| is(&t.task, task))?;
        let mut thread = self.threads.remove(index).ok()?;
        thread
            .nice
            .set(&thread.task, &self.turns, |baseline| baseline);
        Some(thread.task)
    }

    /// How a thread is.
    pub(crate) fn state(&self, task: &Task) -> Option<ThreadState> {
        self.threads
            .iter()
            .find(|t| is(&t.task, task))
            .map(|t| t.nice.state(&t.task))
    }
}

fn is(a: &Task, b: &Task) -> bool {
    core::ptr::eq(a, b)
}
