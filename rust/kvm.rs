// SPDX-License-Identifier: GPL-2.0-only

//! KVM's virtual machines, from outside of KVM.
//!
//! KVM exports next to nothing to other modules, and needs not be loaded when this one is. A VM is
//! therefore recognised by its descriptor, and looked into only while that descriptor is held.
//!
//! C header: [`include/linux/kvm_host.h`](srctree/include/linux/kvm_host.h)

use super::{bindings as helpers, process::task_from_raw};
use core::ptr::{self, NonNull};
use kernel::{bindings, prelude::*, sync::aref::ARef, task::Task};

/// Names a VM among those that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VmId(usize);

impl VmId {
    /// Of the VM at this address.
    pub(super) fn of(kvm: *const helpers::kvm) -> Self {
        Self(kvm as usize)
    }

    /// As a key.
    pub(crate) fn address(self) -> usize {
        self.0
    }
}

/// Keeps KVM's module loaded.
///
/// # Invariants
///
/// Owns a reference to the module, unless null: then KVM is built in.
pub(crate) struct KvmModule(*mut bindings::module);

// SAFETY: The reference may be given back by any thread.
unsafe impl Send for KvmModule {}
// SAFETY: There is nothing to do with a shared one.
unsafe impl Sync for KvmModule {}

impl Drop for KvmModule {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { helpers::sleepy_module_put(self.0) };
    }
}

/// Names a vCPU among those that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VcpuId(usize);

/// A VM that is held in place. Not to be kept: as long as it lives, so does the VM.
///
/// # Invariants
///
/// Owns a reference to `file`, a descriptor of the VM `kvm` or of one of its vCPUs.
pub(crate) struct Vm {
    file: NonNull<bindings::file>,
    kvm: NonNull<helpers::kvm>,
}

impl Vm {
    /// # Safety
    ///
    /// Unless null, `file` must be valid, with a reference that is the caller's to give away.
    unsafe fn from_file(file: *mut bindings::file) -> Option<Self> {
        let file = NonNull::new(file)?;
        // SAFETY: The file is valid by the safety requirement.
        let kvm = unsafe { helpers::sleepy_kvm_of_file(file.as_ptr()) };
        match NonNull::new(kvm) {
            // INVARIANT: The reference was given to us, and the file was recognised.
            Some(kvm) => Some(Self { file, kvm }),
            None => {
                // SAFETY: The reference was given to us.
                unsafe { bindings::fput(file.as_ptr()) };
                None
            }
        }
    }

    /// The VM behind a descriptor of the calling process. `EBADF` if it is not open, or not KVM's.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: Looks the descriptor up in the current process, and takes a reference for us.
        unsafe { Self::from_file(bindings::fget(fd)) }.ok_or(EBADF)
    }

    /// Every VM that the process of this thread has a descriptor of, once for each descriptor, from number `fd` on; `f` stops
    /// the search by returning something. `fd` is then where that was found. `ESRCH` if nothing was, `EAGAIN` after so many
    /// descriptors as are looked at: `fd` is where to go on.
    pub(crate) fn find<R>(
        thread: &Task,
        fd: &mut u32,
        most: u32,
        mut f: impl FnMut(&Self) -> Option<R>,
    ) -> Result<R> {
        for _ in 0..most {
            // SAFETY: The thread is valid by its reference; takes a reference to the file for us.
            let file = unsafe { bindings::fget_task_next(thread.as_ptr(), fd) };
            if file.is_null() {
                return Err(ESRCH);
            }
            // SAFETY: The reference is ours.
            if let Some(found) = unsafe { Self::from_file(file) }.and_then(|vm| f(&vm)) {
                return Ok(found);
            }
            *fd += 1;
        }
        Err(EAGAIN)
    }

    /// Keeps KVM's module loaded when the VM is gone.
    pub(crate) fn module(&self) -> KvmModule {
        // SAFETY: The file is valid, and keeps the module loaded until we have a reference of our own.
        // INVARIANT: That reference, or null.
        KvmModule(unsafe { helpers::sleepy_kvm_module_get(self.file.as_ptr()) })
    }

    /// Its identity.
    pub(crate) fn id(&self) -> VmId {
        VmId::of(self.kvm.as_ptr())
    }

    /// Whether it was made by the process of this thread: KVM runs a VM in no other.
    pub(crate) fn belongs_to(&self, thread: &Task) -> bool {
        // SAFETY: Both are valid by their references; the address space is compared, not used.
        unsafe {
            helpers::sleepy_task_has_mm(thread.as_ptr(), helpers::sleepy_kvm_mm(self.kvm.as_ptr()))
        }
    }

    /// Number of vCPUs made so far.
    pub(crate) fn vcpus(&self) -> u32 {
        // SAFETY: Valid by the type invariant.
        unsafe { helpers::sleepy_kvm_vcpus(self.kvm.as_ptr()) }
    }

    /// The vCPU with this index and the thread that runs it, if one has yet.
    pub(crate) fn vcpu(&self, index: u32) -> Option<(VcpuId, ARef<Task>)> {
        let mut vcpu = 0;
        // SAFETY: Valid by the type invariant; what is returned has a reference for us.
        let task = unsafe {
            task_from_raw(helpers::sleepy_kvm_vcpu_task(
                self.kvm.as_ptr(),
                index,
                &raw mut vcpu,
            ))
        }?;
        Some((VcpuId(vcpu), task))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::fput(self.file.as_ptr()) };
    }
}

/// Whether this thread is inside of `KVM_RUN` of that vCPU, and blocks there because the guest has halted.
/// For a `sched_out` notifier of the thread.
pub(crate) fn current_is_halted(vcpu: VcpuId) -> bool {
    // SAFETY: In a notifier the list of notifiers of the current thread is stable. The helper looks into
    // the vCPU only if KVM has it loaded in this thread.
    unsafe { helpers::sleepy_current_is_halted(vcpu.0 as c_ulong) }
}

/// How many interrupts KVM has injected into that vCPU's guest, if this thread is inside of `KVM_RUN` of it; otherwise 0.
pub(crate) fn injections(vcpu: VcpuId) -> u64 {
    // SAFETY: The helper looks into the vCPU only if KVM has it loaded in this thread.
    unsafe { helpers::sleepy_kvm_injections(vcpu.0 as c_ulong) }
}

/// How a thread that was to be parked was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// Not at all: it is not in `KVM_RUN` of that vCPU.
    Outside,
    /// Until `look` said so.
    Stopped,
    /// Not at all: there is an event for the vCPU.
    Pending,
    /// Until KVM woke it, for the vCPU's own timer.
    Tick,
    /// Until KVM woke it for something else.
    Kicked,
    /// Until there was a signal.
    Signal,
    /// Until its time was over.
    Over,
}

/// Waits, in a task_work of a vCPU's thread, in place of entering its guest: as if that had halted, until `until`
/// on the monotonic clock, or `look` says why. With `pending`, an event that waits for the vCPU already counts as one that
/// comes.
///
/// Whoever makes `look` say something else wakes the thread after that.
pub(crate) fn park<F: Fn() -> Option<Parked>>(
    vcpu: VcpuId,
    until: u64,
    pending: bool,
    look: &F,
) -> Parked {
    /// # Safety
    ///
    /// `data` must be a valid `F`.
    unsafe extern "C" fn call<F: Fn() -> Option<Parked>>(data: *mut c_void) -> c_uint {
        // SAFETY: By the safety requirement.
        let look = unsafe { &*data.cast::<F>() };
        match look() {
            None => helpers::SLEEPY_PARK_ON,
            Some(Parked::Kicked) => helpers::SLEEPY_PARK_KICKED,
            Some(_) => helpers::SLEEPY_PARK_STOPPED,
        }
    }

    let data = ptr::from_ref(look).cast_mut().cast();
    // SAFETY: A task_work may sleep, and `look` is valid until this returns. The helper looks into the vCPU only if
    // KVM has it loaded in this thread, which it has until the thread leaves `KVM_RUN`.
    let why = unsafe {
        helpers::sleepy_kvm_park(vcpu.0 as c_ulong, until, pending, Some(call::<F>), data)
    };
    match why {
        helpers::SLEEPY_PARK_STOPPED => Parked::Stopped,
        helpers::SLEEPY_PARK_PENDING => Parked::Pending,
        helpers::SLEEPY_PARK_TICK => Parked::Tick,
        helpers::SLEEPY_PARK_KICKED => Parked::Kicked,
        helpers::SLEEPY_PARK_SIGNAL => Parked::Signal,
        helpers::SLEEPY_PARK_OVER => Parked::Over,
        _ => Parked::Outside,
    }
}
