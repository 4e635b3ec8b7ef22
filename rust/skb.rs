// SPDX-License-Identifier: GPL-2.0-only

//! Packets.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use super::bindings as helpers;
use core::ptr::NonNull;
use kernel::bindings;

/// A packet on its way, as a hook on its device sees it.
///
/// # Invariants
///
/// `skb` is valid and this thread's alone for as long as this lives, its data begin with the link layer's
/// header, and `net` is the namespace of its device.
pub(crate) struct Packet {
    skb: NonNull<bindings::sk_buff>,
    net: NonNull<bindings::net>,
    pushed: bool,
}

impl Packet {
    /// # Safety
    ///
    /// `skb` and `net` must be as the invariants say, until the result is dropped; but with `pulled` the
    /// data begin behind the link layer's header. They do again when the result is dropped.
    pub(super) unsafe fn new(
        skb: NonNull<bindings::sk_buff>,
        net: NonNull<bindings::net>,
        pulled: bool,
    ) -> Self {
        if pulled {
            // SAFETY: The packet came from a device, so that its header is there, in front of its data.
            unsafe { helpers::sleepy_skb_push_mac(skb.as_ptr()) };
        }
        // INVARIANT: By the safety requirements and the push.
        Self {
            skb,
            net,
            pushed: pulled,
        }
    }

    /// The packet's `sk_buff`.
    pub(super) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.skb.as_ptr()
    }

    /// What TCP says of it. Of something else: it is whole.
    pub(crate) fn segment(&self) -> Segment {
        let mut said = helpers::sleepy_tcp::default();
        // SAFETY: Valid by the type invariants, and `said` is ours.
        unsafe { helpers::sleepy_skb_tcp(self.skb.as_ptr(), &mut said) };
        let has = |flag| said.flags & flag != 0;
        let (tcp, pushed) = (has(helpers::SLEEPY_TCP), has(helpers::SLEEPY_TCP_PUSHED));
        Segment {
            pushed: !tcp || pushed,
            more: tcp && (!pushed || has(helpers::SLEEPY_TCP_FULL)),
            bare: has(helpers::SLEEPY_TCP_BARE),
            end: tcp.then_some(said.end),
        }
    }

    /// Whether it is for many, and asks none of them for its address.
    pub(crate) fn tells_many(&self) -> bool {
        // SAFETY: Valid by the type invariants.
        unsafe { helpers::sleepy_skb_tells_many(self.skb.as_ptr()) }
    }

    /// Hash of the packet's flow (addresses, protocol and ports), the same in both directions.
    pub(crate) fn flow_hash(&self) -> u32 {
        // SAFETY: Valid by the type invariants.
        unsafe { helpers::sleepy_skb_flow_hash(self.skb.as_ptr(), self.net.as_ptr()) }
    }
}

/// What a packet says of itself, and of what comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Its sender wants it to be delivered: a message ends here, or as much of it as there is.
    pub(crate) pushed: bool,
    /// It is one of a longer message, of which more must come, or may well.
    pub(crate) more: bool,
    /// All that it does is to acknowledge what came the other way, or to end the connection.
    pub(crate) bare: bool,
    /// By TCP: the sequence number behind it.
    pub(crate) end: Option<u32>,
}

impl Drop for Packet {
    fn drop(&mut self) {
        if self.pushed {
            // SAFETY: Takes back what `new` has put in front.
            unsafe { helpers::sleepy_skb_pull_mac(self.skb.as_ptr()) };
        }
    }
}
