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

/// If the thread waits for a CPU that another thread has, has that CPU look again now who should run, and
/// not at its next tick. Wakes nobody.
pub(crate) fn kick_waiting(task: &Task) {
    // SAFETY: The reference proves that the thread's descriptor is valid. Preemption is off in between.
    unsafe {
        helpers::sleepy_preempt_disable();
        helpers::sleepy_kick_waiting(task.as_ptr());
        helpers::sleepy_preempt_enable();
    }
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
