// SPDX-License-Identifier: GPL-2.0-only

//! Large values, made where they stay.
//!
//! Rust crate: [`pin-init`](srctree/rust/pin-init/src/lib.rs)

use kernel::prelude::*;

/// What `make` returns, made in a function of its own: not on the stack of whoever allocates memory, which may need that.
pub(crate) fn apart<T>(make: impl FnOnce() -> T) -> impl Init<T> {
    /// # Safety
    ///
    /// `slot` must be valid for writing.
    #[inline(never)]
    unsafe fn put<T>(slot: *mut T, make: impl FnOnce() -> T) {
        // SAFETY: By the safety requirement.
        unsafe { slot.write(make()) };
    }

    // SAFETY: The slot is valid for writing, has its value afterwards, and that does not fail.
    unsafe {
        pin_init::init_from_closure(move |slot| {
            put(slot, make);
            Ok(())
        })
    }
}
