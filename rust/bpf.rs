// SPDX-License-Identifier: GPL-2.0-only

//! Packet filters.
//!
//! C header: [`include/linux/filter.h`](srctree/include/linux/filter.h)

use super::{bindings as helpers, skb::Packet};
use core::ptr::NonNull;
use kernel::{bindings, error::to_result, prelude::*, uaccess::UserPtr};

/// A classic BPF program, checked and compiled by the kernel.
///
/// # Invariants
///
/// `prog` is a program that the kernel made of a user's, and this owns it.
pub(crate) struct Filter {
    prog: NonNull<bindings::bpf_prog>,
}

// SAFETY: A program does not change, and belongs to no thread.
unsafe impl Send for Filter {}
// SAFETY: As above; running it needs no exclusion.
unsafe impl Sync for Filter {}

impl Filter {
    /// Takes `len` instructions (`struct sock_filter`) from the user.
    ///
    /// Errors: `EINVAL` for a program that the kernel does not accept (a jump backwards or out of it, an
    /// unknown instruction, no instruction, more than `BPF_MAXINSNS`), `EFAULT` for a bad address,
    /// `ENOMEM`. Needs a context that may sleep.
    pub(crate) fn from_user(insns: UserPtr, len: u16) -> Result<Self> {
        let mut program = bindings::sock_fprog {
            len,
            filter: insns.as_mut_ptr().cast(),
        };
        let mut prog = core::ptr::null_mut();
        // SAFETY: `program` and `prog` are valid for the call, which checks the user's address, copies
        // the instructions once, and checks the copy.
        to_result(unsafe {
            helpers::bpf_prog_create_from_user(&raw mut prog, &raw mut program, None, false)
        })?;
        // INVARIANT: After success the program is ours.
        Ok(Self {
            prog: NonNull::new(prog).ok_or(EINVAL)?,
        })
    }

    /// Whether the program accepts the packet. For softirq and process context.
    pub(crate) fn accepts(&self, packet: &Packet) -> bool {
        // SAFETY: Both are valid by their types' invariants. Classic BPF reads no more than the packet
        // has: a load beyond its end rejects the packet.
        unsafe { helpers::sleepy_filter_accepts(self.prog.as_ptr(), packet.as_ptr()) }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the program is ours; nobody runs it, since that needs a reference
        // to `self`.
        unsafe { helpers::bpf_prog_destroy(self.prog.as_ptr()) };
    }
}
