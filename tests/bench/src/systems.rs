// SPDX-License-Identifier: GPL-2.0-only

//! What is compared, by name, in the order of the tables.

/// All of them.
pub const SYSTEMS: [&str; 11] = [
    "eevdf",
    "eevdf-tuned",
    "controller",
    "scx_bpfland",
    "scx_lavd",
    "scx_flash",
    "sleepy-nice",
    "sleepy-idle",
    "sleepy-cgroup",
    "sleepy-park",
    "sleepy-auto",
];
