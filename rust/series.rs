// SPDX-License-Identifier: GPL-2.0-only

//! What differs between the series of Linux that this is built for; nothing else does.
//!
//! `linux_7_2.rs` has the same for Linux 7.2, see `Kbuild`.

use kernel::{bindings, module, prelude::*};

pub(crate) use kernel::{
    error::code::{EALREADY, ENOTUNIQ, EOPNOTSUPP, ESTALE},
    new_spinlock_irq,
    sync::{barrier::smp_mb, rcu::synchronize_rcu, SpinLockIrq},
};

/// What a timer's callback returns: it is not to be queued by that.
pub(crate) const HRTIMER_NORESTART: bindings::hrtimer_restart =
    bindings::hrtimer_restart::HRTIMER_NORESTART;

/// This module's `THIS_MODULE`.
pub(crate) fn this_module() -> *mut bindings::module {
    module::this_module::<crate::LocalModule>().as_ptr()
}

/// A file of a miscdevice is opened. It holds a reference to the module by itself.
pub(crate) fn opened() -> Result {
    Ok(())
}

/// It is closed.
pub(crate) fn released() {}
