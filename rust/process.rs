// SPDX-License-Identifier: GPL-2.0-only

//! Processes.
//!
//! C header: [`include/linux/pid.h`](srctree/include/linux/pid.h)

use super::bindings as helpers;
use core::ptr::NonNull;
use kernel::{bindings, prelude::*, sync::aref::ARef, task::Task};

/// Takes over a reference to a thread.
///
/// # Safety
///
/// Unless null, `task` must be valid, with a reference that is the caller's to give away.
pub(super) unsafe fn task_from_raw(task: *mut bindings::task_struct) -> Option<ARef<Task>> {
    // SAFETY: `Task` is a transparent wrapper, and by the safety requirement the reference is ours.
    NonNull::new(task).map(|task| unsafe { ARef::from_raw(task.cast()) })
}

/// Thread id in the calling process's PID namespace, 0 if the thread is not in there.
pub(crate) fn tid(task: &Task) -> u32 {
    // SAFETY: The thread is valid; a null namespace means the caller's.
    let tid = unsafe {
        bindings::__task_pid_nr_ns(
            task.as_ptr(),
            bindings::pid_type_PIDTYPE_PID,
            core::ptr::null_mut(),
        )
    };
    u32::try_from(tid).unwrap_or(0)
}

/// Whether the thread is on its way out: it may have let go of its files.
pub(crate) fn is_exiting(task: &Task) -> bool {
    // SAFETY: Valid by its reference.
    unsafe { helpers::sleepy_task_is_exiting(task.as_ptr()) }
}

/// A process that may be gone: it holds the number, never the process. A number that is held here is not
/// given to another process by this name: [`Process::thread`] finds the old one or nobody.
///
/// # Invariants
///
/// Owns a reference to it.
pub(crate) struct Process(NonNull<bindings::pid>);

// SAFETY: A `struct pid` belongs to no thread.
unsafe impl Send for Process {}
// SAFETY: Its references are counted atomically, and looking up its process is protected by RCU.
unsafe impl Sync for Process {}

impl Process {
    /// The process with this number in the calling process's PID namespace. `ESRCH` if there is none.
    pub(crate) fn find(pid: u32) -> Result<Self> {
        let number = i32::try_from(pid).map_err(|_| ESRCH)?;
        // SAFETY: May be called in process context with any number.
        let pid = unsafe { bindings::find_get_pid(number) };
        // INVARIANT: The call took a reference.
        let process = Self(NonNull::new(pid).ok_or(ESRCH)?);
        process.thread().ok_or(ESRCH)?;
        Ok(process)
    }

    /// A thread of the process that is not exiting; `None` once the process is on its way out.
    pub(crate) fn thread(&self) -> Option<ARef<Task>> {
        // SAFETY: Valid by the type invariant; what is returned has a reference for us.
        unsafe { task_from_raw(helpers::sleepy_live_thread(self.0.as_ptr())) }
    }

    /// Asks a thread of the process; and another one, if that is on its way out and has no answer: it may have let go of its
    /// files. `ESRCH` if there is none, `EAGAIN` if too many of them were like that.
    pub(crate) fn ask<R>(&self, mut f: impl FnMut(&Task) -> Result<R>) -> Result<R> {
        const MOST: u32 = 8;
        for _ in 0..MOST {
            let thread = self.thread().ok_or(ESRCH)?;
            let answer = f(&thread);
            if answer.is_ok() || !is_exiting(&thread) {
                return answer;
            }
        }
        Err(EAGAIN)
    }

    /// When it started, in clock ticks after boot, as field 22 of `/proc/PID/stat` has it.
    pub(crate) fn start_ticks(&self) -> Option<u64> {
        let thread = self.thread()?;
        // SAFETY: Valid by its reference.
        Some(unsafe { helpers::sleepy_process_start_ticks(thread.as_ptr()) })
    }

    /// Its number in the calling process's PID namespace, 0 if it is not in there.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: Valid by the type invariant.
        let number = unsafe { bindings::pid_vnr(self.0.as_ptr()) };
        u32::try_from(number).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::put_pid(self.0.as_ptr()) };
    }
}

#[kernel::macros::kunit_tests(sleepy_process)]
mod tests {
    use super::*;

    #[test]
    fn finds_init_and_not_a_number_that_cannot_be() -> Result {
        let init = Process::find(1)?;
        assert_eq!(init.number(), 1);
        assert!(init.start_ticks().is_some());
        assert!(init.thread().is_some());
        assert!(Process::find(0).is_err());
        assert!(Process::find(u32::MAX).is_err());
        Ok(())
    }
}
