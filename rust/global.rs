// SPDX-License-Identifier: GPL-2.0-only

//! A value that lives as long as the module is loaded, for entry points that are given nothing.

use super::series::synchronize_rcu;
use core::{marker::PhantomData, ptr};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full},
        rcu, Arc,
    },
};

/// A place for such a value, to be put in a `static`.
///
/// # Invariants
///
/// `address` is zero, or what [`Arc::into_raw`] gave for an `Arc<T>` that a [`Published`] answers for.
pub(crate) struct Global<T> {
    address: Atomic<usize>,
    _value: PhantomData<Arc<T>>,
}

// SAFETY: It is an `Arc<T>`, if anything.
unsafe impl<T: Send + Sync> Sync for Global<T> {}

impl<T: Send + Sync> Global<T> {
    /// An empty place.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Zero.
        Self {
            address: Atomic::new(0),
            _value: PhantomData,
        }
    }

    /// Puts `value` there until the result is dropped. `EBUSY` if there is one.
    pub(crate) fn publish(&'static self, value: Arc<T>) -> Result<Published<T>> {
        let address = Arc::into_raw(value);
        match self.address.cmpxchg(0, address as usize, Full) {
            // INVARIANT: `Published` answers for it.
            Ok(_) => Ok(Published(self)),
            Err(_) => {
                // SAFETY: Made by `into_raw` above, and not published.
                drop(unsafe { Arc::from_raw(address) });
                Err(EBUSY)
            }
        }
    }

    /// The value, if there is one.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let _reader = rcu::read_lock();
        let address =
            ptr::with_exposed_provenance::<T>(self.address.load(kernel::sync::atomic::Acquire));
        if address.is_null() {
            return None;
        }
        // SAFETY: By the type invariant. The reference that `Published` drops is not dropped before a
        // grace period, hence not before this reader has taken one of its own.
        let value = unsafe { kernel::sync::ArcBorrow::from_raw(address) };
        Some(value.into())
    }
}

/// Takes the value back when it is dropped. Needs a context that may sleep then.
pub(crate) struct Published<T: Send + Sync + 'static>(&'static Global<T>);

impl<T: Send + Sync> Drop for Published<T> {
    fn drop(&mut self) {
        let address = self.0.address.xchg(0, Full);
        synchronize_rcu();
        // SAFETY: By the invariant of `Global` there is a value, and this `Published` answers for it.
        drop(unsafe { Arc::from_raw(ptr::with_exposed_provenance::<T>(address)) });
    }
}

#[kernel::macros::kunit_tests(sleepy_global)]
mod tests {
    use super::*;

    static PLACE: Global<u32> = Global::new();

    #[test]
    fn is_there_while_published_and_only_once() -> Result {
        assert!(PLACE.get().is_none());
        let published = PLACE.publish(Arc::new(1, GFP_KERNEL)?)?;
        assert_eq!(PLACE.get().map(|value| *value), Some(1));
        assert!(PLACE.publish(Arc::new(2, GFP_KERNEL)?).is_err());
        let kept = PLACE.get();
        drop(published);
        assert!(PLACE.get().is_none());
        assert_eq!(kept.map(|value| *value), Some(1));
        Ok(())
    }
}
