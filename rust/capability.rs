// SPDX-License-Identifier: GPL-2.0-only

//! Capabilities.
//!
//! C header: [`include/linux/capability.h`](srctree/include/linux/capability.h)

use kernel::{bindings, prelude::*};

/// A capability.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Capability {
    /// Configure the network.
    NetAdmin = bindings::CAP_NET_ADMIN,
    /// Raise and lower the priority of other users' threads.
    SysNice = bindings::CAP_SYS_NICE,
}

/// Whether the current thread has the capability in the initial user namespace. As ever, asking marks the
/// thread as having used it.
pub(crate) fn capable(capability: Capability) -> bool {
    // SAFETY: May be called in any process context, with any capability that exists.
    unsafe { bindings::capable(capability as c_int) }
}
