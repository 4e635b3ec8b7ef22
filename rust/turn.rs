// SPDX-License-Identifier: GPL-2.0-only

//! A thread's turn on its CPU, and giving it up.
//!
//! C headers: [`include/linux/sched.h`](srctree/include/linux/sched.h),
//! [`include/linux/task_work.h`](srctree/include/linux/task_work.h)

use super::{bindings as helpers, module_ref::ModuleRef};
use core::ptr;
use kernel::{
    bindings, container_of,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
    },
    types::Opaque,
};

/// `work` is not queued.
const IDLE: u32 = 0;
/// It is queued, and shall yield.
const ASKED: u32 = 1;
/// It is queued, but the turn that it was meant for is over.
const STALE: u32 = 2;

/// What a thread needs to be made give up its turn. Used by that thread alone, and by what interrupts it.
///
/// # Invariants
///
/// Unless `state` is [`IDLE`], `work` is queued, and one reference belongs to it.
#[pin_data]
pub(crate) struct Turn {
    #[pin]
    work: Opaque<bindings::callback_head>,
    state: Atomic<u32>,
    _module: ModuleRef,
}

// SAFETY: `state` decides who may touch `work`; nothing else belongs to a thread.
unsafe impl Send for Turn {}
// SAFETY: As above.
unsafe impl Sync for Turn {}

impl Turn {
    /// For one thread.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- Opaque::zeroed(),
                state: Atomic::new(IDLE),
                _module: ModuleRef::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Has the current thread yield, as by sched_yield(2), before it next returns to user space or enters a
    /// guest, unless its turn is [`over`](Self::over) by then. From a hard interrupt too: then for the thread
    /// that it has interrupted. Without effect on a thread that never does so, or not any more.
    pub(crate) fn give_up(this: &Arc<Self>) {
        if this.state.xchg(ASKED, Full) != IDLE {
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
            this.state.store(IDLE, Relaxed);
            // SAFETY: Made by `into_raw` above.
            drop(unsafe { Arc::from_raw(reference) });
        }
    }

    /// The turn is over: nothing is given up that has not been yet.
    pub(crate) fn over(&self) {
        let _ = self.state.cmpxchg(ASKED, STALE, Full);
    }

    /// # Safety
    ///
    /// For `work` alone.
    unsafe extern "C" fn run(work: *mut bindings::callback_head) {
        let work = Opaque::cast_from(work.cast_const()).cast_mut();
        // SAFETY: `work` is that of a `Turn`, and its reference is given away here. It keeps the module
        // loaded while the thread is in `yield_`, where Tasks RCU does not see it.
        let this = unsafe { Arc::from_raw(container_of!(work, Self, work)) };
        // INVARIANT: It runs, and is not queued any more.
        let asked = this.state.xchg(IDLE, Full) == ASKED;
        // SAFETY: Reads a flag of the current thread.
        if asked && !unsafe { helpers::sleepy_current_is_exiting() } {
            // SAFETY: A task_work may sleep.
            unsafe { bindings::yield_() };
        }
    }
}
