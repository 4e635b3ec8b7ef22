// SPDX-License-Identifier: GPL-2.0-only

//! Which cells there are.

use std::time::Duration;

use clap::ValueEnum;
use sleepy_bench::record::Cell;
use sleepy_host::Result;

use crate::chain::CHAINS;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Whether everything works: minutes.
    Small,
    /// What matters most: a quarter of an hour.
    Quick,
    /// All of it: hours.
    Full,
}

/// What is measured.
pub struct Plan {
    /// In an order in which few microVMs have to be started anew.
    pub cells: Vec<Cell>,
    /// Of each system in each cell.
    pub repetitions: u32,
    /// Requests of each chain in cells with an open loop.
    pub arrivals: usize,
    /// Turns of the guest that is alone on its CPU, with each system; and how long each is.
    pub alone: (u32, Duration),
}

impl Plan {
    /// The one of this size.
    pub fn new(size: Size) -> Self {
        let mut cells = Vec::new();
        // (chain, input, wait, chains, network, arrival)
        let mut add = |chain, input, wait: &[&str], chains: &[u32], network, arrival| {
            for wait in wait {
                for count in chains {
                    cells.push(cell(chain, input, wait, *count, network, arrival));
                }
            }
        };
        match size {
            Size::Small => add("compile", "small", &["busypoll"], &[1, 2], "local", "burst"),
            Size::Quick => {
                add(
                    "compile",
                    "small",
                    &["busypoll"],
                    &[1, 2, 5],
                    "local",
                    "burst",
                );
                add("compile", "small", &["busypoll"], &[2], "local", "poisson");
                add("compile", "small", &["halt"], &[2], "local", "burst");
                add("image", "small", &["busypoll"], &[1], "local", "burst");
            }
            Size::Full => {
                let waits = [
                    "halt",
                    "haltpoll",
                    "poll",
                    "housekeeping20",
                    "housekeeping55",
                    "mix",
                ];
                add(
                    "compile",
                    "small",
                    &["busypoll"],
                    &[1, 2, 5, 10, 20, 50],
                    "local",
                    "burst",
                );
                add("compile", "small", &["busypoll"], &[2], "local", "poisson");
                add("compile", "small", &["busypoll"], &[2], "local", "azure");
                add("compile", "small", &["busypoll"], &[2], "remote", "burst");
                add("compile", "large", &["busypoll"], &[2], "local", "burst");
                add("compile", "small", &waits, &[1, 2], "local", "burst");
                add(
                    "image",
                    "small",
                    &["busypoll"],
                    &[1, 2, 5, 10, 20, 50],
                    "local",
                    "burst",
                );
                add("image", "large", &["busypoll"], &[2], "remote", "burst");
                add("image", "small", &waits, &[1], "local", "burst");
            }
        }
        // Fleets only grow.
        let rank = |cell: &Cell| (cell.chain.clone(), cell.wait.clone(), cell.chains);
        let first: Vec<_> = cells
            .iter()
            .map(|cell| (cell.chain.clone(), cell.wait.clone()))
            .collect();
        cells.sort_by_key(|cell| {
            let (chain, wait, chains) = rank(cell);
            (
                first
                    .iter()
                    .position(|known| *known == (chain.clone(), wait.clone())),
                chains,
            )
        });
        Self {
            cells,
            repetitions: if size == Size::Small { 1 } else { 3 },
            arrivals: if size == Size::Full { 20 } else { 8 },
            alone: match size {
                Size::Small => (1, Duration::from_secs(1)),
                Size::Quick => (3, Duration::from_secs(2)),
                Size::Full => (12, Duration::from_secs(2)),
            },
        }
    }

    /// Leaves out all cells but those with one of these names, or, where no cell has that, with it in their names. Keeps all if there
    /// are none.
    pub fn keep(&mut self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let of = |cell: &Cell| cell.to_string();
        let mut kept = Vec::new();
        for name in names {
            let exact = self.cells.iter().any(|cell| of(cell) == *name);
            let meant = |cell: &&Cell| of(cell) == *name || !exact && of(cell).contains(name);
            let before = kept.len();
            kept.extend(self.cells.iter().filter(meant).cloned());
            if kept.len() == before {
                let there: Vec<_> = self.cells.iter().map(of).collect();
                let there = there.join("\n  ");
                return Err(format!(
                    "--cell: no cell of this size is '{name}'; there are:\n  {there}"
                )
                .into());
            }
        }
        self.cells.retain(|cell| kept.contains(cell));
        Ok(())
    }
}

fn cell(chain: &str, input: &str, wait: &str, chains: u32, network: &str, arrival: &str) -> Cell {
    let stages = CHAINS
        .iter()
        .find(|known| known.name == chain)
        .map_or(0, |chain| chain.stages.len() as u32);
    Cell {
        chain: chain.into(),
        input: input.into(),
        wait: wait.into(),
        chains,
        // They share one CPU.
        overcommit: chains * stages,
        network: network.into(),
        arrival: arrival.into(),
    }
}
