// SPDX-License-Identifier: GPL-2.0-only

//! Netfilter hooks on a network device.
//!
//! C header: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use super::{
    bindings as helpers,
    netdev::{Device, Rtnl},
    skb::Packet,
};
use core::ptr::NonNull;
use kernel::{bindings, error::to_result, prelude::*, types::Opaque};

/// Which way a packet goes through a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Out of the host, into the device: `NF_NETDEV_EGRESS`.
    Egress,
    /// From the device, into the host: `NF_NETDEV_INGRESS`.
    Ingress,
}

impl Direction {
    const fn hooknum(self) -> c_uint {
        match self {
            Self::Egress => helpers::nf_dev_hooks_NF_NETDEV_EGRESS,
            Self::Ingress => helpers::nf_dev_hooks_NF_NETDEV_INGRESS,
        }
    }
}

/// Sees packets.
pub(crate) trait PacketHook: Send + Sync + 'static {
    /// A packet passes. In softirq or process context, under RCU, with bottom halves off; several CPUs may
    /// call at once. Must not sleep.
    fn packet(&self, packet: &Packet, direction: Direction);
}

/// # Invariants
///
/// `ops` is registered in `net`.
#[pin_data(PinnedDrop)]
struct Registration {
    #[pin]
    ops: Opaque<helpers::nf_hook_ops>,
    net: NonNull<bindings::net>,
}

impl Registration {
    /// # Safety
    ///
    /// `hook` must stay valid until a grace period after the registration is dropped.
    unsafe fn new<'a, T: PacketHook>(
        device: &'a Device,
        direction: Direction,
        hook: *const T,
        rtnl: &'a Rtnl,
    ) -> impl PinInit<Self, Error> + 'a {
        let netns = device.net(rtnl);
        let hook: *mut c_void = hook.cast_mut().cast();
        try_pin_init!(Self {
            net: NonNull::new(netns).ok_or(ENODEV)?,
            ops <- Opaque::try_ffi_init(move |slot: *mut helpers::nf_hook_ops| {
                // SAFETY: `slot` is valid for writing; all-zero is a valid `nf_hook_ops`.
                unsafe { slot.write_bytes(0, 1) };
                // SAFETY: `slot` was just initialised.
                let ops = unsafe { &mut *slot };
                ops.hook = Some(call::<T>);
                ops.dev = device.as_ptr();
                ops.priv_ = hook;
                ops.pf = helpers::SLEEPY_PF_NETDEV as u8;
                ops.hooknum = direction.hooknum();
                // SAFETY: `ops` is complete and pinned, the device is there, and RTNL keeps it there.
                // INVARIANT: Registered, if this succeeds.
                to_result(unsafe { helpers::nf_register_net_hook(netns, slot) })
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Registration {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant. The namespace outlives every device in it, and the
        // device is still in it: `DeviceHooks` is dropped before it leaves.
        unsafe { helpers::nf_unregister_net_hook(self.net.as_ptr(), self.ops.get()) };
    }
}

/// # Safety
///
/// For netfilter alone, as the `hook` of a [`Registration`] for `T`.
unsafe extern "C" fn call<T: PacketHook>(
    hook: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const helpers::nf_hook_state,
) -> c_uint {
    // SAFETY: Netfilter calls with the state of this call.
    let state = unsafe { &*state };
    let direction = if c_uint::from(state.hook) == Direction::Egress.hooknum() {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    if let (Some(skb), Some(net)) = (NonNull::new(skb), NonNull::new(state.net)) {
        // SAFETY: The packet is ours until we return. At ingress the stack has pulled its header.
        let packet = unsafe { Packet::new(skb, net, direction == Direction::Ingress) };
        // SAFETY: `hook` is the one that was registered, and is valid until a grace period after it is
        // unregistered; this call is within a reader's section.
        unsafe { &*hook.cast::<T>() }.packet(&packet, direction);
    }
    helpers::NF_ACCEPT
}

/// Waits, when dropped, until no hook that is unregistered by then is running.
struct Grace;

impl Drop for Grace {
    fn drop(&mut self) {
        // SAFETY: In process context. Expedited, since RTNL is held.
        unsafe { helpers::synchronize_net() };
    }
}

/// Hooks on both directions of one device. They see every packet and let it pass.
///
/// To be dropped under RTNL, and before the device leaves its namespace or the system: from
/// [`OnUnregister`](super::netdev::OnUnregister) at the latest.
// The order of the fields is the order of dropping: the hooks, a grace period, what they use.
#[pin_data]
pub(crate) struct DeviceHooks<T: PacketHook> {
    #[pin]
    egress: Registration,
    #[pin]
    ingress: Registration,
    grace: Grace,
    hook: T,
    device: Device,
}

// SAFETY: The hooks may be unregistered by any thread; `T` is `Send`.
unsafe impl<T: PacketHook> Send for DeviceHooks<T> {}
// SAFETY: A reference gives the device and the hook, which are `Sync`.
unsafe impl<T: PacketHook> Sync for DeviceHooks<T> {}

impl<T: PacketHook> DeviceHooks<T> {
    /// Hooks `hook` to `device`. `ENOMEM`; `E2BIG` if the device has too many hooks.
    pub(crate) fn register(device: Device, hook: T, rtnl: &Rtnl) -> Result<Pin<KBox<Self>>> {
        KBox::try_pin_init(
            try_pin_init!(&this in Self {
                hook,
                device,
                grace: Grace,
                // SAFETY: `hook` was initialised above, is pinned, and is dropped after `grace`.
                egress <- unsafe {
                    Registration::new(
                        &(*this.as_ptr()).device,
                        Direction::Egress,
                        &raw const (*this.as_ptr()).hook,
                        rtnl,
                    )
                },
                // SAFETY: As above.
                ingress <- unsafe {
                    Registration::new(
                        &(*this.as_ptr()).device,
                        Direction::Ingress,
                        &raw const (*this.as_ptr()).hook,
                        rtnl,
                    )
                },
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The device.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}
