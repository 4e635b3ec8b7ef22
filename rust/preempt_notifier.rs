// SPDX-License-Identifier: GPL-2.0-only

//! Preempt notifiers on threads other than one's own.
//!
//! A notifier can be linked and unlinked only by the thread that it watches. So both are done by a task_work,
//! which the thread runs before it next returns to user space or enters a guest. A thread that is
//! stopped or frozen does neither: until it does, or dies, the notifier keeps the module loaded.
//!
//! C headers: [`include/linux/preempt.h`](srctree/include/linux/preempt.h),
//! [`include/linux/task_work.h`](srctree/include/linux/task_work.h)

use super::{
    bindings as helpers, cpus::Cpus, module_ref::ModuleRef, preempt::PreemptOff,
    process::is_exiting,
};
use core::{ops::Deref, ptr};
use kernel::{
    bindings, container_of,
    cpu::CpuId,
    error::to_result,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Arc,
    },
    task::Task,
    types::Opaque,
};

/// Why a thread leaves its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It could run on: it was preempted, or yielded.
    Preempted,
    /// It waits for something.
    Blocked,
    /// It has exited.
    Dead,
    /// It stays where it is, but is not watched any more.
    Unwatched,
}

/// Watches a thread. All calls come from the CPU that the thread has, and those about the scheduler from the
/// thread itself.
pub(crate) trait Observer: Send + Sync + 'static {
    /// It has got a CPU. Preemption is off; must not sleep.
    fn sched_in(&self, cpu: CpuId);
    /// It leaves its CPU. Under the runqueue's lock, with interrupts off: must neither sleep nor take a
    /// lock, nor wake a thread. Also called, with preemption off alone, when the notifier is unlinked.
    fn sched_out(&self, leave: Leave);
    /// Somebody has called for the thread's CPU: [`Cpus::call`]. With interrupts off, at any moment between the thread's
    /// way in and its way out, perhaps from within that call: must not take what its callers hold.
    fn called(&self);
}

/// The task_work that links is queued.
const LINKING: u32 = 0;
/// It is linked.
const LINKED: u32 = 1;
/// It shall be unlinked: the task_work that links finds that it needs not, or one that unlinks is queued.
const UNLINKING: u32 = 2;
/// The thread has exited with the notifier linked.
const DEAD: u32 = 3;
/// As [`DEAD`], and a grace period has been asked for: the scheduler may still be on its way through the list.
const GRACE: u32 = 4;
/// Neither linked nor queued any more.
const GONE: u32 = 5;

/// Keeps preempt notifiers enabled.
///
/// # Invariants
///
/// Owns one count of the kernel's static key.
struct Enabled(());

impl Enabled {
    fn new() -> Self {
        // SAFETY: In process context.
        unsafe { bindings::preempt_notifier_inc() };
        // INVARIANT: Just counted.
        Self(())
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // SAFETY: Counted by the type invariant.
        unsafe { bindings::preempt_notifier_dec() };
    }
}

/// # Invariants
///
/// - Until [`GONE`], one reference to the node belongs to the queued task_work or to the thread's list of
///   notifiers.
/// - `notifier` is in that list in the states [`LINKED`], [`DEAD`] and [`GRACE`], and in [`UNLINKING`] if it was linked.
/// - `work` is queued at most once at a time: by `attach`, and after it has run, by `detach`.
/// - `nudge` is queued at most once: by `detach`, if that comes before `work` has run.
#[pin_data]
struct Node<T: Observer> {
    #[pin]
    notifier: Opaque<bindings::preempt_notifier>,
    #[pin]
    work: Opaque<bindings::callback_head>,
    #[pin]
    nudge: Opaque<bindings::callback_head>,
    state: Atomic<u32>,
    /// The grace period, in [`GRACE`].
    grace: Atomic<usize>,
    task: ARef<Task>,
    cpus: Arc<Cpus<T>>,
    observer: T,
    _enabled: Enabled,
    _module: ModuleRef,
}

// SAFETY: Linking and unlinking are done by the watched thread, whoever holds the node; the rest is `Send`.
unsafe impl<T: Observer> Send for Node<T> {}
// SAFETY: `state` decides who may touch `notifier` and `work`; the rest is `Sync`.
unsafe impl<T: Observer> Sync for Node<T> {}

impl<T: Observer> Node<T> {
    const OPS: &'static bindings::preempt_ops = &bindings::preempt_ops {
        sched_in: Some(Self::sched_in),
        sched_out: Some(Self::sched_out),
    };

    /// The thread has got a CPU, this one.
    fn enter(&self, cpu: CpuId) {
        // First of all, so that whoever looks for it on this CPU from now on finds it.
        //
        // SAFETY: The node is linked, and not unlinked before `leave`.
        unsafe { self.cpus.enter(&self.observer) };
        self.observer.sched_in(cpu);
    }

    /// The thread leaves its CPU, this one.
    fn leave(&self, leave: Leave) {
        self.observer.sched_out(leave);
        self.cpus.leave(&self.observer);
    }

    /// Has this CPU know the current thread by another of its nodes, if it has one. For that thread, with preemption off.
    fn enter_another(&self) {
        // SAFETY: Only the thread itself changes its list, and it is here.
        let mut link = unsafe { (*current!().as_ptr()).preempt_notifiers.first };
        while !link.is_null() {
            // SAFETY: What is linked there is the link of a notifier.
            let notifier = unsafe { container_of!(link, bindings::preempt_notifier, link) };
            // SAFETY: It is valid while it is linked.
            if ptr::eq(unsafe { (*notifier).ops }, Self::OPS) {
                // SAFETY: Those with our operations are in nodes; it is linked, and not unlinked before `leave`.
                unsafe { self.cpus.enter(&Self::of_notifier(notifier).observer) };
                return;
            }
            // SAFETY: As above.
            link = unsafe { (*link).next };
        }
    }

    /// Queues `work`, which is this node's, to call `func` in the thread. `ESRCH` if that has run its last task_work.
    ///
    /// # Safety
    ///
    /// `work` must not be queued, and there must be a reference for it.
    unsafe fn queue(
        &self,
        work: &Opaque<bindings::callback_head>,
        func: unsafe extern "C" fn(*mut bindings::callback_head),
        notify: bindings::task_work_notify_mode,
    ) -> Result {
        let work = work.get();
        // SAFETY: `work` is ours to write by the safety requirement.
        unsafe {
            (*work).next = ptr::null_mut();
            (*work).func = Some(func);
        }
        // SAFETY: The thread is valid, and `work` lives until it has run, by its reference.
        to_result(unsafe { bindings::task_work_add(self.task.as_ptr(), work, notify) })
    }

    /// The node of a task_work that runs.
    ///
    /// # Safety
    ///
    /// `work` must be that of a node, which has run and whose reference is given away here.
    unsafe fn of_work(work: *mut bindings::callback_head) -> Arc<Self> {
        let work = Opaque::cast_from(work.cast_const()).cast_mut();
        // SAFETY: By the safety requirement, and since nodes are in an `Arc`.
        unsafe { Arc::from_raw(container_of!(work, Self, work)) }
    }

    /// # Safety
    ///
    /// For [`queue`](Self::queue) alone.
    unsafe extern "C" fn link(work: *mut bindings::callback_head) {
        // SAFETY: `attach` has put a reference aside for this.
        let node = unsafe { Self::of_work(work) };
        if is_exiting(current!()) || node.state.cmpxchg(LINKING, LINKED, Full).is_err() {
            node.state.store(GONE, Release);
            return;
        }
        let off = PreemptOff::new();
        // SAFETY: This is the thread to watch, preemption is off, notifiers are enabled by `_enabled`, and
        // `notifier` is not in any list yet. INVARIANT: The reference is the list's now.
        unsafe { bindings::preempt_notifier_register(node.notifier.get()) };
        node.enter(CpuId::current());
        drop(off);
        core::mem::forget(node);
    }

    /// # Safety
    ///
    /// For [`queue`](Self::queue) alone.
    unsafe extern "C" fn unlink(work: *mut bindings::callback_head) {
        // SAFETY: The reference is the list's, which the notifier leaves here.
        let node = unsafe { Self::of_work(work) };
        let off = PreemptOff::new();
        // SAFETY: This is the thread that is watched, not from within a notifier, and `notifier` is linked.
        unsafe { bindings::preempt_notifier_unregister(node.notifier.get()) };
        node.leave(Leave::Unwatched);
        node.enter_another();
        drop(off);
        node.state.store(GONE, Release);
    }

    /// # Safety
    ///
    /// For [`queue`](Self::queue) of `nudge` alone.
    unsafe extern "C" fn nudged(nudge: *mut bindings::callback_head) {
        let nudge = Opaque::cast_from(nudge.cast_const()).cast_mut();
        // SAFETY: `detach` has put a reference aside for this; nodes are in an `Arc`.
        drop(unsafe { Arc::from_raw(container_of!(nudge, Self, nudge)) });
    }

    /// # Safety
    ///
    /// `notifier` must be that of a node.
    unsafe fn of_notifier<'a>(notifier: *mut bindings::preempt_notifier) -> &'a Self {
        let notifier = Opaque::cast_from(notifier.cast_const()).cast_mut();
        // SAFETY: By the safety requirement; the list's reference keeps it alive while it is linked.
        unsafe { &*container_of!(notifier, Self, notifier) }
    }

    /// # Safety
    ///
    /// For the scheduler alone.
    unsafe extern "C" fn sched_in(notifier: *mut bindings::preempt_notifier, cpu: c_int) {
        // SAFETY: `cpu` is the CPU's number.
        let cpu = unsafe { CpuId::from_i32_unchecked(cpu) };
        // SAFETY: The scheduler calls with a notifier that is linked.
        unsafe { Self::of_notifier(notifier) }.enter(cpu);
    }

    /// # Safety
    ///
    /// For the scheduler alone.
    unsafe extern "C" fn sched_out(
        notifier: *mut bindings::preempt_notifier,
        _next: *mut bindings::task_struct,
    ) {
        // SAFETY: The scheduler calls with a notifier that is linked.
        let node = unsafe { Self::of_notifier(notifier) };
        // SAFETY: Both read the current thread, which is being switched away from.
        let leave = unsafe {
            if helpers::sleepy_current_is_dead() {
                Leave::Dead
            } else if helpers::sleepy_current_is_runnable() {
                Leave::Preempted
            } else {
                Leave::Blocked
            }
        };
        node.leave(leave);
        if leave == Leave::Dead {
            node.state.store(DEAD, Release);
        }
    }
}

/// An [`Observer`] of a thread.
///
/// To be kept, after [`detach`](Self::detach), until [`gone`](Self::gone).
pub(crate) struct Attachment<T: Observer>(Arc<Node<T>>);

impl<T: Observer> Attachment<T> {
    /// Watches `task` with `observer`, which can be reached through `cpus`, from when the thread next
    /// returns to user space or enters a guest.
    ///
    /// `ESRCH` if the thread is exiting, `ENOMEM`. For process context.
    pub(crate) fn attach(task: ARef<Task>, cpus: Arc<Cpus<T>>, observer: T) -> Result<Self> {
        let node = Arc::pin_init(
            pin_init!(Node {
                // SAFETY: `slot` is valid for writing; the scheduler does not write to the operations.
                notifier <- Opaque::ffi_init(|slot: *mut bindings::preempt_notifier| unsafe {
                    slot.write(bindings::preempt_notifier {
                        ops: ptr::from_ref(Node::<T>::OPS).cast_mut(),
                        ..Default::default()
                    })
                }),
                work <- Opaque::zeroed(),
                nudge <- Opaque::zeroed(),
                state: Atomic::new(LINKING),
                grace: Atomic::new(0),
                task,
                cpus,
                observer,
                _enabled: Enabled::new(),
                _module: ModuleRef::new(),
            }),
            GFP_KERNEL,
        )?;
        let reference = node.clone().into_raw();
        // SAFETY: `work` has never been queued. INVARIANT: `reference` is the task_work's.
        let queued = unsafe {
            node.queue(
                &node.work,
                Node::<T>::link,
                bindings::task_work_notify_mode_TWA_RESUME,
            )
        };
        if let Err(error) = queued {
            node.state.store(GONE, Release);
            // SAFETY: Made by `into_raw` above; nothing was queued.
            drop(unsafe { Arc::from_raw(reference) });
            return Err(error);
        }
        Ok(Self(node))
    }

    /// The thread.
    pub(crate) fn task(&self) -> &Task {
        &self.0.task
    }

    /// Whether the thread is watched now.
    pub(crate) fn attached(&self) -> bool {
        self.0.state.load(Acquire) == LINKED
    }

    /// Whether nobody has ended the watch, and the thread has not died.
    pub(crate) fn stays(&self) -> bool {
        matches!(self.0.state.load(Acquire), LINKING | LINKED)
    }

    /// Ends the watch, as soon as the thread runs; a blocked one is interrupted as by a signal. May be
    /// called again.
    pub(crate) fn detach(&self) {
        let state = &self.0.state;
        if state.cmpxchg(LINKING, UNLINKING, Full).is_ok() {
            // A vCPU that is halted for good would never come to run `link`.
            let reference = self.0.clone().into_raw();
            // SAFETY: Only one caller gets from `LINKING` to here. INVARIANT: `reference` is the task_work's.
            let queued = unsafe {
                self.0.queue(
                    &self.0.nudge,
                    Node::<T>::nudged,
                    bindings::task_work_notify_mode_TWA_SIGNAL,
                )
            };
            if queued.is_err() {
                // SAFETY: Made by `into_raw` above; nothing was queued.
                drop(unsafe { Arc::from_raw(reference) });
            }
            return;
        }
        if state.cmpxchg(LINKED, UNLINKING, Full).is_ok() {
            // A thread that is past its last task_work takes the notifier with it: it becomes `DEAD`.
            //
            // SAFETY: `link` is run or running: its work is out of the queue. Only one caller gets from `LINKED` to here.
            // The reference is the list's.
            let _ = unsafe {
                self.0.queue(
                    &self.0.work,
                    Node::<T>::unlink,
                    bindings::task_work_notify_mode_TWA_SIGNAL,
                )
            };
        }
    }

    /// Whether the thread has nothing to do with the observer any more. Of one that died with the notifier
    /// linked this is true a grace period after the first call that found it dead. Takes `&mut`, since it
    /// cleans up then.
    pub(crate) fn gone(&mut self) -> bool {
        let node = &self.0;
        match node.state.load(Acquire) {
            GONE => true,
            DEAD => {
                // SAFETY: May be called in any context.
                let grace = unsafe { bindings::start_poll_synchronize_rcu() };
                node.grace.store(grace as usize, Relaxed);
                node.state.store(GRACE, Relaxed);
                false
            }
            GRACE => {
                let grace = node.grace.load(Relaxed) as c_ulong;
                // SAFETY: May be called in any context.
                let over = unsafe { bindings::poll_state_synchronize_rcu(grace) };
                if over {
                    node.state.store(GONE, Relaxed);
                    // SAFETY: The list's reference. The thread that had the list is dead, the scheduler is
                    // through with it, and only `&mut self` gets from `GRACE` to here.
                    drop(unsafe { Arc::from_raw(Arc::as_ptr(node)) });
                }
                over
            }
            _ => false,
        }
    }
}

impl<T: Observer> Deref for Attachment<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.observer
    }
}
