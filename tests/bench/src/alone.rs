// SPDX-License-Identifier: GPL-2.0-only

//! A well-behaved guest that has its CPU for itself: with the module and without it.

use std::path::Path;
use std::time::{Duration, Instant};

use sleepy_bench::record::{Alone, Record};
use sleepy_host::ctl::Sleepyctl;
use sleepy_host::vm::Image;
use sleepy_host::{Result, call};

use crate::chain::{CHAINS, Client};
use crate::fleet::Fleet;
use crate::output::Output;

/// `none` is without the module.
const SYSTEMS: [&str; 4] = ["none", "eevdf", "sleepy-nice", "sleepy-park"];

/// Asks one guest for an answer, again and again.
pub fn run(
    ctl: &Sleepyctl,
    image: &Image,
    module: &Path,
    (repetitions, time): (u32, Duration),
    output: &mut Output,
) -> Result<()> {
    let mut fleet = Fleet::new(ctl, image, CHAINS[1], "halt");
    fleet.grow(1, |_, _| {
        output.progress("a guest that has its CPU for itself")
    })?;
    let urls = fleet.urls();
    let client = Client::new(&CHAINS[1], (0, 1), &urls[0], "");
    for repetition in 0..repetitions {
        let mut systems = SYSTEMS;
        systems.rotate_left(repetition as usize % SYSTEMS.len());
        for system in systems {
            output.progress(&format!(
                "a guest that has its CPU for itself: {system} {}",
                repetition + 1
            ));
            if system == "none" {
                fleet.forget()?;
                call("rmmod", &["sleepy"])?;
            } else {
                fleet.apply(system.strip_prefix("sleepy-").unwrap_or("observe"))?;
            }
            // What is done for the first time is not counted.
            turn(&client, time / 2)?;
            let latency_ns = turn(&client, time)?;
            if system == "none" {
                call("insmod", &[&module.display().to_string()])?;
            }
            let seconds = latency_ns.iter().sum::<u64>() as f64 / 1e9;
            output.write(Record::Alone(Alone {
                system: system.into(),
                repetition,
                per_second: latency_ns.len() as f64 / seconds,
                latency_ns,
            }))?;
        }
    }
    Ok(())
}

/// How long each answer took, in nanoseconds.
fn turn(client: &Client, time: Duration) -> Result<Vec<u64>> {
    let end = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        client.ping()?;
        times.push(u64::try_from(begin.elapsed().as_nanos())?);
    }
    Ok(times)
}
