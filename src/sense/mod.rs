// SPDX-License-Identifier: GPL-2.0-only

//! Where events enter.

pub(crate) mod exit;
pub(crate) mod packet;
pub(crate) mod vcpu;
