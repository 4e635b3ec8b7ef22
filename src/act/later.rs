// SPDX-License-Identifier: GPL-2.0-only

//! What has to wait for process context: scheduling policies, and the weights of control groups.

use super::{append, group::Group, idle::Idle, park::Seat, Kind, Lever};
use crate::{
    engine::now,
    rust::{
        apart::apart,
        sched,
        worker::{Job, Queued, Worker},
    },
    stats::Histogram,
    turns::Turns,
    uapi,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Arc, Mutex,
    },
    task::Task,
};

/// The worker has this part of a CPU for a VM, and what a VM has not used of the last [`SAVED`] nanoseconds. Everybody waits for
/// the worker, and a guest may be sleepy and awake as often as it likes.
const PART: u64 = 64;
const SAVED: u64 = 1_000_000_000;
/// One change counts as no more than so many nanoseconds: it may have waited for somebody's lock, or the host for its hypervisor.
const LONGEST: u64 = 10_000_000;

/// A vCPU's thread. One that runs several is there as often, and has one account.
struct Thread {
    task: ARef<Task>,
    idle: Option<Idle>,
    seat: Arc<Seat>,
}

impl Thread {
    fn set(&mut self, idles: bool) {
        if let Some(idle) = &mut self.idle {
            idle.set(&self.task, &self.seat, idles);
        }
    }

    fn is(&self, task: &Task) -> bool {
        core::ptr::eq(&*self.task, task)
    }
}

struct Threads {
    /// By `SCHED_IDLE`.
    idles: bool,
    threads: KVec<Thread>,
}

struct Grouped {
    /// To this weight.
    sleepy: Option<u32>,
    /// The threads are queued anew when it has its weight back: nobody else of ours sets their nice values.
    requeues: bool,
    group: Option<Group>,
}

/// A VM's vCPU threads and its control group, as far as a worker changes them.
///
/// [`want`](Self::want) is for any context, the rest for process context. `threads` is taken within the locks of a VM,
/// and within `group`; `group`, under which files are read and written, never within RTNL or what is taken within that.
#[pin_data]
pub(crate) struct Later {
    /// The VM is sleepy.
    sleepy: Atomic<bool>,
    closed: Atomic<bool>,
    /// When the VM was woken, until the worker has carried that out; 0 if it has.
    woken: Atomic<u64>,
    /// Until then, what the VM had of the worker is to be made up for.
    spent: Atomic<u64>,
    /// From a wake-up to its effect, by the worker or at once.
    pub(crate) effect: Histogram,
    turns: Arc<Turns>,
    #[pin]
    threads: Mutex<Threads>,
    #[pin]
    group: Mutex<Grouped>,
}

impl Later {
    /// No threads and no group.
    pub(crate) fn new(worker: Arc<Worker>, turns: Arc<Turns>) -> Result<Arc<Queued<Self>>> {
        let threads = Threads {
            idles: false,
            threads: KVec::new(),
        };
        let group = Grouped {
            sleepy: None,
            requeues: false,
            group: None,
        };
        let later = pin_init!(Self {
            sleepy: Atomic::new(false),
            closed: Atomic::new(false),
            woken: Atomic::new(0),
            spent: Atomic::new(0),
            effect <- apart(Histogram::new),
            turns,
            threads <- new_mutex!(threads),
            group <- new_mutex!(group),
        });
        Arc::pin_init(Queued::new(worker, later), GFP_KERNEL)
    }

    /// Has the worker make the threads and the group be so; `woken` is when the VM was woken, if that is why. Of several
    /// calls, the last one counts. Not under a runqueue's lock.
    pub(super) fn want(this: &Queued<Self>, sleepy: bool, woken: Option<u64>) {
        // A boost that begins or ends is not the worker's affair.
        if this.sleepy.xchg(sleepy, Full) != sleepy || woken.is_some() {
            this.woken.store(woken.unwrap_or(0), Release);
            this.queue();
        }
    }

    /// Until when the VM keeps its weight, though it sleeps, if it has had too much of the worker.
    pub(super) fn is_spent(&self, now: u64) -> Option<u64> {
        let until = self.spent.load(Relaxed);
        (now < until).then_some(until)
    }

    fn spend(&self, time: u64, now: u64) {
        let from = self.spent.load(Relaxed).max(now.saturating_sub(SAVED));
        self.spent
            .store(from.saturating_add(time.min(LONGEST) * PART), Relaxed);
    }

    fn is_sleepy(&self) -> bool {
        self.sleepy.load(Acquire) && !self.closed.load(Acquire)
    }

    fn move_threads(&self, threads: &mut Threads) {
        let idles = self.is_sleepy() && threads.idles;
        for thread in &mut threads.threads {
            thread.set(idles);
        }
    }

    fn move_group(&self, grouped: &mut Grouped) {
        let weight = grouped.sleepy.filter(|_| self.is_sleepy());
        if let Some(group) = &mut grouped.group {
            group.set(weight);
        }
    }

    /// Leaves the threads' nice values alone from now on, until there is another lever.
    pub(crate) fn release(&self) {
        self.group.lock().requeues = false;
    }

    /// Replaces the lever and the group, through the baseline, and leaves it at that until it is told what the VM is. Nobody
    /// else of ours may set the threads' nice values meanwhile.
    pub(crate) fn set_lever(&self, lever: Lever, group: Option<Group>) {
        self.sleepy.store(false, Release);
        let mut grouped = self.group.lock();
        grouped.sleepy = None;
        self.move_group(&mut grouped);
        let mut threads = self.threads.lock();
        threads.idles = false;
        self.move_threads(&mut threads);
        for idle in threads.threads.iter_mut().filter_map(|t| t.idle.as_mut()) {
            *idle = Idle::new();
        }
        threads.idles = lever.kind == Kind::Idle;
        drop(threads);
        grouped.group = group;
        grouped.sleepy = match lever.kind {
            Kind::Group(weight) => Some(weight),
            _ => None,
        };
        grouped.requeues = grouped.sleepy.is_some() && !lever.boosts();
    }

    /// Restores everything, and does nothing any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
        self.release();
        self.follow();
    }

    /// What the group has now shall count for the threads that wait.
    fn requeue(&self) {
        let grouped = self.group.lock();
        if grouped.requeues {
            for thread in &self.threads.lock().threads {
                sched::requeue(&thread.task);
            }
        }
    }

    fn follow(&self) {
        self.move_threads(&mut self.threads.lock());
        self.move_group(&mut self.group.lock());
    }

    /// Takes a thread on. One caller at a time.
    pub(crate) fn add(&self, task: ARef<Task>, seat: Arc<Seat>) -> Result {
        // The worker does not wait for memory: there is enough before the lock is taken.
        let count = self.threads.lock().threads.len();
        let mut room = KVec::with_capacity(count + 1, GFP_KERNEL)?;
        let mut threads = self.threads.lock();
        let shared = threads.threads.iter().any(|t| t.is(&task));
        let thread = Thread {
            idle: (!shared).then(Idle::new),
            task,
            seat,
        };
        append(&mut threads.threads, thread, &mut room);
        self.move_threads(&mut threads);
        Ok(())
    }

    /// Whether a thread is as we have set it, and whether somebody else has changed that.
    pub(crate) fn thread(&self, seat: &Arc<Seat>) -> (bool, bool) {
        let threads = &self.threads.lock().threads;
        let Some(thread) = threads.iter().find(|t| Arc::ptr_eq(&t.seat, seat)) else {
            return (false, false);
        };
        let task = &thread.task;
        let mut parts = threads.iter().filter(|t| t.is(task));
        let idle = parts.find_map(|t| t.idle.as_ref());
        idle.map_or((false, false), |idle| {
            (idle.is_set(task), idle.is_foreign(task))
        })
    }

    /// The control group's inode and [`uapi::VmGet::flags_out`].
    pub(crate) fn describe(&self) -> (u64, u32) {
        // The files are read without the lock, and are not the worker's, lest that wait for a reader of low priority.
        let Some(group) = self.group.lock().group.as_ref().map(Group::seen) else {
            return (0, 0);
        };
        let has = |thread: &Thread| group.files.has(&thread.task);
        let left = !self.threads.lock().threads.iter().all(has);
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        (
            group.files.id(),
            flag(group.is_foreign(), uapi::VM_GROUP_FOREIGN) | flag(left, uapi::VM_GROUP_LEFT),
        )
    }

    /// Whether it has that group.
    pub(crate) fn has_group(&self, group: &Group) -> bool {
        let grouped = self.group.lock();
        grouped.group.as_ref().is_some_and(|own| own.is(group))
    }

    /// Restores a thread and lets go of it.
    pub(crate) fn remove(&self, seat: &Arc<Seat>) {
        let threads = &mut self.threads.lock().threads;
        let index = threads.iter().position(|t| Arc::ptr_eq(&t.seat, seat));
        let Some(Ok(mut thread)) = index.map(|index| threads.remove(index)) else {
            return;
        };
        match threads.iter_mut().find(|t| t.is(&thread.task)) {
            // It is there still.
            Some(other) => {
                if let Some(idle) = thread.idle {
                    idle.hand_over(&thread.seat, &other.seat);
                    other.idle = Some(idle);
                }
            }
            None => thread.set(false),
        }
    }
}

impl Job for Later {
    fn run(&self) {
        let began = now();
        // Before: what is wanted from now on is for the next time.
        let woken = self.woken.xchg(0, Full);
        self.follow();
        if woken != 0 {
            self.requeue();
            self.effect.record(now().saturating_sub(woken));
            for thread in &self.threads.lock().threads {
                self.turns.hurry(&thread.task);
            }
        }
        let ended = now();
        self.spend(ended.saturating_sub(began), ended);
    }
}
