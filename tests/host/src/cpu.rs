// SPDX-License-Identifier: GPL-2.0-only

//! Who runs where.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Result;

/// Moves this thread, and what it starts from now on, to a CPU.
pub fn pin_self(cpu: usize) -> Result<()> {
    pin(None, cpu)
}

/// Moves a thread to a CPU.
pub fn pin(thread: Option<Pid>, cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(thread, &only)
        .map_err(|error| format!("CPU {cpu}: {error}; the test host needs 2 CPUs"))?)
}
