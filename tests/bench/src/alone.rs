// SPDX-License-Identifier: GPL-2.0-only

//! A well-behaved guest that has its CPU for itself: with the module and without it.

use std::path::Path;
use std::time::{Duration, Instant};

use sleepy_bench::record::{Alone, Record};
use sleepy_host::ctl::Sleepyctl;
use sleepy_host::vm::Image;
use sleepy_host::{Result, call};

use crate::chain::{Chain, Client};
use crate::fleet::Fleet;
use crate::output::Output;
use crate::store::Store;
use crate::system;

/// `none` is without the module.
const SYSTEMS: [&str; 4] = ["none", "eevdf", "sleepy-nice", "sleepy-park"];
/// What is asked of the guest: nothing but an answer, or work.
const REQUESTS: [&str; 2] = ["answer", "function"];
/// Of one guest.
const CHAIN: Chain = Chain {
    name: "compile",
    stages: &["preprocess"],
};
/// What is done for the first time is not counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Asks one guest again and again: in so many turns for each system, each so long.
pub fn run(
    ctl: &Sleepyctl,
    image: &Image,
    module: &Path,
    store: &Store,
    (turns, time): (u32, Duration),
    output: &mut Output,
) -> Result<()> {
    let mut fleet = Fleet::new(ctl, image, CHAIN, "halt");
    let what = "a guest that has its CPU for itself";
    fleet.grow(1, |_, _| output.progress(what))?;
    store.put("input", CHAIN.input("small"));
    let client = Client::new(&CHAIN, (0, 1), &fleet.urls()[0], "input");
    for repetition in 0..turns {
        let mut systems = SYSTEMS;
        systems.rotate_left(repetition as usize % SYSTEMS.len());
        for system in systems {
            output.progress(&format!("{what}: {system} {}", repetition + 1));
            if system == "none" {
                fleet.forget()?;
                call("rmmod", &["sleepy"])?;
            } else {
                fleet.apply(system::lever(system))?;
            }
            for request in REQUESTS {
                let ask = || match request {
                    "answer" => client.ping(),
                    _ => client.call(Instant::now(), store).map(drop),
                };
                turn(ask, WARM_UP)?;
                let latency_ns = turn(ask, time)?;
                let seconds = latency_ns.iter().sum::<u64>() as f64 / 1e9;
                output.write(Record::Alone(Alone {
                    request: request.into(),
                    system: system.into(),
                    repetition,
                    per_second: latency_ns.len() as f64 / seconds,
                    latency_ns,
                }))?;
            }
            if system == "none" {
                call("insmod", &[&module.display().to_string()])?;
            }
        }
    }
    Ok(())
}

/// How long each request took, in nanoseconds.
fn turn(ask: impl Fn() -> Result<()>, time: Duration) -> Result<Vec<u64>> {
    let end = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        ask()?;
        times.push(u64::try_from(begin.elapsed().as_nanos())?);
    }
    Ok(times)
}
