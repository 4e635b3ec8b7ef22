// SPDX-License-Identifier: GPL-2.0-only

//! Shared values by address, found without a lock.
//!
//! The `kernel` crate's `XArray` looks things up under its lock only.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use core::{marker::PhantomData, ptr};
use kernel::{
    bindings,
    prelude::*,
    sync::{rcu, Arc},
    types::Opaque,
};

/// A map from addresses to `Arc<T>`s.
///
/// # Invariants
///
/// Every entry is what [`Arc::into_raw`] gave for an `Arc<T>` that this owns.
#[pin_data(PinnedDrop)]
pub(crate) struct RcuMap<T: Send + Sync + 'static> {
    #[pin]
    array: Opaque<bindings::xarray>,
    _owns: PhantomData<Arc<T>>,
}

// SAFETY: The array belongs to no thread, and its entries are `Arc`s of something shareable.
unsafe impl<T: Send + Sync> Send for RcuMap<T> {}
// SAFETY: As above; the array has its own lock, and readers need none.
unsafe impl<T: Send + Sync> Sync for RcuMap<T> {}

impl<T: Send + Sync + 'static> RcuMap<T> {
    /// An empty map.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writing, and stays where it is.
            array <- Opaque::ffi_init(|slot| unsafe { bindings::xa_init_flags(slot, 0) }),
            _owns: PhantomData,
        })
    }

    /// Puts a value in, where there is none. `ENOMEM`. For process context.
    pub(crate) fn insert(&self, key: usize, value: Arc<T>) -> Result {
        let entry = Arc::into_raw(value);
        // SAFETY: The array is set up. INVARIANT: By `into_raw`.
        let old = unsafe {
            bindings::xa_store(
                self.array.get(),
                key,
                entry.cast_mut().cast(),
                bindings::GFP_KERNEL,
            )
        };
        // SAFETY: What `xa_store` returned.
        let error = unsafe { bindings::xa_err(old) };
        if error != 0 {
            // SAFETY: Made by `into_raw` above; it was not stored.
            drop(unsafe { Arc::from_raw(entry) });
            return Err(Error::from_errno(error));
        }
        self.free(old);
        Ok(())
    }

    /// Takes a value out, if there is one. For process context.
    pub(crate) fn remove(&self, key: usize) {
        // SAFETY: The array is set up.
        self.free(unsafe { bindings::xa_erase(self.array.get(), key) });
    }

    fn free(&self, entry: *mut c_void) {
        if !entry.is_null() {
            // Expedited: thousands may be taken out one after the other.
            //
            // SAFETY: In process context.
            unsafe { bindings::synchronize_rcu_expedited() };
            // SAFETY: By the type invariant; it is not in the array any more, and nobody who has found it
            // there still reads.
            drop(unsafe { Arc::from_raw(entry.cast::<T>().cast_const()) });
        }
    }

    /// The value at `key`. For any context, even a non-maskable one.
    pub(crate) fn get<'a>(&'a self, key: usize, _reader: &'a rcu::Guard) -> Option<&'a T> {
        // SAFETY: The array is set up, and this is a reader's section.
        let entry = unsafe { bindings::xa_load(self.array.get(), key) };
        // SAFETY: Null, or by the type invariant a value that is not freed before the reader's section ends.
        unsafe { ptr::from_ref::<T>(entry.cast::<T>().cast_const().as_ref()?).as_ref() }
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for RcuMap<T> {
    fn drop(self: Pin<&mut Self>) {
        // Whoever puts something in takes it out again; what is left is leaked, and not freed under a reader.
        //
        // SAFETY: Nobody uses the array any more.
        unsafe { bindings::xa_destroy(self.array.get()) };
    }
}

#[kernel::macros::kunit_tests(sleepy_rcu_map)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_found_until_it_is_taken_out() -> Result {
        let map = KBox::pin_init(RcuMap::new(), GFP_KERNEL)?;
        let value = Arc::new(7, GFP_KERNEL)?;
        map.insert(0x1000, value.clone())?;
        assert_eq!(map.get(0x1000, &rcu::read_lock()).copied(), Some(7));
        assert_eq!(map.get(0x2000, &rcu::read_lock()).copied(), None);
        map.remove(0x1000);
        map.remove(0x1000);
        assert_eq!(map.get(0x1000, &rcu::read_lock()).copied(), None);
        assert_eq!(*value, 7);
        Ok(())
    }
}
