// SPDX-License-Identifier: GPL-2.0-only

//! Which of the module's types may be copied from and to user space.

use crate::uapi;
use kernel::transmute::{AsBytes, FromBytes};

macro_rules! plain_bytes {
    ($($type:ty),* $(,)?) => {$(
        // SAFETY: `repr(C)`, with integers only.
        unsafe impl FromBytes for $type {}
        // SAFETY: As above, and without implicit padding: the fields' sizes add up to the type's, which
        // the ABI's own test checks.
        unsafe impl AsBytes for $type {}
    )*};
}

plain_bytes!(
    uapi::Info,
    uapi::Link,
    uapi::Rule,
    uapi::Vcpu,
    uapi::VmAdd,
    uapi::VmArray,
    uapi::VmGet,
    uapi::VmLink,
    uapi::VmRemove,
    uapi::VmRule,
    uapi::VmSet,
    uapi::VmStats,
);
