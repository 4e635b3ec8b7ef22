// SPDX-License-Identifier: GPL-2.0-only

//! What runs on each CPU, among the threads that have an observer, and how to reach it there.
//!
//! C header: [`include/linux/smp.h`](srctree/include/linux/smp.h)

use super::{preempt::PreemptOff, preempt_notifier::Observer, series::synchronize_rcu};
use core::ptr;
use kernel::{
    bindings, cpu,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc,
    },
    time::{delay::fsleep, Delta},
    types::Opaque,
};

/// # Invariants
///
/// - `csd` is queued only by whoever has set `called`, which its function unsets first thing.
/// - `observer` is null, or valid for as long as the CPU has its thread.
#[repr(align(64))]
struct Cpu<T: Observer> {
    csd: Opaque<bindings::call_single_data_t>,
    called: Atomic<bool>,
    observer: Atomic<*const T>,
}

/// Every CPU, and the observer of the thread that it has.
///
/// To be dropped in process context: waits for calls under way.
pub(crate) struct Cpus<T: Observer>(KVec<Cpu<T>>);

// SAFETY: What is in it belongs to no thread; `T` is `Send`.
unsafe impl<T: Observer> Send for Cpus<T> {}
// SAFETY: `called` serialises the use of `csd`, the rest is atomic; `T` is `Sync`.
unsafe impl<T: Observer> Sync for Cpus<T> {}

impl<T: Observer> Cpus<T> {
    /// CPUs that have no observed thread.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let number = cpu::nr_cpu_ids() as usize;
        let mut cpus = KVec::with_capacity(number, GFP_KERNEL)?;
        for _ in 0..number {
            let entry = Cpu {
                csd: Opaque::zeroed(),
                called: Atomic::new(false),
                observer: Atomic::new(ptr::null::<T>()),
            };
            cpus.push(entry, GFP_KERNEL)?;
        }
        for entry in &cpus {
            let csd = entry.csd.get();
            // SAFETY: Not in use yet. Entries stay where they are: the vector does not grow any more.
            unsafe {
                (*csd).func = Some(Self::run);
                (*csd).info = ptr::from_ref(entry).cast_mut().cast();
            }
        }
        Ok(Arc::new(Self(cpus), GFP_KERNEL)?)
    }

    /// Has the CPU call [`Observer::called`] soon, or at once if it is this one, if it then has an observed thread. For any
    /// context but those that hold a runqueue's lock.
    pub(crate) fn call(&self, cpu: u32) {
        let Some(entry) = self.0.get(cpu as usize) else {
            return;
        };
        if entry.called.xchg(true, Full) {
            // It is still to look, and will see what the caller has done before.
            return;
        }
        // SAFETY: By the type invariant, the call is ours to make; `drop` waits for it.
        let status =
            unsafe { bindings::smp_call_function_single_async(cpu as c_int, entry.csd.get()) };
        if status != 0 {
            // The CPU is offline.
            entry.called.xchg(false, Full);
        }
    }

    /// Notes that this CPU has the thread of `observer` now. Preemption is off.
    ///
    /// # Safety
    ///
    /// The observer must be valid until [`leave`](Self::leave) is called with it on this CPU.
    pub(super) unsafe fn enter(&self, observer: &T) {
        if let Some(entry) = self.here() {
            // INVARIANT: By the safety requirement.
            entry.observer.store(ptr::from_ref(observer), Relaxed);
        }
    }

    /// The thread of `observer` leaves this CPU, or is not watched by it any more; it may have another by then. Preemption is off.
    pub(super) fn leave(&self, observer: &T) {
        if let Some(entry) = self.here() {
            if entry.observer.load(Relaxed) == ptr::from_ref(observer) {
                entry.observer.store(ptr::null(), Relaxed);
            }
        }
    }

    /// This CPU. Preemption is off.
    fn here(&self) -> Option<&Cpu<T>> {
        self.0.get(cpu::CpuId::current().as_u32() as usize)
    }

    /// Calls `f` with the observer of the thread that this CPU has, if it has one.
    pub(super) fn with_observer(&self, f: impl FnOnce(&T)) {
        let _off = PreemptOff::new();
        let observer = self.here().map(|entry| entry.observer.load(Relaxed));
        if let Some(observer) = observer.filter(|observer| !observer.is_null()) {
            // SAFETY: By the type invariant, and the thread cannot leave the CPU before preemption is on again.
            f(unsafe { &*observer });
        }
    }

    /// Calls `f` with the observer of the current thread, if it has one, with preemption on. For process context, but not
    /// for the task_work that ends its watch.
    pub(super) fn with_own(&self, f: impl FnOnce(&T)) {
        let mut own = ptr::null();
        self.with_observer(|observer| own = ptr::from_ref(observer));
        if !own.is_null() {
            // SAFETY: It watches this thread, which ends that itself, in a task_work: not before this has returned.
            f(unsafe { &*own });
        }
    }

    /// # Safety
    ///
    /// For `csd` alone.
    unsafe extern "C" fn run(info: *mut c_void) {
        // SAFETY: `info` is the entry, and the CPUs are not dropped before this has returned.
        let entry = unsafe { &*info.cast::<Cpu<T>>() };
        entry.called.xchg(false, Full);
        let observer = entry.observer.load(Relaxed);
        if !observer.is_null() {
            // SAFETY: By the type invariant. Interrupts are off on the CPU that has the thread, which cannot leave it
            // before this has returned.
            unsafe { &*observer }.called();
        }
    }
}

impl<T: Observer> Drop for Cpus<T> {
    fn drop(&mut self) {
        while self.0.iter().any(|entry| entry.called.load(Acquire)) {
            fsleep(Delta::from_millis(1));
        }
        // Calls that have begun end before interrupts are on again.
        synchronize_rcu();
    }
}
