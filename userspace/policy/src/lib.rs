// SPDX-License-Identifier: GPL-2.0-only

//! The state machine of a VM, for the host: the files that the module compiles.

#[path = "../../../src/policy/mod.rs"]
#[rustfmt::skip] // formatted with the module
mod policy;

pub use policy::*;
