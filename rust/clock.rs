// SPDX-License-Identifier: GPL-2.0-only

//! The monotonic clock, where the `kernel` crate's cannot be read.
//!
//! C header: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h)

use kernel::bindings;

/// Nanoseconds of the monotonic clock. For any context, even a non-maskable one; while the clock is adjusted, a little
/// before or after what others read.
pub(crate) fn now_anywhere() -> u64 {
    // SAFETY: May be called in any context.
    unsafe { bindings::ktime_get_mono_fast_ns() }
}
