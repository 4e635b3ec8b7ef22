// SPDX-License-Identifier: GPL-2.0-only

//! A value that is replaced in one step while others read it.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use super::series::synchronize_rcu;
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full},
        rcu,
    },
};

/// A place for a `T`. Readers see the old value or the new one, and never wait.
///
/// # Invariants
///
/// `value` is what [`KBox::into_raw`] gave for a box that this owns.
pub(crate) struct RcuCell<T> {
    value: Atomic<*mut T>,
    _owns: PhantomData<T>,
}

// SAFETY: It is a `KBox<T>`, which any thread may drop.
unsafe impl<T: Send> Send for RcuCell<T> {}
// SAFETY: Any thread may read the value, and take the old one.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}

impl<T> RcuCell<T> {
    /// With this value.
    pub(crate) fn new(value: KBox<T>) -> Self {
        // INVARIANT: By `into_raw`.
        Self {
            value: Atomic::new(KBox::into_raw(value)),
            _owns: PhantomData,
        }
    }

    /// The value now; the old one, for whoever read it before it was replaced.
    pub(crate) fn read<'a>(&'a self, _reader: &'a rcu::Guard) -> &'a T {
        // SAFETY: By the type invariant. One that is replaced is not freed before a grace period, hence
        // not before `_reader` is dropped.
        unsafe { &*self.value.load(Acquire) }
    }

    /// Puts another value in place, and returns the old one when nobody reads it any more. May sleep.
    pub(crate) fn replace(&self, value: KBox<T>) -> KBox<T> {
        // INVARIANT: By `into_raw`. What was there is ours alone from here on.
        let old = self.value.xchg(KBox::into_raw(value), Full);
        synchronize_rcu();
        // SAFETY: Made by `into_raw`, by the type invariant; only we have taken it out, and whoever has read it
        // before is done.
        unsafe { KBox::from_raw(old) }
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; `&mut self` proves that nobody reads.
        drop(unsafe { KBox::from_raw(self.value.load(Acquire)) });
    }
}

#[kernel::macros::kunit_tests(sleepy_rcu_cell)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_was_put_last() -> Result {
        let cell = RcuCell::new(KBox::new(1, GFP_KERNEL)?);
        assert_eq!(*cell.read(&rcu::read_lock()), 1);
        let old = cell.replace(KBox::new(2, GFP_KERNEL)?);
        assert_eq!((*old, *cell.read(&rcu::read_lock())), (1, 2));
        Ok(())
    }
}
