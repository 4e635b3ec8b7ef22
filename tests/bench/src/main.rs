// SPDX-License-Identifier: GPL-2.0-only

//! The paper's experiment: chains of functions, each function in a microVM of its own, more of them than there are CPUs for.
//!
//! All vCPUs share one CPU; the VMMs, the clients and the object store are on the other. scripts/bench runs it in the test
//! host, and sleepy-report tells the results.

mod alone;
mod arrivals;
mod chain;
mod fleet;
mod grid;
mod merge;
mod network;
mod output;
mod plan;
mod store;
mod system;
mod trial;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sleepy_bench::record::{Host, Record};
use sleepy_bench::systems::SYSTEMS;
use sleepy_host::ctl::Sleepyctl;
use sleepy_host::vm::{self, Image};
use sleepy_host::{Result, call, cpu};

use fleet::SPARE_CPU;
use grid::Grid;
use output::Output;
use plan::{Plan, Size};
use store::Store;
use system::Programs;

/// In MiB, of a microVM.
const MEMORY: u32 = 64;

/// Runs chains of function microVMs with each system in turn, and writes down what was measured.
#[derive(Parser)]
#[command(name = "sleepy-bench", version)]
struct Arguments {
    /// The sleepyctl to use
    #[arg(long, value_name = "FILE")]
    ctl: PathBuf,
    /// The module; it is loaded
    #[arg(long, value_name = "FILE")]
    ko: PathBuf,
    /// Kernel of the microVMs
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Initramfs of the microVMs
    #[arg(long, value_name = "FILE")]
    initramfs: PathBuf,
    /// The userspace controller
    #[arg(long, value_name = "FILE")]
    controller: PathBuf,
    /// Where the sched_ext schedulers are, for a kernel that has sched_ext
    #[arg(long, value_name = "DIR")]
    scx: Option<PathBuf>,
    /// How much is measured
    #[arg(long, value_enum, default_value = "quick")]
    size: Size,
    /// Only this system; may be repeated
    #[arg(long, value_name = "NAME", value_parser = SYSTEMS)]
    system: Vec<String>,
    /// Only this cell, as "compile small, busypoll, 50 chains", or those with this in their names; may be repeated
    #[arg(long, value_name = "NAME")]
    cell: Vec<String>,
    /// No cell: only the guest that has its CPU for itself
    #[arg(long, conflicts_with = "cell")]
    alone: bool,
    /// How often each system is measured in a cell [default: 3, or 1 with --size small]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: Option<u32>,
    /// The file of the results; a run that was stopped goes on
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// The options make no sense: to try again is of no use.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (result, failure) = match plan(&arguments) {
        Ok(plan) => (run(&arguments, &plan), 1),
        Err(error) => (Err(error), USAGE),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(failure)
        }
    }
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    let mut plan = Plan::new(arguments.size);
    if arguments.alone {
        plan.cells.clear();
    }
    plan.keep(&arguments.cell)?;
    if let Some(repetitions) = arguments.repetitions {
        plan.repetitions = repetitions;
    }
    Ok(plan)
}

fn run(arguments: &Arguments, plan: &Plan) -> Result<()> {
    let mut output = Output::open(&arguments.out)?;
    output.write(Record::Host(host()?))?;
    cpu::gather(SPARE_CPU)?;
    vm::load_vhost()?;
    network::make()?;
    let store = Store::start()?;
    let ctl = Sleepyctl::new(&arguments.ctl);
    let image = Image {
        kernel: arguments.kernel.clone(),
        initramfs: arguments.initramfs.clone(),
        memory: MEMORY,
    };
    let programs = Programs {
        scx: arguments.scx.clone().unwrap_or_default(),
        controller: arguments.controller.clone(),
    };
    let all = || SYSTEMS.map(str::to_owned).to_vec();
    let systems = Some(arguments.system.clone()).filter(|systems| !systems.is_empty());
    call("insmod", &[&arguments.ko.display().to_string()])?;
    let grid = Grid {
        ctl: &ctl,
        image: &image,
        programs: &programs,
        plan,
        systems: &systems.unwrap_or_else(all),
        store: &store,
    };
    grid.run(&mut output)?;
    alone::run(&ctl, &image, &arguments.ko, &store, plan.alone, &mut output)
}

fn host() -> Result<Host> {
    let first = |file: &str, key: &str| -> Result<String> {
        let text = fs::read_to_string(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let value = line.and_then(|line| line.split_once(':'));
        Ok(value
            .ok_or_else(|| format!("{file}: no {key}"))?
            .1
            .trim()
            .to_owned())
    };
    let memory = first("/proc/meminfo", "MemTotal")?;
    // This process may not be allowed on all of them.
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let cpus = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    Ok(Host {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        cpu: first("/proc/cpuinfo", "model name")?,
        cpus: u32::try_from(cpus)?,
        vcpu_cpus: 1,
        memory: memory.trim_end_matches(" kB").parse::<u64>()? / 1024,
        accelerator: std::env::var("SLEEPY_ACCEL").unwrap_or_else(|_| "kvm".into()),
    })
}
