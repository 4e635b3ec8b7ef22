// SPDX-License-Identifier: GPL-2.0-only

//! Something that a thread does before it next returns to user space or enters a guest.
//!
//! C header: [`include/linux/task_work.h`](srctree/include/linux/task_work.h)

use super::{bindings as helpers, module_ref::ModuleRef, process::is_exiting};
use core::{ops::Deref, ptr};
use kernel::{
    bindings, container_of,
    prelude::*,
    sync::{
        atomic::{Atomic, Full},
        Arc,
    },
    types::Opaque,
};

/// Something that a thread does.
pub(crate) trait Errand: Send + Sync + 'static {
    /// Called in the thread, which may sleep here, unless it is exiting.
    fn run(&self);
}

/// An errand of one thread. Used by that thread alone, and by what interrupts it.
///
/// # Invariants
///
/// While `queued` is set, `work` is queued or about to be, and one reference belongs to it.
#[pin_data]
pub(crate) struct TaskWork<T: Errand> {
    #[pin]
    work: Opaque<bindings::callback_head>,
    queued: Atomic<bool>,
    errand: T,
    /// A thread that sleeps in its errand is not seen by Tasks RCU.
    _module: ModuleRef,
}

// SAFETY: `queued` decides who may touch `work`; nothing else belongs to a thread, and `T` is `Send`.
unsafe impl<T: Errand> Send for TaskWork<T> {}
// SAFETY: As above; `T` is `Sync`.
unsafe impl<T: Errand> Sync for TaskWork<T> {}

impl<T: Errand> TaskWork<T> {
    /// For one thread.
    pub(crate) fn new(errand: T) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- Opaque::zeroed(),
                queued: Atomic::new(false),
                errand,
                _module: ModuleRef::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Has the current thread run the errand, unless it is about to. From a hard interrupt too: then the thread
    /// that it has interrupted. Without effect on a thread that never returns to user space, or not any more.
    pub(crate) fn queue(this: &Arc<Self>) {
        if this.queued.xchg(true, Full) {
            return;
        }
        let reference = this.clone().into_raw();
        let work = this.work.get();
        // SAFETY: `work` is not queued, and is from here on. INVARIANT: `reference` belongs to it.
        let status = unsafe {
            (*work).next = ptr::null_mut();
            (*work).func = Some(Self::run);
            helpers::sleepy_task_work_add_current(work)
        };
        if status != 0 {
            // INVARIANT: Nothing was queued.
            this.queued.xchg(false, Full);
            // SAFETY: Made by `into_raw` above.
            drop(unsafe { Arc::from_raw(reference) });
        }
    }

    /// # Safety
    ///
    /// For `work` alone.
    unsafe extern "C" fn run(work: *mut bindings::callback_head) {
        let work = Opaque::cast_from(work.cast_const()).cast_mut();
        // SAFETY: `work` is that of a `TaskWork`, and its reference is given away here.
        let this = unsafe { Arc::from_raw(container_of!(work, Self, work)) };
        // INVARIANT: It runs, and is not queued any more.
        this.queued.xchg(false, Full);
        if !is_exiting(current!()) {
            this.errand.run();
        }
    }
}

impl<T: Errand> Deref for TaskWork<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.errand
    }
}
