// SPDX-License-Identifier: GPL-2.0-only

//! Staying on a CPU.
//!
//! C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)

use super::bindings as helpers;
use kernel::types::NotThreadSafe;

/// Preemption is off for as long as this lives.
///
/// # Invariants
///
/// Owns one count of the current thread's.
pub(super) struct PreemptOff(NotThreadSafe);

impl PreemptOff {
    /// For any context.
    pub(super) fn new() -> Self {
        // SAFETY: Balanced when this is dropped, by the same thread.
        unsafe { helpers::sleepy_preempt_disable() };
        // INVARIANT: Just counted.
        Self(NotThreadSafe)
    }
}

impl Drop for PreemptOff {
    fn drop(&mut self) {
        // SAFETY: Counted by the type invariant.
        unsafe { helpers::sleepy_preempt_enable() };
    }
}
