// SPDX-License-Identifier: GPL-2.0-only

//! Who runs where.

use std::fs;

use procfs::process::all_processes;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Result;

/// Moves this thread, and what it starts from now on, to a CPU.
pub fn pin_self(cpu: usize) -> Result<()> {
    pin(None, cpu)
}

/// Moves to a CPU whatever is there, and of the kernel what can be moved: the others are left to those who pin
/// themselves there. The kernel's own way, `isolcpus=`, is one that sched_ext's schedulers refuse.
pub fn gather(cpu: usize) -> Result<()> {
    let file = "/sys/devices/virtual/workqueue/cpumask";
    fs::write(file, format!("{:x}", 1u64 << cpu)).map_err(|error| format!("{file}: {error}"))?;
    for task in all_processes()?
        .flatten()
        .filter_map(|process| process.tasks().ok())
        .flatten()
        .flatten()
    {
        // Some are there for one CPU alone, and some are gone by now.
        let _ = pin(Pid::from_raw(task.tid), cpu);
    }
    pin_self(cpu)
}

/// Moves a thread to a CPU.
pub fn pin(thread: Option<Pid>, cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(thread, &only)
        .map_err(|error| format!("CPU {cpu}: {error}; the test host needs 2 CPUs"))?)
}
