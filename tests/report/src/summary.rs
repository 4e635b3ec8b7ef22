// SPDX-License-Identifier: GPL-2.0-only

//! From records to what is reported of them: a row for each system in each cell, and the limit of each cell.

use std::collections::BTreeMap;

use serde::Serialize;
use sleepy_bench::record::{Alone, Cell, Checks, Cost, Host, Measured, Reaction, Trial};
use sleepy_bench::systems::SYSTEMS;

use crate::read::Data;
use crate::stats::{self, Figure, Quantiles};

/// The arrival of which there is a limit: all chains are asked at once.
pub const BURST: &str = "burst";
/// The request of [`Alone`] that is one for work.
pub const FUNCTION: &str = "function";
/// The "system" of [`Alone`] without the module.
pub const NO_MODULE: &str = "none";

/// All that is reported, but the goals.
pub struct Summary {
    pub hosts: Vec<Host>,
    /// By cell, then in the order of the systems.
    pub rows: Vec<Row>,
    pub reactions: Vec<ReactionRow>,
    pub alone: Vec<AloneRow>,
    pub costs: Vec<Cost>,
    pub checks: Vec<Check>,
}

/// A system in a cell, all repetitions together. Times in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Row {
    pub system: String,
    #[serde(flatten)]
    pub cell: Cell,
    pub trigger_ns: Quantiles,
    pub inter_ns: Quantiles,
    pub exec_ns: Quantiles,
    pub stage_ns: Quantiles,
    /// Of the microVMs' CPU time; `None` if there was none.
    pub idle_share: Option<f64>,
    /// Of the CPU's busy time: what it takes the host to switch from one microVM to another.
    pub switch_share: Option<f64>,
    /// The cell's, see [`Summary`]'s `limits`.
    pub limit_exec_ns: Option<u64>,
    /// Median over repetitions.
    pub useful_ns: Option<u64>,
    /// The median execution time of a repetition over what its own useful time allows, see [`Summary`]'s `limits`: the machine's
    /// pace may drift between one system's turn and another's. Median over repetitions.
    pub over_own: Option<f64>,
    /// Medians over repetitions.
    pub checks: Checks,
    /// Those that were measured.
    pub repetitions: usize,
    /// Why a repetition was not measured.
    pub error: Option<String>,
    /// All execution times.
    pub samples: Vec<u64>,
    /// The shares of the microVMs' CPU time: useful, idle awake, idle sleepy.
    #[serde(skip)]
    pub shares: Option<[f64; 3]>,
}

/// A system's reactions with so many VMs.
#[derive(Serialize)]
pub struct ReactionRow {
    pub system: String,
    pub vms: u32,
    /// In nanoseconds.
    #[serde(flatten)]
    pub quantiles: Quantiles,
    /// How many times faster than the controller, by the medians.
    pub controller_ratio: Option<f64>,
    /// Why a repetition was not measured.
    pub error: Option<String>,
}

/// One well-behaved guest alone, all repetitions together.
#[derive(Serialize)]
pub struct AloneRow {
    pub request: String,
    pub system: String,
    pub repetitions: usize,
    /// Median over repetitions.
    pub per_second: Option<f64>,
    pub latency_ns: Quantiles,
    /// Over that without the module in the same repetition.
    pub per_second_ratio: Figure,
    /// The same of the latency's p99.
    pub p99_ratio: Figure,
}

/// One kind of [`Checks`], over all trials.
pub struct Check {
    pub what: &'static str,
    pub count: usize,
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// What sorts systems as the tables have them; unknown ones come last, by name.
fn rank(system: &str) -> (usize, String) {
    let known = SYSTEMS.iter().position(|known| *known == system);
    let place = match known {
        _ if system == NO_MODULE => 0,
        Some(index) => index + 1,
        None => SYSTEMS.len() + 1,
    };
    (place, system.to_owned())
}

/// Groups that keep the order of their members.
fn grouped<T, K: Ord>(all: Vec<T>, key: impl Fn(&T) -> K) -> Vec<Vec<T>> {
    let mut groups: BTreeMap<K, Vec<T>> = BTreeMap::new();
    for one in all {
        groups.entry(key(&one)).or_default().push(one);
    }
    groups.into_values().collect()
}

/// What went wrong, if anything did: `None` if nothing of `total` failed.
fn failed(errors: &[&String], total: usize) -> Option<String> {
    let first = errors.first()?;
    Some(if errors.len() == total {
        (*first).clone()
    } else {
        format!("{} of {total} repetitions: {first}", errors.len())
    })
}

impl Summary {
    /// Of all that was read.
    pub fn new(data: Data) -> Self {
        let checks = Check::all(&data.trials);
        let by_cell = |trial: &Trial| (trial.cell.clone(), rank(&trial.system));
        let mut rows: Vec<Row> = grouped(data.trials, by_cell)
            .iter()
            .map(|trials| Row::new(trials))
            .collect();
        if let Some(host) = data.hosts.first() {
            set_limits(&mut rows, host.vcpu_cpus);
        }
        Self {
            rows,
            checks,
            reactions: reactions(data.reactions),
            alone: alone(data.alone),
            costs: data.costs,
            hosts: data.hosts,
        }
    }
}

impl Row {
    fn new(trials: &[Trial]) -> Self {
        let measured: Vec<&Measured> = trials.iter().flat_map(|trial| &trial.outcome).collect();
        let errors: Vec<&String> = trials
            .iter()
            .filter_map(|trial| trial.outcome.as_ref().err())
            .collect();
        let quantiles = |samples: fn(&Measured) -> &Vec<u64>| {
            let each: Vec<&[u64]> = measured.iter().map(|m| samples(m).as_slice()).collect();
            Quantiles::of(&each)
        };
        let check = |value: fn(&Checks) -> Option<f64>| {
            let each: Vec<f64> = measured.iter().filter_map(|m| value(&m.checks)).collect();
            stats::median_f64(&each)
        };
        let useful: Vec<u64> = measured.iter().map(|m| m.useful_ns).collect();
        let over_own = measured.iter().filter_map(|m| {
            let ratio = stats::median(&m.exec_ns)? as f64 / m.useful_ns as f64;
            ratio.is_finite().then_some(ratio)
        });
        let switches = switch_share(&measured);
        let shares = switches.and_then(|switches| shares(&measured, switches));
        Self {
            system: trials[0].system.clone(),
            cell: trials[0].cell.clone(),
            trigger_ns: quantiles(|m| &m.trigger_ns),
            inter_ns: quantiles(|m| &m.inter_ns),
            exec_ns: quantiles(|m| &m.exec_ns),
            stage_ns: quantiles(|m| &m.stage_ns),
            idle_share: shares.map(|[_, awake, sleepy]| awake + sleepy),
            switch_share: switches,
            limit_exec_ns: None,
            useful_ns: stats::median(&useful),
            over_own: stats::median_f64(&over_own.collect::<Vec<_>>()),
            checks: Checks {
                client: check(|checks| checks.client),
                schedstat: check(|checks| checks.schedstat),
                steal: check(|checks| checks.steal),
            },
            repetitions: measured.len(),
            error: failed(&errors, trials.len()),
            samples: measured.iter().flat_map(|m| m.exec_ns.clone()).collect(),
            shares,
        }
    }

    /// The median execution time over the limit.
    pub fn over_limit(&self) -> Option<f64> {
        Some(self.exec_ns.p50? as f64 / self.limit_exec_ns? as f64)
    }
}

/// How long the CPU was busy: useful, idle awake, idle sleepy.
fn busy(measured: &[&Measured]) -> Option<[f64; 3]> {
    let sum = |ns: fn(&Measured) -> u64| measured.iter().map(|m| ns(m)).sum::<u64>() as f64;
    let times = [
        sum(|m| m.useful_ns),
        sum(|m| m.awake_ns),
        sum(|m| m.sleepy_ns),
    ];
    (times.iter().sum::<f64>() > 0.0).then_some(times)
}

/// A switch begins with one thread's notifier and ends with another's: it is in the threads' schedstat, and in no microVM's time.
fn switch_share(measured: &[&Measured]) -> Option<f64> {
    let all: f64 = busy(measured)?.iter().sum();
    let switches = measured.iter().filter_map(|m| {
        let busy = (m.useful_ns + m.awake_ns + m.sleepy_ns) as f64;
        Some(busy * (1.0 - 1.0 / m.checks.schedstat?))
    });
    // Two clocks are read one after the other, so that one turn's may be less than nothing.
    Some((switches.sum::<f64>() / all).max(0.0))
}

/// Without the switches, which come with the useful time and with the idle one, and would count as idle.
fn shares(measured: &[&Measured], switch_share: f64) -> Option<[f64; 3]> {
    let [useful, awake, sleepy] = busy(measured)?;
    let idle = awake + sleepy;
    let switches = switch_share * (useful + idle);
    let part = (idle - switches).max(0.0) / idle.max(1.0);
    let times = [useful, awake * part, sleepy * part];
    let all: f64 = times.iter().sum();
    (all > 0.0).then(|| times.map(|time| time / all))
}

/// The least median execution time of one chain alone, where all else is as in this cell.
pub fn one_chain(rows: &[Row], cell: &Cell) -> Option<u64> {
    rows.iter()
        .filter(|row| {
            let overcommit = row.cell.overcommit;
            row.cell
                == Cell {
                    chains: 1,
                    overcommit,
                    ..cell.clone()
                }
        })
        .filter_map(|row| row.exec_ns.p50)
        .min()
}

/// Of each burst: the chains' own CPU time on the CPUs that they share, or one chain alone, whichever is longer.
fn set_limits(rows: &mut [Row], cpus: u32) {
    let limits: Vec<Option<u64>> = rows
        .iter()
        .map(|row| {
            let same = rows.iter().filter(|other| other.cell == row.cell);
            let useful = same.filter_map(|other| other.useful_ns).min()?;
            let alone = one_chain(rows, &row.cell).unwrap_or(0);
            Some((useful / u64::from(cpus)).max(alone))
        })
        .collect();
    for (row, limit) in rows.iter_mut().zip(limits) {
        row.limit_exec_ns = limit.filter(|limit| row.cell.arrival == BURST && *limit > 0);
        row.over_own = row
            .over_own
            .filter(|_| row.cell.arrival == BURST)
            .map(|ratio| ratio * f64::from(cpus));
    }
}

fn reactions(all: Vec<Reaction>) -> Vec<ReactionRow> {
    let groups = grouped(all, |reaction| (reaction.vms, rank(&reaction.system)));
    let mut rows: Vec<ReactionRow> = groups
        .iter()
        .map(|group| {
            let samples: Vec<&[u64]> = group
                .iter()
                .flat_map(|reaction| &reaction.outcome)
                .map(Vec::as_slice)
                .collect();
            let errors: Vec<&String> = group
                .iter()
                .filter_map(|reaction| reaction.outcome.as_ref().err())
                .collect();
            ReactionRow {
                system: group[0].system.clone(),
                vms: group[0].vms,
                quantiles: Quantiles::of(&samples),
                controller_ratio: None,
                error: failed(&errors, group.len()),
            }
        })
        .collect();
    let controllers: BTreeMap<u32, u64> = rows
        .iter()
        .filter(|row| row.system == "controller")
        .filter_map(|row| Some((row.vms, row.quantiles.p50?)))
        .collect();
    for row in &mut rows {
        row.controller_ratio = (|| {
            let controller = *controllers.get(&row.vms)?;
            Some(controller as f64 / row.quantiles.p50.filter(|ns| *ns > 0)? as f64)
        })();
    }
    rows
}

fn alone(all: Vec<Alone>) -> Vec<AloneRow> {
    let groups = grouped(all, |alone| (alone.request.clone(), rank(&alone.system)));
    let none = |request: &str| {
        groups
            .iter()
            .find(|group| group[0].system == NO_MODULE && group[0].request == request)
            .map_or(&[][..], Vec::as_slice)
    };
    let p99 = |alone: &Alone| Quantiles::of(&[&alone.latency_ns]).p99.unwrap_or(0) as f64;
    groups
        .iter()
        .map(|group| {
            let none = none(&group[0].request);
            let ratio = |value: &dyn Fn(&Alone) -> f64| {
                // The machine's pace drifts: what is divided is what was measured at about the same time.
                let pairs = group.iter().filter_map(|with| {
                    let without = none.iter().find(|n| n.repetition == with.repetition)?;
                    let ratio = value(with) / value(without);
                    ratio.is_finite().then_some(ratio)
                });
                Figure::of(&pairs.collect::<Vec<_>>())
            };
            let per_second: Vec<f64> = group.iter().map(|alone| alone.per_second).collect();
            let latencies: Vec<&[u64]> = group
                .iter()
                .map(|alone| alone.latency_ns.as_slice())
                .collect();
            AloneRow {
                request: group[0].request.clone(),
                system: group[0].system.clone(),
                repetitions: group.len(),
                per_second: stats::median_f64(&per_second),
                latency_ns: Quantiles::of(&latencies),
                per_second_ratio: ratio(&|alone| alone.per_second),
                p99_ratio: ratio(&p99),
            }
        })
        .collect()
}

impl Check {
    fn all(trials: &[Trial]) -> Vec<Self> {
        type Value = fn(&Checks) -> Option<f64>;
        let kinds: [(&str, Value); 3] = [
            ("client", |checks| checks.client),
            ("schedstat", |checks| checks.schedstat),
            ("steal", |checks| checks.steal),
        ];
        let each = kinds.map(|(what, value)| {
            let measured = trials.iter().flat_map(|trial| &trial.outcome);
            let values: Vec<f64> = measured.filter_map(|m| value(&m.checks)).collect();
            Some(Self {
                what,
                count: values.len(),
                median: stats::median_f64(&values)?,
                least: values.iter().copied().fold(f64::INFINITY, f64::min),
                most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            })
        });
        each.into_iter().flatten().collect()
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
pub mod tests;
