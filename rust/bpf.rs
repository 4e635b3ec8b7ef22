// SPDX-License-Identifier: GPL-2.0-only

//! Packet filters.
//!
//! C headers: [`include/linux/filter.h`](srctree/include/linux/filter.h),
//! [`include/linux/bpf.h`](srctree/include/linux/bpf.h)

use super::{bindings as helpers, skb::Packet};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    prelude::*,
    uaccess::UserPtr,
};

/// A program that looks at packets: classic BPF, or eBPF that the user has loaded.
///
/// # Invariants
///
/// `prog` is a program for packets, and this owns it; with `loaded`, as one of several references.
pub(crate) struct Filter {
    prog: NonNull<bindings::bpf_prog>,
    loaded: bool,
}

// SAFETY: A program does not change, and belongs to no thread.
unsafe impl Send for Filter {}
// SAFETY: As above; running it needs no exclusion.
unsafe impl Sync for Filter {}

impl Filter {
    /// Takes `len` classic instructions (`struct sock_filter`) from the user.
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
        let made = to_result(unsafe {
            helpers::bpf_prog_create_from_user(&raw mut prog, &raw mut program, None, false)
        });
        // What userspace has no name for: the kernel has no interpreter, and its compiler no memory.
        made.map_err(|error| if error == ENOTSUPP { ENOMEM } else { error })?;
        // INVARIANT: After success the program is ours.
        Ok(Self {
            prog: NonNull::new(prog).ok_or(EINVAL)?,
            loaded: false,
        })
    }

    /// The eBPF program behind a descriptor of the calling process. `EBADF` if it is not open, `EINVAL` if it
    /// is no program of type `BPF_PROG_TYPE_SOCKET_FILTER`.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: Looks the descriptor up in the current process, and takes a reference for us.
        let prog = from_err_ptr(unsafe { helpers::sleepy_prog_get(fd) })?;
        // INVARIANT: The reference is ours.
        Ok(Self {
            prog: NonNull::new(prog).ok_or(EINVAL)?,
            loaded: true,
        })
    }

    /// The id of an eBPF program; 0 of another.
    pub(crate) fn id(&self) -> u32 {
        if self.loaded {
            // SAFETY: Valid by the type invariant.
            unsafe { helpers::sleepy_prog_id(self.prog.as_ptr()) }
        } else {
            0
        }
    }

    /// What the program says of the packet. For softirq and process context.
    pub(crate) fn run(&self, packet: &Packet) -> u32 {
        // SAFETY: Both are valid by their types' invariants. Classic BPF reads no more than the packet
        // has: a load beyond its end returns 0. eBPF was checked by the verifier.
        unsafe { helpers::sleepy_filter_run(self.prog.as_ptr(), packet.as_ptr()) }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the program, or a reference to it, is ours; nobody runs it, since
        // that needs a reference to `self`.
        unsafe {
            if self.loaded {
                helpers::sleepy_prog_put(self.prog.as_ptr());
            } else {
                helpers::bpf_prog_destroy(self.prog.as_ptr());
            }
        }
    }
}
