// SPDX-License-Identifier: GPL-2.0-only

//! Network devices and namespaces.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::bindings as helpers;
use core::ptr::NonNull;
use kernel::{
    bindings, container_of,
    error::{from_err_ptr, to_result},
    prelude::*,
    sync::Arc,
    types::{NotThreadSafe, Opaque},
};

/// Size of a device's name, with its terminating NUL.
pub(crate) const NAME_SIZE: usize = bindings::IFNAMSIZ as usize;

/// Evidence that this thread holds the network configuration's lock, `rtnl_mutex`.
///
/// While it lives no device is registered, unregistered, renamed or moved.
pub(crate) struct Rtnl {
    owned: bool,
    _thread: NotThreadSafe,
}

impl Rtnl {
    /// Takes the lock. May sleep.
    pub(crate) fn lock() -> Self {
        // SAFETY: In process context; whoever has an `Rtnl` already has no reason to ask for another, and
        // lockdep tells.
        unsafe { helpers::rtnl_lock() };
        Self {
            owned: true,
            _thread: NotThreadSafe,
        }
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: Taken by `lock` in this thread.
            unsafe { helpers::rtnl_unlock() };
        }
    }
}

/// A network namespace.
///
/// # Invariants
///
/// Owns a reference to it.
pub(crate) struct Net(NonNull<bindings::net>);

impl Net {
    /// The namespace that a descriptor of the calling process refers to. `EBADF` or `EINVAL` if it is none.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: Looks the descriptor up in the current process, and checks what it is.
        let net = from_err_ptr(unsafe { helpers::get_net_ns_by_fd(fd) })?;
        // INVARIANT: The call took a reference.
        Ok(Self(NonNull::new(net).ok_or(EINVAL)?))
    }

    /// The device with this index. `ENODEV` if there is none.
    pub(crate) fn device(&self, ifindex: u32, _rtnl: &Rtnl) -> Result<Device> {
        let index = i32::try_from(ifindex).map_err(|_| ENODEV)?;
        // SAFETY: The namespace is valid by the type invariant.
        let dev = unsafe { helpers::dev_get_by_index(self.0.as_ptr(), index) };
        // INVARIANT: The call took a reference.
        Ok(Device(NonNull::new(dev).ok_or(ENODEV)?))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { helpers::sleepy_put_net(self.0.as_ptr()) };
    }
}

/// Names a device among those that exist at the same time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceId(usize);

/// A network device. Must be let go when it is unregistered: see [`OnUnregister`].
///
/// # Invariants
///
/// Owns a reference to it.
pub(crate) struct Device(NonNull<bindings::net_device>);

// SAFETY: A reference to a device may be given back by any thread.
unsafe impl Send for Device {}
// SAFETY: What can be read of a device without RTNL is read atomically.
unsafe impl Sync for Device {}

impl Device {
    /// The device itself.
    pub(super) fn as_ptr(&self) -> *mut bindings::net_device {
        self.0.as_ptr()
    }

    /// Its namespace; it stays in there while RTNL is held.
    pub(super) fn net(&self, _rtnl: &Rtnl) -> *mut bindings::net {
        // SAFETY: The device is valid by the type invariant.
        unsafe { helpers::sleepy_dev_net(self.0.as_ptr()) }
    }

    /// Its identity.
    pub(crate) fn id(&self) -> DeviceId {
        DeviceId(self.0.as_ptr() as usize)
    }

    /// Whether its packets have an Ethernet header.
    pub(crate) fn is_ethernet(&self) -> bool {
        // SAFETY: The device is valid by the type invariant.
        unsafe { helpers::sleepy_dev_is_ethernet(self.0.as_ptr()) }
    }

    /// Its index in its namespace.
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: The device is valid by the type invariant.
        unsafe { helpers::sleepy_dev_ifindex(self.0.as_ptr()) }
    }

    /// Inode number of its namespace.
    pub(crate) fn netns(&self, rtnl: &Rtnl) -> u64 {
        // SAFETY: A device's namespace lives at least as long as the device is in it.
        unsafe { helpers::sleepy_net_inode(self.net(rtnl)) }
    }

    /// Its name.
    pub(crate) fn name(&self, _rtnl: &Rtnl) -> [u8; NAME_SIZE] {
        let mut name = [0u8; NAME_SIZE];
        // SAFETY: The device is valid by the type invariant, there is room for a name, and RTNL is held.
        unsafe { helpers::sleepy_dev_name(self.0.as_ptr(), name.as_mut_ptr().cast()) };
        name
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { helpers::sleepy_dev_put(self.0.as_ptr()) };
    }
}

/// Is told when a device goes away.
pub(crate) trait OnUnregister: Send + Sync + 'static {
    /// A device is being unregistered, or moved to another namespace. Called under RTNL, in process context.
    /// Every [`Device`] of it must be dropped soon: the kernel waits for that.
    fn on_unregister(&self, device: DeviceId, rtnl: &Rtnl);
}

/// Registration of an [`OnUnregister`], for all namespaces. Dropping it takes RTNL, and waits for a call
/// under way.
///
/// # Invariants
///
/// `block` is registered as long as this lives, and pinned inside its `UnregisterNotifier<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct UnregisterNotifier<T: OnUnregister> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    target: Arc<T>,
}

// SAFETY: May be unregistered by any thread.
unsafe impl<T: OnUnregister> Send for UnregisterNotifier<T> {}
// SAFETY: Nothing can be done with a reference.
unsafe impl<T: OnUnregister> Sync for UnregisterNotifier<T> {}

impl<T: OnUnregister> UnregisterNotifier<T> {
    /// Registers `target`.
    pub(crate) fn new(target: Arc<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            target,
            block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                let block = bindings::notifier_block {
                    notifier_call: Some(Self::call),
                    ..Default::default()
                };
                // SAFETY: `slot` is valid for writing, and pinned until it is unregistered.
                // INVARIANT: Registered, if this succeeds.
                to_result(unsafe {
                    slot.write(block);
                    helpers::register_netdevice_notifier(slot)
                })
            }),
        })
    }

    /// # Safety
    ///
    /// For the network core alone, which holds RTNL.
    unsafe extern "C" fn call(
        block: *mut bindings::notifier_block,
        event: c_ulong,
        info: *mut c_void,
    ) -> c_int {
        if event as u64 == helpers::SLEEPY_NETDEV_UNREGISTER as u64 {
            let block = Opaque::cast_from(block.cast_const()).cast_mut();
            // SAFETY: By the type invariant `block` is in an `UnregisterNotifier<T>`, which is not freed
            // before this call returns.
            let this = unsafe { &*container_of!(block, Self, block) };
            // The lock is the caller's: evidence only.
            let rtnl = Rtnl {
                owned: false,
                _thread: NotThreadSafe,
            };
            // SAFETY: `info` is a device notification's.
            let dev = unsafe { helpers::sleepy_notifier_dev(info) };
            this.target.on_unregister(DeviceId(dev as usize), &rtnl);
        }
        bindings::NOTIFY_DONE as c_int
    }
}

#[pinned_drop]
impl<T: OnUnregister> PinnedDrop for UnregisterNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { helpers::unregister_netdevice_notifier(self.block.get()) };
    }
}
