// SPDX-License-Identifier: GPL-2.0-only

//! The ioctl ABI of `/dev/sleepy`, for userspace: the file that the module compiles.

#[path = "../../../src/uapi.rs"]
#[rustfmt::skip] // formatted with the module
mod uapi;

pub use uapi::*;
