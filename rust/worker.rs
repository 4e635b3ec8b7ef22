// SPDX-License-Identifier: GPL-2.0-only

//! A thread that is scheduled ahead of all others but real-time ones that are more important still, and what it does.
//!
//! The `kernel` crate's work queues have threads of the fair scheduler, which wait for a CPU among the others.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use super::bindings as helpers;
use core::ops::Deref;
use kernel::{bindings, container_of, error::from_err_ptr, prelude::*, sync::Arc, types::Opaque};

/// A thread of the lowest real-time priority (`SCHED_FIFO`, 1).
///
/// To be dropped in process context, but not by the thread itself: waits for what is queued.
///
/// # Invariants
///
/// Is a worker of its own.
pub(crate) struct Worker(*mut bindings::kthread_worker);

// SAFETY: A worker may be used and destroyed by any thread.
unsafe impl Send for Worker {}
// SAFETY: Queueing takes the worker's own lock.
unsafe impl Sync for Worker {}

impl Worker {
    /// A thread with nothing to do.
    pub(crate) fn new(name: &CStr) -> Result<Arc<Self>> {
        // SAFETY: The name is copied.
        let worker = from_err_ptr(unsafe { helpers::sleepy_worker_create(name.as_char_ptr()) })?;
        // INVARIANT: Just made.
        Ok(Arc::new(Self(worker), GFP_KERNEL)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; whoever could queue something holds a reference to this.
        unsafe { bindings::kthread_destroy_worker(self.0) };
    }
}

/// Something that a worker does.
pub(crate) trait Job: Sized + Send + Sync + 'static {
    /// Does it, in the worker's thread; never twice at once.
    fn run(&self);
}

/// A `T` that a worker does.
///
/// To be dropped in process context, but not by the worker: waits for work under way.
///
/// # Invariants
///
/// `work` is set up with `Self::run`, and pinned inside its `Queued<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct Queued<T: Job> {
    #[pin]
    work: Opaque<bindings::kthread_work>,
    worker: Arc<Worker>,
    #[pin]
    value: T,
}

// SAFETY: A work item belongs to no thread; `T` is `Send`.
unsafe impl<T: Job> Send for Queued<T> {}
// SAFETY: Queueing is atomic; `T` is `Sync`.
unsafe impl<T: Job> Sync for Queued<T> {}

impl<T: Job> Queued<T> {
    /// Puts the work beside `value`.
    pub(crate) fn new<E>(
        worker: Arc<Worker>,
        value: impl PinInit<T, E>,
    ) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        try_pin_init!(Self {
            value <- value,
            // SAFETY: `slot` is valid for writing and stays where it is. INVARIANT: Set up with `run`.
            work <- Opaque::ffi_init(|slot| unsafe {
                helpers::sleepy_init_kthread_work(slot, Some(Self::run))
            }),
            worker,
        }? Error)
    }

    /// Has the worker do it soon, after this call and all that comes before it. For any context but those that hold a
    /// runqueue's lock and those that may not be interrupted.
    pub(crate) fn queue(&self) {
        // SAFETY: Both are set up by the type invariants, and `drop` cancels.
        unsafe { bindings::kthread_queue_work(self.worker.0, self.work.get()) };
    }

    /// # Safety
    ///
    /// For `work` alone.
    unsafe extern "C" fn run(work: *mut bindings::kthread_work) {
        let work = Opaque::cast_from(work.cast_const()).cast_mut();
        // SAFETY: By the type invariant `work` is in a `Queued<T>`, which is not freed before this call returns,
        // since dropping it waits.
        let this = unsafe { &*container_of!(work, Self, work) };
        T::run(&this.value);
    }
}

impl<T: Job> Deref for Queued<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[pinned_drop]
impl<T: Job> PinnedDrop for Queued<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Set up by the type invariant; nobody can queue it any more.
        unsafe { bindings::kthread_cancel_work_sync(self.work.get()) };
    }
}
