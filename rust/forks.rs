// SPDX-License-Identifier: GPL-2.0-only

//! Threads that are made by watched ones.

use super::{cpus::Cpus, preempt_notifier::Observer, probe::Probe, series::EOPNOTSUPP};
use kernel::{bindings, prelude::*, sync::Arc, task::Task};

/// Sees what its thread makes.
pub(crate) trait Parent: Observer {
    /// The thread, which is the current one, has made another, of its process or as one of its own, which has not run yet.
    /// In process context; must not sleep.
    fn forks(&self, child: &Task);
}

/// Has [`Parent::forks`] called, if this kernel shows it.
///
/// To be dropped in process context: waits for calls under way.
pub(crate) struct Forks<T: Parent> {
    // Before what it uses.
    _probe: Option<Probe>,
    _cpus: Arc<Cpus<T>>,
}

impl<T: Parent> Forks<T> {
    /// Of the threads that can be reached through `cpus`.
    pub(crate) fn new(cpus: Arc<Cpus<T>>) -> Result<Self> {
        let data = Arc::as_ptr(&cpus).cast_mut().cast();
        let function = Self::task_newtask as *mut c_void;
        // SAFETY: It has the prototype, and takes `cpus`, which is dropped after the probe.
        let probe = match unsafe { Probe::tracepoint(c"task_newtask", function, data) } {
            Ok(probe) => Some(probe),
            Err(error) if error == EOPNOTSUPP => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            _probe: probe,
            _cpus: cpus,
        })
    }

    /// # Safety
    ///
    /// For the tracepoint alone.
    unsafe extern "C" fn task_newtask(
        data: *mut c_void,
        child: *mut bindings::task_struct,
        _flags: u64,
    ) {
        // SAFETY: What the probe was registered with; it is unregistered before that is dropped.
        let cpus = unsafe { &*data.cast::<Cpus<T>>() };
        // SAFETY: `Task` is a transparent wrapper, and the thread is valid until it runs, after this call.
        let child = unsafe { &*child.cast_const().cast::<Task>() };
        cpus.with_own(|observer| observer.forks(child));
    }
}
