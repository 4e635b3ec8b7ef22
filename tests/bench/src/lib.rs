// SPDX-License-Identifier: GPL-2.0-only

//! The paper's experiment: what is written down of it.

pub mod peers;
pub mod record;
pub mod systems;
