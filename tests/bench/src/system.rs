// SPDX-License-Identifier: GPL-2.0-only

//! What is compared: how each is set up for a fleet, and taken away again.

use std::path::PathBuf;

use sleepy_bench::peers::controller::Controller;
use sleepy_bench::peers::scx::Scx;
use sleepy_host::Result;

use crate::fleet::{Fleet, Layout, Member, temporary};

/// Where the programs of the peers are.
pub struct Programs {
    /// The directory of the sched_ext schedulers.
    pub scx: PathBuf,
    /// The controller.
    pub controller: PathBuf,
}

/// One that is in charge. It ends when dropped, if it is not stopped.
pub enum Running {
    /// The kernel alone, or sleepy.
    Kernel,
    /// The kernel, with the weights that an administrator gave.
    Tuned,
    /// A program that watches packets.
    Controller(Controller),
    /// A sched_ext scheduler.
    Scx(Scx),
}

/// Whether it takes long to be in charge, so that it stays so for all its repetitions.
pub fn is_slow_to_start(system: &str) -> bool {
    system.starts_with("scx_")
}

/// The lever that sleepy has while this one is in charge.
pub fn lever(system: &str) -> &str {
    system.strip_prefix("sleepy-").unwrap_or("observe")
}

impl Running {
    /// Puts a system in charge of a fleet; `work` is that of each stage.
    pub fn start(
        system: &str,
        fleet: &mut Fleet,
        programs: &Programs,
        work: &[u64],
    ) -> Result<Self> {
        let lever = lever(system);
        let layout = match system {
            "eevdf-tuned" | "sleepy-cgroup" | "sleepy-auto" => Layout::PerVm,
            _ => Layout::Flat,
        };
        // A lever that moves a group's weight lets go of it first.
        fleet.apply("observe")?;
        fleet.place(layout)?;
        if lever != "observe" {
            fleet.apply(lever)?;
        }
        Ok(match system {
            "eevdf-tuned" => {
                fleet.tune(Some(work))?;
                Self::Tuned
            }
            "controller" => {
                let vm =
                    |Member { vm, vcpus }: &Member| (vm.name().to_owned(), vm.tap(), vcpus.clone());
                let vms: Vec<_> = fleet.members().iter().map(vm).collect();
                Self::Controller(Controller::start(
                    &programs.controller,
                    &vms,
                    &temporary("reactions.json"),
                )?)
            }
            _ if system.starts_with("scx_") => Self::Scx(Scx::start(&programs.scx.join(system))?),
            _ => Self::Kernel,
        })
    }

    /// Fails if it is not in charge any more.
    pub fn check(&mut self) -> Result<()> {
        match self {
            Self::Scx(scx) => scx.in_charge(),
            _ => Ok(()),
        }
    }

    /// Takes it away, and returns the reaction times that it noted itself.
    pub fn stop(self, fleet: &Fleet) -> Result<Vec<u64>> {
        match self {
            Self::Tuned => fleet.tune(None)?,
            Self::Controller(controller) => return controller.stop(),
            Self::Kernel | Self::Scx(_) => {}
        }
        Ok(Vec::new())
    }
}
