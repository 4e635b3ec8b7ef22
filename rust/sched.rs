// SPDX-License-Identifier: GPL-2.0-only

//! A thread's place in the scheduler.
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use super::bindings as helpers;
use kernel::{bindings, error::to_result, prelude::*, task::Task};

/// The thread's nice value, -20 to 19.
pub(crate) fn nice(task: &Task) -> i32 {
    // SAFETY: The reference proves that the thread's descriptor is valid.
    unsafe { helpers::sleepy_task_nice(task.as_ptr()) }
}

/// Whether the thread has a CPU or waits for one, as it was a moment ago.
pub(crate) fn runnable(task: &Task) -> bool {
    // SAFETY: The reference proves that the thread's descriptor is valid.
    unsafe { helpers::sleepy_task_on_rq(task.as_ptr()) }
}

/// The CPU that the thread waits for and another thread has, as it was a moment ago.
pub(crate) fn cpu_waited_for(task: &Task) -> Option<u32> {
    // SAFETY: The reference proves that the thread's descriptor is valid.
    u32::try_from(unsafe { helpers::sleepy_cpu_waited_for(task.as_ptr()) }).ok()
}

/// The CPU that the thread has, as it was a moment ago.
pub(crate) fn cpu_of(task: &Task) -> Option<u32> {
    // SAFETY: The reference proves that the thread's descriptor is valid.
    u32::try_from(unsafe { helpers::sleepy_cpu_of(task.as_ptr()) }).ok()
}

/// Whether what the thread makes begins with no more than nice value 0 (`SCHED_FLAG_RESET_ON_FORK`).
pub(crate) fn resets_on_fork(task: &Task) -> bool {
    // SAFETY: The reference proves that the thread's descriptor is valid.
    unsafe { helpers::sleepy_task_resets_on_fork(task.as_ptr()) }
}

/// A thread's scheduling policy, `SCHED_*` of sched(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy(u32);

impl Policy {
    /// `SCHED_IDLE`.
    pub(crate) const IDLE: Self = Self(bindings::SCHED_IDLE);

    /// Whether the fair scheduler is in charge: it is neither a real-time nor a deadline thread, nor a BPF scheduler's.
    pub(crate) fn is_fair(self) -> bool {
        matches!(
            self.0,
            bindings::SCHED_NORMAL | bindings::SCHED_BATCH | bindings::SCHED_IDLE
        )
    }

    /// Its number.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The one with this number.
    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// The thread's scheduling policy.
pub(crate) fn policy(task: &Task) -> Policy {
    // SAFETY: The reference proves that the thread's descriptor is valid.
    Policy(unsafe { helpers::sleepy_task_policy(task.as_ptr()) })
}

/// Sets the thread's scheduling policy to that of a fair thread; its nice value and its slice stay. For process context; does
/// not sleep.
pub(crate) fn set_policy(task: &Task, policy: Policy) -> Result {
    if !policy.is_fair() {
        return Err(EINVAL);
    }
    // SAFETY: The reference proves that the thread's descriptor is valid; the caller is in process context.
    to_result(unsafe { helpers::sleepy_task_set_policy(task.as_ptr(), policy.0) })
}

/// Has the thread queued anew, if it waits for a CPU.
///
/// Linux 7.3 has all fair threads of a CPU in one queue, each with the weight that its own and its groups' came to when it was queued
/// or last ran: what a group has had since then counts for one that waits after this, and not before.
///
/// For process context, and nobody who knows of this thread may set its nice value at the same time: it has another for a moment.
pub(crate) fn requeue(task: &Task) {
    if cpu_waited_for(task).is_none() || !policy(task).is_fair() {
        return;
    }
    let old = nice(task);
    let other = if old < 19 { old + 1 } else { old - 1 };
    set_nice(task, other);
    // An administrator may be quicker.
    if nice(task) == other {
        set_nice(task, old);
    }
}

/// Gives up the current thread's turn, as sched_yield(2) does. For a task_work.
pub(crate) fn give_up_turn() {
    // SAFETY: The caller may sleep.
    unsafe { bindings::yield_() };
}

/// Sets the thread's nice value; out of range is clamped.
///
/// May be called in hard and soft interrupts too, but not under a runqueue's lock: takes the thread's
/// runqueue lock, and when this returns the thread has its new weight.
pub(crate) fn set_nice(task: &Task, nice: i32) {
    // SAFETY: The reference proves that the thread's descriptor is valid; for one that has exited the
    // call changes a number that nobody reads.
    unsafe { bindings::set_user_nice(task.as_ptr(), nice.clamp(-20, 19) as c_long) };
}
