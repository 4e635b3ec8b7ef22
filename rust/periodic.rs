// SPDX-License-Identifier: GPL-2.0-only

//! Work that is done again and again, and certainly not any more once it is dropped.
//!
//! The `kernel` crate's `DelayedWork` cannot be cancelled, so that a module that uses it cannot be unloaded.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ops::Deref;
use kernel::{bindings, container_of, prelude::*, static_lock_class, types::Opaque};

/// Something to do.
pub(crate) trait Work: Sized + Send + Sync + 'static {
    /// Does it, in process context; never twice at once. Returns in how many milliseconds to do it again,
    /// or `None` to wait for [`Periodic::kick`].
    fn run(this: &Periodic<Self>) -> Option<u32>;
}

/// A `T` that does its [`Work`] on the system's default workqueue.
///
/// To be dropped in process context, but not by the work itself: waits for work under way.
///
/// # Invariants
///
/// `work` is set up with `Self::run`, and pinned inside its `Periodic<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct Periodic<T: Work> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    #[pin]
    value: T,
}

// SAFETY: A work item belongs to no thread; `T` is `Send`.
unsafe impl<T: Work> Send for Periodic<T> {}
// SAFETY: Queueing is atomic; `T` is `Sync`.
unsafe impl<T: Work> Sync for Periodic<T> {}

impl<T: Work> Periodic<T> {
    /// Puts the work beside `value`; nothing is done before the first [`kick`](Self::kick).
    pub(crate) fn new<E>(value: impl PinInit<T, E>) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        try_pin_init!(Self {
            value <- value,
            work <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                let (work_class, timer_class) = (static_lock_class!(), static_lock_class!());
                // SAFETY: `slot` is valid for writing and stays where it is; this is what
                // INIT_DELAYED_WORK does.
                // INVARIANT: Set up with `run`.
                unsafe {
                    bindings::init_work_with_key(
                        &raw mut (*slot).work,
                        Some(Self::run),
                        false,
                        c"Periodic::work".as_char_ptr(),
                        work_class.as_ptr(),
                    );
                    bindings::timer_init_key(
                        &raw mut (*slot).timer,
                        Some(bindings::delayed_work_timer_fn),
                        bindings::TIMER_IRQSAFE,
                        c"Periodic::timer".as_char_ptr(),
                        timer_class.as_ptr(),
                    );
                }
            }),
        }? Error)
    }

    /// Does it in `milliseconds`, or earlier if that was planned. For process and softirq context.
    pub(crate) fn kick(&self, milliseconds: u32) {
        let delay = kernel::time::msecs_to_jiffies(milliseconds);
        // SAFETY: Set up by the type invariant, and cancelled before it is freed.
        unsafe {
            bindings::queue_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.work.get(),
                delay,
            )
        };
    }

    /// # Safety
    ///
    /// For the workqueue alone.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // The `work_struct` is the first field of the `delayed_work`.
        let work = Opaque::cast_from(work.cast::<bindings::delayed_work>().cast_const()).cast_mut();
        // SAFETY: By the type invariant `work` is in a `Periodic<T>`, which is not freed before this call
        // returns, since dropping it cancels the work.
        let this = unsafe { &*container_of!(work, Self, work) };
        if let Some(milliseconds) = T::run(this) {
            this.kick(milliseconds);
        }
    }
}

impl<T: Work> Deref for Periodic<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[pinned_drop]
impl<T: Work> PinnedDrop for Periodic<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Set up by the type invariant. Also stops work that queues itself.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}

#[kernel::macros::kunit_tests(sleepy_periodic)]
mod tests {
    use super::*;
    use kernel::{
        sync::{
            atomic::{Atomic, Relaxed},
            Arc,
        },
        time::{delay::fsleep, Delta},
    };

    /// Runs every millisecond, and counts somewhere that outlives it.
    struct Count(Arc<Atomic<u32>>);

    impl Work for Count {
        fn run(this: &Periodic<Self>) -> Option<u32> {
            this.0.add(1, Relaxed);
            Some(1)
        }
    }

    #[test]
    fn runs_when_kicked_again_and_again_and_not_after_the_drop() -> Result {
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let periodic = Arc::pin_init(Periodic::new(Count(count.clone())), GFP_KERNEL)?;
        fsleep(Delta::from_millis(20));
        assert_eq!(count.load(Relaxed), 0);
        periodic.kick(1);
        for _ in 0..500 {
            if count.load(Relaxed) >= 2 {
                break;
            }
            fsleep(Delta::from_millis(10));
        }
        assert!(count.load(Relaxed) >= 2);
        drop(periodic);
        let last = count.load(Relaxed);
        fsleep(Delta::from_millis(20));
        assert_eq!(count.load(Relaxed), last);
        Ok(())
    }
}
