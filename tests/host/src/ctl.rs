// SPDX-License-Identifier: GPL-2.0-only

//! sleepyctl, and what is read of its answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Result;

/// The module notices the vCPU threads of a VM within about a second.
const ATTACH_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// See the module.
pub struct Sleepyctl {
    program: PathBuf,
}

#[derive(Deserialize)]
struct Show {
    vm: Shown,
}

#[derive(Deserialize)]
struct Shown {
    policy: Policy,
    vcpus: Vec<Vcpu>,
}

#[derive(Deserialize)]
struct Policy {
    lever: String,
}

#[derive(Deserialize)]
struct Vcpu {
    tid: i32,
    attached: bool,
}

#[derive(Deserialize)]
struct StatsAnswer {
    vms: Vec<Stats>,
}

/// What one VM did since it was added.
#[derive(Deserialize)]
pub struct Stats {
    /// The VM.
    pub name: String,
    /// Packets that were a request.
    pub requests: u64,
    /// Packets that were a response.
    pub responses: u64,
    /// Requests without a response in time.
    pub timeouts: u64,
    /// Requests that found the flow table full.
    pub overflows: u64,
    /// On-CPU time of the vCPUs.
    pub oncpu_ns: Phases,
    /// From a request seen to the first vCPU on a CPU.
    pub trigger_ns: Histogram,
    /// From a request seen to its first response.
    pub exec_ns: Histogram,
    /// From a wake-up seen to its effect.
    pub effect_ns: Histogram,
    /// Of the last request.
    pub last_ns: Option<Last>,
}

/// When things were seen, by `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Deserialize)]
pub struct Last {
    /// A request.
    pub request: Option<u64>,
    /// A vCPU on a CPU, after that.
    pub ran: Option<u64>,
    /// Its response.
    pub response: Option<u64>,
}

/// A time in each phase of a VM.
#[derive(Clone, Copy, Default, Deserialize)]
pub struct Phases {
    /// A request was in flight.
    pub in_flight: u64,
    /// None was; awake.
    pub idle: u64,
    /// None was; sleepy.
    pub sleepy: u64,
}

/// The buckets of a histogram that are not empty: lower bound, upper bound, count.
#[derive(Deserialize)]
pub struct Histogram {
    buckets: Vec<(u64, u64, u64)>,
}

impl Histogram {
    /// Upper bound and count of each bucket.
    pub fn counts(&self) -> BTreeMap<u64, u64> {
        self.buckets
            .iter()
            .map(|(_, upper, count)| (*upper, *count))
            .collect()
    }
}

impl Sleepyctl {
    /// `program` is its file.
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
        }
    }

    /// Adds a VM that serves TCP requests on `port`.
    pub fn add(&self, pid: u32, name: &str, port: u16, lever: &str) -> Result<()> {
        let request = format!("tcp dst port {port}");
        let response = format!("tcp src port {port}");
        let pid = pid.to_string();
        let arguments = ["vm", "add", "--pid", &pid, "--name", name, "--lever", lever];
        self.call(
            &[
                &arguments[..],
                &["--request", &request, "--response", &response],
            ]
            .concat(),
        )?;
        Ok(())
    }

    /// Makes the VMs what a manifest says.
    pub fn apply(&self, manifest: &Path) -> Result<()> {
        self.call(&["apply", &manifest.display().to_string()])?;
        Ok(())
    }

    /// Changes a VM's lever.
    pub fn set_lever(&self, name: &str, lever: &str) -> Result<()> {
        self.call(&["vm", "set", name, "--lever", lever])?;
        let now = self.show(name)?.policy.lever;
        if now != lever {
            return Err(format!("{name}: the lever is {now}, not {lever}").into());
        }
        Ok(())
    }

    /// The vCPU threads of a VM, as soon as their on-CPU time is measured.
    pub fn vcpus(&self, name: &str) -> Result<Vec<i32>> {
        let deadline = Instant::now() + ATTACH_TIME;
        loop {
            let vcpus = self.show(name)?.vcpus;
            if !vcpus.is_empty() && vcpus.iter().all(|vcpu| vcpu.attached) {
                return Ok(vcpus.iter().map(|vcpu| vcpu.tid).collect());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{name}: sleepy has not attached to its vCPUs after {ATTACH_TIME:?}"
                )
                .into());
            }
            sleep(POLL);
        }
    }

    /// The statistics of every VM.
    pub fn stats(&self) -> Result<Vec<Stats>> {
        Ok(self.ask::<StatsAnswer>(&["stats"])?.vms)
    }

    /// Removes a VM.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.call(&["vm", "remove", name])?;
        Ok(())
    }

    fn show(&self, name: &str) -> Result<Shown> {
        Ok(self.ask::<Show>(&["vm", "show", name])?.vm)
    }

    fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let answer = self.call(&[&["-j"], arguments].concat())?;
        Ok(serde_json::from_slice(&answer)
            .map_err(|error| format!("sleepyctl {}: {error}", arguments.join(" ")))?)
    }

    fn call(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(&self.program)
            .args(arguments)
            .output()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("sleepyctl {}: {}", arguments.join(" "), said.trim()).into());
        }
        Ok(output.stdout)
    }
}
