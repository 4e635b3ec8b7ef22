// SPDX-License-Identifier: GPL-2.0-only

//! The demo: microVMs whose servers poll busily for their next request share one CPU, and are sent real
//! HTTP requests, in turns with each of a few levers: `observe`, which changes nothing, and two that do.
//!
//! Everything else (the VMMs, the client, this program) is on another CPU. All figures but the client's
//! own are the module's, as `sleepyctl -j stats` tells them. scripts/demo runs it in the test host.

mod load;
mod report;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use load::{Load, Work};
use report::Run;
use sleepy_host::ctl::Sleepyctl;
use sleepy_host::vm::{self, Image, Vm};
use sleepy_host::{Result, cpu};

/// The vCPUs share this CPU.
const VCPU_CPU: usize = 1;
/// Everything else is here.
const SPARE_CPU: usize = 0;
/// In MiB, of a microVM.
const MEMORY: u32 = 64;

/// In this order, in each round.
const LEVERS: [&str; 3] = ["observe", "nice", "park"];
/// What happens in this time after a change of lever is not counted.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs microVMs with real requests, without and with sleepy, side by side.
#[derive(Parser)]
#[command(name = "sleepy-demo", version)]
struct Arguments {
    /// The sleepyctl to use
    #[arg(long, default_value = "sleepyctl", value_name = "FILE")]
    ctl: PathBuf,
    /// Kernel of the microVMs
    #[arg(long, value_name = "FILE")]
    guest_kernel: PathBuf,
    /// Initramfs of the microVMs
    #[arg(long, value_name = "FILE")]
    guest: PathBuf,
    /// Number of microVMs
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=16))]
    vms: u8,
    /// Rounds of each lever
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Time of a round
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// CPU time of a request
    #[arg(long, default_value_t = 5, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    work: u64,
    /// Mean pause between an answer and the next request
    #[arg(long, default_value_t = 20, value_name = "MILLISECONDS")]
    think: u64,
    /// Write demo.json in this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let ctl = Sleepyctl::new(&arguments.ctl);
    let vms = arguments.vms;

    progress(&format!("starting {vms} microVMs"))?;
    let begin = Instant::now();
    vm::load_vhost()?;
    cpu::gather(SPARE_CPU)?;
    let image = Image {
        kernel: arguments.guest_kernel.clone(),
        initramfs: arguments.guest.clone(),
        memory: MEMORY,
    };
    let mut guests = Vec::new();
    for number in 1..=vms {
        guests.push(Vm::start(number, &image, "wait=busy")?);
    }
    for guest in &mut guests {
        guest.wait_ready()?;
    }
    println!("{:.0} s", begin.elapsed().as_secs_f64());

    for guest in &guests {
        ctl.add(guest.pid(), guest.name(), vm::PORT, LEVERS[0])?;
        guest.pin(&ctl.vcpus(guest.name())?, VCPU_CPU, SPARE_CPU)?;
    }
    progress("measuring the work of a request")?;
    let work = Work::measure(&guests, Duration::from_millis(arguments.work))?;
    println!("{} units", work.units());

    let load = Load {
        work,
        think: Duration::from_millis(arguments.think),
        time: Duration::from_secs(arguments.seconds),
    };
    let mut runs = LEVERS.map(Run::new);
    for round in 1..=arguments.rounds {
        for run in &mut runs {
            progress(&format!(
                "round {round} of {}, {:7}",
                arguments.rounds,
                run.lever()
            ))?;
            for guest in &guests {
                ctl.set_lever(guest.name(), run.lever())?;
            }
            std::thread::sleep(SETTLE);
            let before = ctl.stats()?;
            // The same requests at the same pace for every lever.
            let latencies = load.run(&guests, u64::from(round))?;
            let after = ctl.stats()?;
            println!("{} requests", latencies.len());
            run.add(&before, &after, latencies)?;
        }
    }
    for guest in &guests {
        ctl.remove(guest.name())?;
    }

    println!();
    print!("{}", report::table(&runs, vms, arguments)?);
    if let Some(dir) = &arguments.out {
        std::fs::create_dir_all(dir)?;
        let file = dir.join("demo.json");
        let text = serde_json::to_string_pretty(&report::json(&runs, vms)?)?;
        std::fs::write(&file, text + "\n")
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

fn progress(what: &str) -> Result<()> {
    print!("demo: {what}: ");
    Ok(stdout().flush()?)
}
