// SPDX-License-Identifier: GPL-2.0-only

//! A value with a timer that any context may set anew, and an interrupt that any context may raise.
//!
//! The `kernel` crate's `HrTimer` ties each start to a handle that cancels when it is dropped; a timer
//! that hooks on several CPUs set again and again has no place for such handles.
//!
//! C headers: [`include/linux/hrtimer.h`](srctree/include/linux/hrtimer.h),
//! [`include/linux/irq_work.h`](srctree/include/linux/irq_work.h)

use super::{
    bindings as helpers,
    preempt::PreemptOff,
    series::{smp_mb, HRTIMER_NORESTART},
};
use core::ops::Deref;
use kernel::{
    bindings, container_of,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
    types::Opaque,
};

/// The timer is not set.
const NEVER: u64 = u64::MAX;

/// Something that has deadlines.
pub(crate) trait Expire: Sized + Send + Sync + 'static {
    /// The time that was set has come. In softirq context; may set the timer anew.
    fn expire(this: &Timed<Self>);
    /// [`Timed::poke`] was called. In a hard interrupt, or on PREEMPT_RT in a thread; may set the timer.
    fn poked(this: &Timed<Self>);
}

/// A `T` with a timer on the monotonic clock.
///
/// To be dropped in process context: waits for calls of [`Expire::expire`] and [`Expire::poked`] under way.
///
/// # Invariants
///
/// - `timer` is set up with `Self::run`, `work` with `Self::interrupt`, and both are pinned inside their `Timed<T>`.
/// - Unless `due` is [`NEVER`], the timer is set to it, or somebody is about to do so.
#[pin_data(PinnedDrop)]
pub(crate) struct Timed<T: Expire> {
    #[pin]
    timer: Opaque<bindings::hrtimer>,
    due: Atomic<u64>,
    #[pin]
    work: Opaque<bindings::irq_work>,
    #[pin]
    value: T,
}

// SAFETY: A timer belongs to no thread; `T` is `Send`.
unsafe impl<T: Expire> Send for Timed<T> {}
// SAFETY: `set` may be called by several CPUs at once, the timer has its own lock; `T` is `Sync`.
unsafe impl<T: Expire> Sync for Timed<T> {}

impl<T: Expire> Timed<T> {
    /// Puts a timer, not set, beside `value`.
    pub(crate) fn new<E>(value: impl PinInit<T, E>) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        try_pin_init!(Self {
            value <- value,
            due: Atomic::new(NEVER),
            // SAFETY: `slot` is valid for writing and will stay where it is. INVARIANT: Set up with `interrupt`.
            work <- Opaque::ffi_init(|slot| unsafe {
                helpers::sleepy_init_irq_work(slot, Some(Self::interrupt))
            }),
            timer <- Opaque::ffi_init(|slot: *mut bindings::hrtimer| {
                // SAFETY: `slot` is valid for writing and will stay where it is.
                // INVARIANT: Set up with `run`.
                unsafe {
                    bindings::hrtimer_setup(
                        slot,
                        Some(Self::run),
                        bindings::CLOCK_MONOTONIC as bindings::clockid_t,
                        bindings::hrtimer_mode_HRTIMER_MODE_ABS_SOFT,
                    )
                }
            }),
        }? Error)
    }

    /// Has [`Expire::expire`] called at `at`, in nanoseconds of the monotonic clock, or before, if that is what the
    /// timer was set to. For any context but those that hold a runqueue's lock.
    pub(crate) fn set(&self, at: u64) {
        // Others rely on whoever has changed `due` to start the timer, so that must not wait for its CPU in between.
        let _off = PreemptOff::new();
        // Either the call that is due sees what the caller has done before, or `due` is found as it will be after it.
        smp_mb(Full);
        let mut due = self.due.load(Relaxed);
        loop {
            if due <= at {
                return;
            }
            match self.due.cmpxchg(due, at, Full) {
                Ok(_) => break,
                Err(seen) => due = seen,
            }
        }
        // INVARIANT: This is somebody. Of several at once, the last to start it may be one with a later time;
        // and one may be late itself, and start what has fired meanwhile.
        let mut at = at;
        while at != NEVER {
            self.start_timer(at);
            match self.due.load(Acquire) {
                due if due == at => break,
                due => at = due,
            }
        }
    }

    fn start_timer(&self, at: u64) {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        // SAFETY: The timer is set up by the type invariant, and cancelled before it is freed.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.timer.get(),
                at,
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_ABS_SOFT,
            )
        };
    }

    /// Has [`Expire::poked`] called soon, on this CPU. For any context, even one that may take no lock.
    pub(crate) fn poke(&self) {
        // SAFETY: The work is set up by the type invariant, and done before it is freed.
        unsafe { bindings::irq_work_queue(self.work.get()) };
    }

    /// # Safety
    ///
    /// For `work` alone.
    unsafe extern "C" fn interrupt(work: *mut bindings::irq_work) {
        let work = Opaque::cast_from(work.cast_const()).cast_mut();
        // SAFETY: By the type invariant `work` is in a `Timed<T>`, which is not freed before this call
        // returns, since dropping it waits.
        let this = unsafe { &*container_of!(work, Self, work) };
        T::poked(this);
    }

    /// # Safety
    ///
    /// For the timer core alone.
    unsafe extern "C" fn run(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        let timer = Opaque::cast_from(timer.cast_const()).cast_mut();
        // SAFETY: By the type invariant `timer` is in a `Timed<T>`, which is not freed before this call
        // returns, since dropping it cancels the timer.
        let this = unsafe { &*container_of!(timer, Self, timer) };
        // Before the call: what is set from now on, may need another one.
        this.due.xchg(NEVER, Full);
        T::expire(this);
        // Setting it anew, even meanwhile on another CPU, has queued it already.
        HRTIMER_NORESTART
    }
}

impl<T: Expire> Deref for Timed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[pinned_drop]
impl<T: Expire> PinnedDrop for Timed<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Set up by the type invariant. Nobody can set or queue them again: that needs a reference. The
        // interrupt first, which may set the timer.
        unsafe {
            bindings::irq_work_sync(self.work.get());
            bindings::hrtimer_cancel(self.timer.get());
        }
    }
}

#[kernel::macros::kunit_tests(sleepy_timed)]
mod tests {
    use super::*;
    use kernel::{
        sync::Arc,
        time::{delay::fsleep, hrtimer::HrTimerExpires, Delta, Instant, Monotonic},
    };

    /// Counts how often it expires or is poked, and sets its timer anew until it has three times.
    struct Thrice(Atomic<u32>);

    impl Expire for Thrice {
        fn expire(this: &Timed<Self>) {
            if this.0.fetch_add(1, Relaxed) < 2 {
                this.set(now());
            }
        }

        fn poked(this: &Timed<Self>) {
            this.0.fetch_add(100, Relaxed);
        }
    }

    fn now() -> u64 {
        Instant::<Monotonic>::now().as_nanos() as u64
    }

    fn thrice() -> Result<Arc<Timed<Thrice>>> {
        Arc::pin_init(Timed::new(Thrice(Atomic::new(0))), GFP_KERNEL)
    }

    #[test]
    fn expires_when_set_and_when_set_from_the_callback() -> Result {
        let timed = thrice()?;
        timed.set(now() + 1_000_000);
        // As long as it takes on a busy machine.
        for _ in 0..500 {
            if timed.0.load(Relaxed) == 3 {
                break;
            }
            fsleep(Delta::from_millis(10));
        }
        assert_eq!(timed.0.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn a_poke_is_one_call() -> Result {
        let timed = thrice()?;
        timed.poke();
        for _ in 0..500 {
            if timed.0.load(Relaxed) != 0 {
                break;
            }
            fsleep(Delta::from_millis(10));
        }
        assert_eq!(timed.0.load(Relaxed), 100);
        Ok(())
    }

    #[test]
    fn the_earliest_setting_counts_and_dropping_cancels() -> Result {
        let (timed, hour) = (thrice()?, 3_600_000_000_000);
        timed.set(now() + hour);
        timed.set(now() + 2 * hour);
        fsleep(Delta::from_millis(20));
        assert_eq!(timed.0.load(Relaxed), 0);
        timed.set(now() + 1_000_000);
        timed.set(now() + hour);
        for _ in 0..500 {
            if timed.0.load(Relaxed) == 3 {
                break;
            }
            fsleep(Delta::from_millis(10));
        }
        assert_eq!(timed.0.load(Relaxed), 3);
        timed.set(now() + hour);
        drop(timed);
        Ok(())
    }
}
