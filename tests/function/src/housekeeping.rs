// SPDX-License-Identifier: GPL-2.0-only

//! Management work that has nothing to do with requests: a share of the vCPU, in bursts, goes into checking the integrity
//! of the program's own file.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::hint::black_box;
use std::io;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::stage::thread_time;

/// From one burst to the next.
const PERIOD: Duration = Duration::from_millis(10);
/// Hashed between two looks at the clock: some 10 us on real hardware.
const PIECE: usize = 16 * 1024;

/// Starts it, for ever. Fails if the program's file cannot be read.
pub fn start(percent: u32) -> io::Result<()> {
    let program = fs::read(std::env::current_exe()?)?;
    let burst = PERIOD * percent / 100;
    thread::Builder::new()
        .name("housekeeping".into())
        .spawn(move || {
            let mut pieces = program.chunks(PIECE).cycle();
            let mut hasher = DefaultHasher::new();
            let mut due = Instant::now();
            loop {
                let begin = thread_time();
                for piece in pieces.by_ref() {
                    hasher.write(piece);
                    if thread_time() - begin >= burst {
                        break;
                    }
                }
                black_box(hasher.finish());
                // Bursts that were missed are not made up for.
                due = Instant::now().max(due + PERIOD);
                sleep(due.saturating_duration_since(Instant::now()));
            }
        })?;
    Ok(())
}
