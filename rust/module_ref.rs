// SPDX-License-Identifier: GPL-2.0-only

//! References that keep this module loaded.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use super::series::this_module;
use kernel::bindings;

/// As long as one of these lives, unloading the module fails with `EBUSY`.
///
/// The last one may be dropped by the module's own code, in a callback that the kernel is still to return
/// from; [`drain`] covers that window.
///
/// # Invariants
///
/// Owns one reference to this module.
pub(crate) struct ModuleRef(());

impl ModuleRef {
    /// Takes a reference. To be called where the module cannot be on its way out: by an ioctl, whose file
    /// holds a reference of its own, or by the owner of another `ModuleRef`.
    pub(crate) fn new() -> Self {
        // SAFETY: This is the module's own `THIS_MODULE`, and by the rule above its reference count is
        // not zero.
        unsafe { bindings::__module_get(this_module()) };
        // INVARIANT: Just taken.
        Self(())
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::module_put(this_module()) };
    }
}

/// Waits until no thread is inside a callback of the module any more. For the module's exit, when nothing
/// can call it again.
///
/// A task_work callback may be preempted on its last instructions, after it has dropped the last
/// [`ModuleRef`]: Tasks RCU waits until every thread has scheduled voluntarily, run in user space or entered a guest.
/// Callbacks with preemption off (notifiers, hooks, timers) are covered too.
pub(crate) fn drain() {
    // SAFETY: May be called in any context that may sleep, as a module's exit may.
    unsafe {
        bindings::synchronize_rcu_tasks();
        bindings::synchronize_rcu();
    }
}
