// SPDX-License-Identifier: GPL-2.0-only

//! Functions of ours that the kernel calls where it gets to some place.
//!
//! C headers: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h),
//! [`include/linux/kprobes.h`](srctree/include/linux/kprobes.h)

use super::{bindings as helpers, series::EOPNOTSUPP};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    prelude::*,
};

/// Something attached to the kernel.
///
/// # Invariants
///
/// Registered, with `data` that outlives it.
pub(super) enum Probe {
    Tracepoint {
        tracepoint: NonNull<bindings::tracepoint>,
        function: *mut c_void,
        data: *mut c_void,
    },
    Kprobe(NonNull<helpers::sleepy_kprobe>),
}

// SAFETY: Probes may be unregistered by any thread.
unsafe impl Send for Probe {}
// SAFETY: There is nothing to do with a shared one.
unsafe impl Sync for Probe {}

impl Probe {
    /// On a tracepoint of the kernel itself, or of KVM. `EOPNOTSUPP` if there is none of that name.
    ///
    /// # Safety
    ///
    /// `function` must have the tracepoint's prototype, behind `data`, which must outlive the result; its module must stay
    /// loaded that long.
    pub(super) unsafe fn tracepoint(
        name: &CStr,
        function: *mut c_void,
        data: *mut c_void,
    ) -> Result<Self> {
        // SAFETY: `name` is a string.
        let tracepoint = unsafe { helpers::sleepy_tracepoint(name.as_char_ptr()) };
        let tracepoint = NonNull::new(tracepoint).ok_or(EOPNOTSUPP)?;
        // SAFETY: By the safety requirement.
        to_result(unsafe {
            bindings::tracepoint_probe_register(tracepoint.as_ptr(), function, data)
        })?;
        // INVARIANT: Just registered.
        Ok(Self::Tracepoint {
            tracepoint,
            function,
            data,
        })
    }

    /// On one of the places `SLEEPY_PROBE_*`. `EOPNOTSUPP` if it cannot be had.
    ///
    /// # Safety
    ///
    /// `function` must take `data`, which must outlive the result.
    pub(super) unsafe fn kprobe(
        place: c_uint,
        function: unsafe extern "C" fn(*mut c_void, *const helpers::kvm, c_uint),
        data: *mut c_void,
    ) -> Result<Self> {
        // SAFETY: By the safety requirement.
        let probe =
            from_err_ptr(unsafe { helpers::sleepy_kprobe_register(place, Some(function), data) })?;
        // INVARIANT: Just registered.
        Ok(Self::Kprobe(NonNull::new(probe).ok_or(ENOMEM)?))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        match *self {
            Self::Tracepoint {
                tracepoint,
                function,
                data,
            } => {
                // SAFETY: Registered like this by the type invariant; then waits for calls under way.
                unsafe {
                    bindings::tracepoint_probe_unregister(tracepoint.as_ptr(), function, data);
                    helpers::sleepy_tracepoint_synchronize();
                }
            }
            // SAFETY: Registered by the type invariant.
            Self::Kprobe(probe) => unsafe { helpers::sleepy_kprobe_unregister(probe.as_ptr()) },
        }
    }
}
