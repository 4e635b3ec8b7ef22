// SPDX-License-Identifier: GPL-2.0-only

//! Init of a test microVM: configures its network, then serves HTTP, gRPC and UDP.
//!
//! Everything it is told is on the kernel's command line, whose unknown `name=value` parameters the kernel
//! passes to init as environment; README.md lists them.

mod answer;
mod call;
mod grpc;
mod page;
mod server;
mod storm;
mod web;

use std::error::Error;
use std::thread;

use rustix::thread::{CpuSet, sched_setaffinity};
use sleepy_guest::setting;

use server::{Server, Wait};

fn main() -> Result<(), Box<dyn Error>> {
    sleepy_guest::init()?;
    let wait = match setting("wait").as_deref() {
        None | Some("block") => Wait::Block,
        Some("busy") => Wait::Busy,
        Some(other) => return Err(format!("wait={other}: give block or busy").into()),
    };

    // One server for each vCPU, all on the same ports.
    let cpus = thread::available_parallelism()?.get();
    let servers = (0..cpus)
        .map(|_| Server::new(wait))
        .collect::<Result<Vec<_>, _>>()?;
    let web = web::Server::new()?;
    match setting("load").as_deref() {
        None => {}
        Some("storm") => storm::start(cpus)?,
        Some(other) => return Err(format!("load={other}: give storm").into()),
    }
    let mut threads: Vec<_> = servers
        .into_iter()
        .enumerate()
        .map(|(cpu, server)| {
            thread::spawn(move || {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only)?;
                server.run()
            })
        })
        .collect();
    threads.push(thread::spawn(|| web.run()));
    println!("READY");
    for thread in threads {
        thread.join().map_err(|_| "a server panicked")??;
    }
    Ok(())
}
