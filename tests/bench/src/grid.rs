// SPDX-License-Identifier: GPL-2.0-only

//! Every system in every cell, in turn.

use std::mem;
use std::time::Duration;

use sleepy_bench::record::{Cell, Measured, Reaction, Record, Trial};
use sleepy_host::Result;
use sleepy_host::ctl::Sleepyctl;
use sleepy_host::vm::Image;

use crate::arrivals::Arrival;
use crate::chain::{Chain, Client};
use crate::fleet::Fleet;
use crate::merge;
use crate::network;
use crate::output::Output;
use crate::plan::Plan;
use crate::store::Store;
use crate::system::{Programs, Running, is_slow_to_start};
use crate::trial::{self, Load};

/// With this lever the guests do for the first time what they shall do,
const WARM_UP: &str = "sleepy-park";
/// as often as that, at most, or until it takes no less than this part of what it took before.
const WARM_UPS: usize = 5;
const WARM: f64 = 0.95;
/// So many chains are called twice at most.
const MANY: u32 = 20;
/// In cells with an open loop, this part of the CPU's time is asked for.
const UTILIZATION: f64 = 0.5;

/// What all cells need.
pub struct Grid<'a> {
    /// sleepyctl
    pub ctl: &'a Sleepyctl,
    /// What the microVMs boot.
    pub image: &'a Image,
    /// The peers.
    pub programs: &'a Programs,
    /// What is measured.
    pub plan: &'a Plan,
    /// The systems.
    pub systems: &'a [String],
    /// The object store.
    pub store: &'a Store,
}

impl Grid<'_> {
    /// Measures what has not been measured yet.
    pub fn run(&self, output: &mut Output) -> Result<()> {
        let mut fleet: Option<Fleet> = None;
        for cell in &self.plan.cells {
            if self
                .turns(cell)
                .all(|(system, repetition)| output.has(cell, system, repetition))
            {
                continue;
            }
            let chain = Chain::named(&cell.chain)?;
            // The old one's addresses are the new one's.
            if fleet
                .as_ref()
                .is_some_and(|fleet| !fleet.is(chain, &cell.wait))
            {
                drop(fleet.take());
            }
            let fleet =
                fleet.get_or_insert_with(|| Fleet::new(self.ctl, self.image, chain, &cell.wait));
            let chains = cell.chains as usize;
            if fleet.chains() < chains {
                fleet.grow(chains, |there, wanted| {
                    output.progress(&format!("{cell}: {there} of {wanted} microVMs"));
                })?;
                merge::merge()?;
            }
            if let Err(error) = network::set_remote(cell.network == "remote") {
                self.none(cell, &error.to_string(), output)?;
                continue;
            }
            let measured = self.cell(cell, chain, fleet, output);
            network::set_remote(false)?;
            measured?;
        }
        Ok(())
    }

    /// What is to be measured in a cell.
    fn turns(&self, cell: &Cell) -> impl Iterator<Item = (&str, u32)> {
        // Open loops are long, and of many requests; and many chains are of many requests at once.
        let repetitions = match cell.arrival.as_str() {
            "burst" if cell.chains < MANY => self.plan.repetitions,
            "burst" => self.plan.repetitions.min(2),
            _ => 1,
        };
        let turn = move |repetition| {
            self.systems.iter().flat_map(move |system| {
                let slow = is_slow_to_start(system);
                let turns = match (slow, repetition) {
                    (true, 0) => 0..repetitions,
                    (true, _) => 0..0,
                    (false, _) => repetition..repetition + 1,
                };
                turns.map(move |repetition| (&**system, repetition))
            })
        };
        (0..repetitions).flat_map(turn)
    }

    fn cell(
        &self,
        cell: &Cell,
        chain: Chain,
        fleet: &mut Fleet,
        output: &mut Output,
    ) -> Result<()> {
        self.store.put("input", chain.input(&cell.input));
        let clients: Vec<_> = fleet
            .urls()
            .iter()
            .take(cell.chains as usize)
            .enumerate()
            .map(|(number, urls)| Client::new(&chain, (number, cell.chains), urls, "input"))
            .collect();
        output.progress(&format!("{cell}: first requests"));
        let warm = match self.warm_up(fleet, &clients) {
            Ok(warm) => warm,
            // Where a microVM was lost, that is why.
            Err(error) => return Err(fleet.check().err().unwrap_or(error)),
        };
        let work = work(&warm, chain.stages.len());

        let mut before: Option<(&str, Running)> = None;
        for (system, repetition) in self.turns(cell) {
            if output.has(cell, system, repetition) {
                continue;
            }
            output.progress(&format!("{cell}: {system} {}", repetition + 1));
            let running = match before.take() {
                Some((same, running)) if same == system && is_slow_to_start(system) => Ok(running),
                Some((_, other)) => {
                    other.stop(fleet)?;
                    Running::start(system, fleet, self.programs, &work)
                }
                None => Running::start(system, fleet, self.programs, &work),
            };
            let mut running = match running {
                Ok(running) => running,
                Err(error) => {
                    self.write(cell, system, repetition, Err(error.to_string()), output)?;
                    continue;
                }
            };
            let load = self.load(cell, &work, repetition)?;
            // What the automatic choice is depends on the host.
            let parks = matches!(system, "sleepy-park" | "sleepy-auto");
            let told = trial::run(fleet, &clients, self.store, &load, parks);
            if told.is_err() {
                // Then the fault is not the system's.
                fleet.check()?;
            }
            let told = running.check().and(told);
            let noted = if is_slow_to_start(system) {
                before = Some((system, running));
                Vec::new()
            } else {
                running.stop(fleet)?
            };
            let outcome = told.map(|told| {
                let effects = if noted.is_empty() {
                    told.effects
                } else {
                    noted
                };
                (told.measured, effects)
            });
            if let Ok((_, effects)) = &outcome
                && !effects.is_empty()
            {
                output.write(Record::Reaction(Reaction {
                    system: system.into(),
                    vms: fleet.members().len() as u32,
                    outcome: Ok(effects.clone()),
                }))?;
            }
            let outcome = outcome
                .map(|(measured, _)| measured)
                .map_err(|error| error.to_string());
            self.write(cell, system, repetition, outcome, output)?;
        }
        if let Some((_, running)) = before {
            running.stop(fleet)?;
        }
        Ok(())
    }

    /// Requests, until another takes no less of the CPU; what the last ones took.
    fn warm_up(&self, fleet: &mut Fleet, clients: &[Client]) -> Result<Measured> {
        let running = Running::start(WARM_UP, fleet, self.programs, &[])?;
        let request = || trial::run(fleet, clients, self.store, &Load::Burst, true);
        let mut measured = request()?.measured;
        for _ in 1..WARM_UPS {
            let before = mem::replace(&mut measured, request()?.measured);
            if measured.useful_ns as f64 > before.useful_ns as f64 * WARM {
                break;
            }
        }
        running.stop(fleet)?;
        Ok(measured)
    }

    fn load(&self, cell: &Cell, work: &[u64], repetition: u32) -> Result<Load> {
        Ok(match Arrival::named(&cell.arrival)? {
            None => Load::Burst,
            Some(arrival) => Load::Open {
                arrival,
                mean: Duration::from_nanos(work.iter().sum())
                    .mul_f64(f64::from(cell.chains) / UTILIZATION),
                count: self.plan.arrivals,
                seed: u64::from(repetition),
            },
        })
    }

    fn none(&self, cell: &Cell, why: &str, output: &mut Output) -> Result<()> {
        for (system, repetition) in self.turns(cell) {
            self.write(cell, system, repetition, Err(why.to_owned()), output)?;
        }
        Ok(())
    }

    fn write(
        &self,
        cell: &Cell,
        system: &str,
        repetition: u32,
        outcome: std::result::Result<Measured, String>,
        output: &mut Output,
    ) -> Result<()> {
        output.write(Record::Trial(Trial {
            system: system.into(),
            cell: cell.clone(),
            repetition,
            outcome,
        }))
    }
}

/// The median time of each stage, in nanoseconds.
fn work(measured: &Measured, stages: usize) -> Vec<u64> {
    (0..stages)
        .map(|stage| {
            let mut times: Vec<_> = measured
                .stage_ns
                .iter()
                .skip(stage)
                .step_by(stages)
                .collect();
            times.sort_unstable();
            times.get(times.len() / 2).map_or(1, |time| **time)
        })
        .collect()
}
