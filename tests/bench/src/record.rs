// SPDX-License-Identifier: GPL-2.0-only

//! What the bench writes while it runs, a JSON object a line, and what its report reads.
//!
//! All times are in nanoseconds. CPU times are those of all vCPUs together.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is the same for all systems of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// `image` or `compile`.
    pub chain: String,
    /// `small` or `large`.
    pub input: String,
    /// How the guests wait: `halt`, `haltpoll`, `poll`, `busypoll`, `housekeeping20`, `housekeeping55`, `mix`.
    pub wait: String,
    /// Colocated chains.
    pub chains: u32,
    /// vCPUs for each CPU that they share.
    pub overcommit: u32,
    /// Where the object store is: `local` or `remote`.
    pub network: String,
    /// How requests come: `burst` (one to each chain, all at once), `poisson` or `azure`.
    pub arrival: String,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            chain,
            input,
            wait,
            chains,
            ..
        } = self;
        write!(f, "{chain} {input}, {wait}, {chains} chain")?;
        if *chains != 1 {
            f.write_str("s")?;
        }
        if self.network != "local" {
            write!(f, ", {} store", self.network)?;
        }
        if self.arrival != "burst" {
            write!(f, ", {}", self.arrival)?;
        }
        Ok(())
    }
}

/// One turn of one system in one cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// Which system, see [`crate::systems`].
    pub system: String,
    /// Where.
    pub cell: Cell,
    /// Counts from 0.
    pub repetition: u32,
    /// What was measured; or why nothing was.
    pub outcome: Result<Measured, String>,
}

/// What was measured in a trial.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// From the intended send time of a chain's first request to its last response, by the client's clock.
    pub exec_ns: Vec<u64>,
    /// From a request seen to the first vCPU of its VM on a CPU, by the module.
    pub trigger_ns: Vec<u64>,
    /// From a stage's response seen to the next stage's first vCPU on a CPU, by the module.
    pub inter_ns: Vec<u64>,
    /// From a request seen to its response seen, of each stage, by the module.
    pub stage_ns: Vec<u64>,
    /// From the first request to the last response of the trial.
    pub elapsed_ns: u64,
    /// On-CPU time while a request was in flight.
    pub useful_ns: u64,
    /// On-CPU time while none was, and the VM was awake.
    pub awake_ns: u64,
    /// On-CPU time while none was, and the VM was sleepy.
    pub sleepy_ns: u64,
    /// The same by other clocks.
    pub checks: Checks,
}

/// What the module measures, measured from outside: each is that of outside over that of the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checks {
    /// The stages' time as their client saw it.
    pub client: Option<f64>,
    /// The vCPU threads' time on a CPU, by their schedstat.
    pub schedstat: Option<f64>,
    /// A guest's steal time together with its vCPU's time on a CPU, over the time that passed; only where guests never
    /// halt.
    pub steal: Option<f64>,
}

/// How long it took from a packet seen to a weight changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reaction {
    /// Which system.
    pub system: String,
    /// Registered VMs.
    pub vms: u32,
    /// What was measured; or why nothing was.
    pub outcome: Result<Vec<u64>, String>,
}

/// One well-behaved guest alone on a CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alone {
    /// What it is asked for: `answer`, and nothing else; `function`: a stage of a chain.
    pub request: String,
    /// `none` (the module is not loaded) or a system.
    pub system: String,
    /// Counts from 0.
    pub repetition: u32,
    /// Requests answered in a second.
    pub per_second: f64,
    /// How long each took, by the client's clock.
    pub latency_ns: Vec<u64>,
}

/// What something costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// `packet`, `switch`, `exit`, `memory`, `apply`, `list`.
    pub path: String,
    /// Of a path, what was tried: `none` is without any hook.
    pub case: String,
    /// Rules of each VM, where that matters.
    pub rules: Option<u32>,
    /// VMs registered.
    pub vms: Option<u32>,
    /// How much; `None` if it could not be measured, then `why` says why.
    pub value: Option<f64>,
    /// Half of the range between the quartiles of its repetitions.
    pub spread: Option<f64>,
    /// `instructions`, `bytes`, `ns`.
    pub unit: String,
    /// Why there is no value.
    pub why: Option<String>,
}

/// A line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// Where all of it was measured.
    Host(Host),
    /// See there.
    Trial(Trial),
    /// See there.
    Reaction(Reaction),
    /// See there.
    Alone(Alone),
    /// See there.
    Cost(Cost),
}

/// The test host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Its kernel.
    pub kernel: String,
    /// Its processor, as it is called.
    pub cpu: String,
    /// CPUs.
    pub cpus: u32,
    /// CPUs that the vCPUs share.
    pub vcpu_cpus: u32,
    /// In MiB.
    pub memory: u64,
    /// `kvm`, or `tcg`: the emulator.
    pub accelerator: String,
}
