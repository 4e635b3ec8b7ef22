// SPDX-License-Identifier: GPL-2.0-only

//! A load that cannot bear to be stopped half-way: a thread on each vCPU takes a lock that it spins for, first come,
//! first served, and now and then wakes its neighbour by a socket, as hackbench does.

use std::error::Error;
use std::hint::spin_loop;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::answer::work;

/// Units of work under the lock.
const HELD: u64 = 20;
/// Turns between two messages to the neighbour.
const ROUNDS: u64 = 64;

static NEXT: AtomicU64 = AtomicU64::new(0);
static SERVED: AtomicU64 = AtomicU64::new(0);
/// The longest time that somebody has waited for the lock.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Takes the lock once; whoever has it does some work.
pub fn turn() {
    let start = Instant::now();
    let ticket = NEXT.fetch_add(1, SeqCst);
    while SERVED.load(SeqCst) != ticket {
        spin_loop();
    }
    let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    LONGEST.fetch_max(waited, SeqCst);
    work(HELD);
    SERVED.fetch_add(1, SeqCst);
}

/// How often the lock was taken so far, and the longest wait since this was last asked.
pub fn report() -> (u64, u64) {
    (SERVED.load(SeqCst), LONGEST.swap(0, SeqCst))
}

/// Starts a thread on each vCPU.
pub fn start(cpus: usize) -> Result<(), Box<dyn Error>> {
    let (mut to, from): (Vec<_>, Vec<_>) = (0..cpus)
        .map(|_| UnixStream::pair())
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .unzip();
    // Each writes to the next one.
    to.rotate_left(1);
    for (cpu, (mut to, mut from)) in to.into_iter().zip(from).enumerate() {
        thread::spawn(move || -> std::io::Result<()> {
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(None, &only)?;
            loop {
                for _ in 0..ROUNDS {
                    turn();
                }
                to.write_all(b"x")?;
                from.read_exact(&mut [0])?;
            }
        });
    }
    Ok(())
}
