// SPDX-License-Identifier: GPL-2.0-only

//! A thread's place in the scheduler.
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use super::bindings as helpers;
use kernel::{bindings, prelude::*, task::Task};

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

/// Sets the thread's nice value; out of range is clamped.
///
/// May be called in hard and soft interrupts too, but not under a runqueue's lock: takes the thread's
/// runqueue lock, and when this returns the thread has its new weight.
pub(crate) fn set_nice(task: &Task, nice: i32) {
    // SAFETY: The reference proves that the thread's descriptor is valid; for one that has exited the
    // call changes a number that nobody reads.
    unsafe { bindings::set_user_nice(task.as_ptr(), nice.clamp(-20, 19) as c_long) };
}
