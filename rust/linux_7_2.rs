// SPDX-License-Identifier: GPL-2.0-only

//! What Linux 7.2 lacks, as Linux 7.3 has it (`series.rs`).

use core::{mem, num::NonZeroI32};
use kernel::{
    bindings,
    ffi::{c_char, c_ulong},
    prelude::*,
    sync::{
        atomic::Full,
        barrier,
        lock::{Backend, Lock},
    },
};

extern "C" {
    // In helpers/linux_7_2.c.
    fn sleepy_spin_lock_irqsave(lock: *mut bindings::spinlock_t) -> c_ulong;
    fn sleepy_spin_unlock_irqrestore(lock: *mut bindings::spinlock_t, flags: c_ulong);
    fn sleepy_spin_trylock_irqsave(lock: *mut bindings::spinlock_t, flags: *mut c_ulong) -> bool;
}

/// A spinlock that is held with interrupts off.
pub(crate) type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

/// A `spinlock_t` that is taken with `spin_lock_irqsave()`.
pub(crate) struct SpinLockIrqBackend;

// SAFETY: A `spinlock_t` excludes; `relock` is the default, by `lock`.
unsafe impl Backend for SpinLockIrqBackend {
    type State = bindings::spinlock_t;
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the safety requirements, `ptr` is valid for writes, and the others for good.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By the safety requirements, `ptr` has been initialised.
        unsafe { sleepy_spin_lock_irqsave(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: By the safety requirements, `ptr` has been initialised; `flags` is ours.
        unsafe { sleepy_spin_trylock_irqsave(ptr, &raw mut flags) }.then_some(flags)
    }

    unsafe fn unlock(ptr: *mut Self::State, guard_state: &Self::GuardState) {
        // SAFETY: By the safety requirements, the caller has the lock, and these are the flags that it was taken with.
        unsafe { sleepy_spin_unlock_irqrestore(ptr, *guard_state) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: By the safety requirements, `ptr` has been initialised.
        unsafe { bindings::spin_assert_is_held(ptr) }
    }
}

/// Initialises a [`SpinLockIrq`].
macro_rules! new_spinlock_irq {
    ($inner:expr) => {
        $crate::rust::series::SpinLockIrq::new(
            $inner,
            kernel::c_str!("SpinLockIrq"),
            kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_spinlock_irq;

pub(crate) const EALREADY: Error = error(bindings::EALREADY);
pub(crate) const ENOTUNIQ: Error = error(bindings::ENOTUNIQ);
pub(crate) const EOPNOTSUPP: Error = error(bindings::EOPNOTSUPP);
pub(crate) const ESTALE: Error = error(bindings::ESTALE);

const fn error(code: u32) -> Error {
    let code = NonZeroI32::new(-code.cast_signed()).unwrap();
    // SAFETY: An `Error` is a struct of one field, which is a `NonZeroI32`, and is of the same size. The code is a valid one.
    unsafe { mem::transmute(code) }
}

/// What a timer's callback returns: it is not to be queued by that.
pub(crate) const HRTIMER_NORESTART: bindings::hrtimer_restart =
    bindings::hrtimer_restart_HRTIMER_NORESTART;

/// Waits until all readers that have begun are done. In process context.
pub(crate) fn synchronize_rcu() {
    // SAFETY: May be called in process context.
    unsafe { bindings::synchronize_rcu() };
}

/// A memory barrier between CPUs.
pub(crate) fn smp_mb(_: Full) {
    barrier::smp_mb();
}

/// This module's `THIS_MODULE`.
pub(crate) fn this_module() -> *mut bindings::module {
    crate::THIS_MODULE.as_ptr()
}

/// A file of a miscdevice is opened: a miscdevice of Rust has no owner here, so that the file holds no reference to the module by
/// itself. `ENODEV` if that is on its way out. To be called in `open`, which keeps the device from being unregistered.
pub(crate) fn opened() -> Result {
    // SAFETY: This is the module's own `THIS_MODULE`, which stays until `open` returns: the device is not unregistered before.
    if unsafe { bindings::try_module_get(this_module()) } {
        Ok(())
    } else {
        Err(ENODEV)
    }
}

/// It is closed: the last thing in `release`. What is left of that, and the look at the file's operations that comes after it, is
/// over before the module is gone, by [`drain`](super::module_ref::drain).
pub(crate) fn released() {
    // SAFETY: `opened` has taken a reference.
    unsafe { bindings::module_put(this_module()) };
}
