// SPDX-License-Identifier: GPL-2.0-only

//! What sleepy is to reach, and whether it does. Of several places, the worst one decides.

use serde::Serialize;

use crate::stats::Figure;
use crate::summary::{AloneRow, BURST, FUNCTION, NO_MODULE, ReactionRow, Row, Summary};

const IDLE_SHARE: f64 = 0.03;
const OVER_LIMIT: f64 = 1.15;
const FASTER_THAN_EEVDF: f64 = 10.0;
const FASTER_THAN_CONTROLLER: f64 = 50.0;
/// How much worse a well-behaved guest may fare.
const UNTOUCHED: f64 = 0.01;
/// vCPUs for each CPU at which sleepy has to be faster than the kernel alone.
const OVERCOMMITS: [u32; 2] = [3, 6];
/// The lever that the goals are about.
const LEVER: &str = "sleepy-park";

/// One of them.
#[derive(Serialize)]
pub struct Goal {
    pub what: String,
    pub wanted: String,
    /// With the place where it was measured.
    pub got: String,
    /// `None` if it was not measured.
    pub reached: Option<bool>,
}

/// A figure, if it could be measured, and where.
type Found = (Option<f64>, String);

/// What a figure has to be.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    /// How a figure is ranked: what is worst has the greatest.
    fn badness(self, value: f64) -> f64 {
        match self {
            Self::AtMost(_) => value,
            Self::AtLeast(_) => -value,
        }
    }
}

impl Goal {
    fn new(what: String, bound: Bound, unit: Unit, found: &[Found]) -> Self {
        let (at, value) = match bound {
            Bound::AtMost(value) => ("at most", value),
            Bound::AtLeast(value) => ("at least", value),
        };
        let measured: Vec<(f64, &String)> = found
            .iter()
            .filter_map(|(value, place)| Some(((*value)?, place)))
            .collect();
        let worst = measured
            .iter()
            .max_by(|(a, _), (b, _)| bound.badness(*a).total_cmp(&bound.badness(*b)));
        let mut got = match worst {
            None => "not measured".into(),
            Some((value, place)) if measured.len() == 1 => {
                format!("{} ({place})", unit.show(*value))
            }
            Some((value, place)) => {
                let good = measured.iter().filter(|(value, _)| bound.holds(*value));
                format!(
                    "{} at worst ({place}); reached in {} of {} places",
                    unit.show(*value),
                    good.count(),
                    measured.len()
                )
            }
        };
        let missing = found.len() - measured.len();
        if worst.is_some() && missing > 0 {
            got += &format!("; could not be measured in {missing} more");
        }
        Self {
            what,
            wanted: format!("{at} {} {}", value * unit.factor, unit.name),
            got,
            reached: worst.map(|(value, _)| bound.holds(*value)),
        }
    }
}

/// How a figure is written.
#[derive(Clone, Copy)]
struct Unit {
    name: &'static str,
    factor: f64,
    decimals: usize,
}

const PERCENT: Unit = Unit {
    name: "%",
    factor: 100.0,
    decimals: 2,
};
const TIMES: Unit = Unit {
    name: "x",
    factor: 1.0,
    decimals: 2,
};
const FINE_TIMES: Unit = Unit {
    decimals: 4,
    ..TIMES
};

impl Unit {
    fn show(self, value: f64) -> String {
        format!("{:.*} {}", self.decimals, value * self.factor, self.name)
    }
}

/// All goals.
pub fn all(summary: &Summary) -> Vec<Goal> {
    let mut goals = Vec::from(crowd(&summary.rows));
    for overcommit in OVERCOMMITS {
        goals.extend(against_eevdf(&summary.rows, overcommit));
    }
    goals.push(against_controller(&summary.reactions));
    goals.extend(untouched(&summary.alone));
    goals
}

fn place(row: &Row) -> String {
    let cell = &row.cell;
    format!(
        "{} {}, {}, {} chain{}, {}, {}",
        cell.chain,
        cell.input,
        cell.wait,
        cell.chains,
        if cell.chains == 1 { "" } else { "s" },
        cell.network,
        cell.arrival
    )
}

/// At the largest number of chains.
fn crowd(rows: &[Row]) -> [Goal; 2] {
    let bursts = || rows.iter().filter(|row| row.cell.arrival == BURST);
    let most = bursts().map(|row| row.cell.chains).max();
    let find = |value: fn(&Row) -> Option<f64>| -> Vec<Found> {
        bursts()
            .filter(|row| row.system == LEVER && Some(row.cell.chains) == most)
            .map(|row| (value(row), place(row)))
            .collect()
    };
    let over_own = find(|row| row.over_own);
    let mut over_limit = find(Row::over_limit);
    for ((_, place), (own, _)) in over_limit.iter_mut().zip(over_own) {
        if let Some(own) = own {
            *place += &format!("; {} what its own turn allows", TIMES.show(own));
        }
    }
    [
        Goal::new(
            format!("idle share of {LEVER} at the largest number of chains, all asked at once"),
            Bound::AtMost(IDLE_SHARE),
            PERCENT,
            &find(|row| row.idle_share),
        ),
        Goal::new(
            format!("execution time (p50) of {LEVER} over the limit, in the same place"),
            Bound::AtMost(OVER_LIMIT),
            TIMES,
            &over_limit,
        ),
    ]
}

fn against_eevdf(rows: &[Row], overcommit: u32) -> [Goal; 2] {
    let goal = |what: &str, p99: fn(&Row) -> Option<u64>| {
        let found: Vec<Found> = rows
            .iter()
            .filter(|row| row.cell.wait == "busypoll" && row.cell.overcommit == overcommit)
            .filter(|row| row.system == LEVER)
            .map(|row| {
                let same = |other: &&Row| other.system == "eevdf" && other.cell == row.cell;
                let eevdf = rows.iter().find(same).and_then(p99);
                let ratio = eevdf.zip(p99(row)).map(|(a, b)| a as f64 / b.max(1) as f64);
                (ratio, place(row))
            })
            .collect();
        Goal::new(
            format!(
                "{what} time (p99) of eevdf over that of {LEVER}, guests that poll busily, \
                 {overcommit} vCPUs to a CPU"
            ),
            Bound::AtLeast(FASTER_THAN_EEVDF),
            TIMES,
            &found,
        )
    };
    [
        goal("trigger", |row| row.trigger_ns.p99),
        goal("inter-function", |row| row.inter_ns.p99),
    ]
}

/// The best lever counts; `nice` is told beside it, as it does what the controller does.
fn against_controller(reactions: &[ReactionRow]) -> Goal {
    let sleepy = |row: &&ReactionRow| row.system.starts_with("sleepy-");
    let ratio = |row: &ReactionRow| row.controller_ratio.unwrap_or(f64::NEG_INFINITY);
    let mut sizes: Vec<u32> = reactions.iter().map(|row| row.vms).collect();
    sizes.dedup();
    let found: Vec<Found> = sizes
        .into_iter()
        .filter_map(|vms| {
            let same = || {
                reactions
                    .iter()
                    .filter(sleepy)
                    .filter(move |row| row.vms == vms)
            };
            let best = same().max_by(|a, b| ratio(a).total_cmp(&ratio(b)))?;
            let nice = same()
                .find(|row| row.system == "sleepy-nice")
                .and_then(|row| row.controller_ratio)
                .map_or_else(String::new, |ratio| {
                    format!("; sleepy-nice {}", TIMES.show(ratio))
                });
            Some((
                best.controller_ratio,
                format!("{}, {vms} VMs{nice}", best.system),
            ))
        })
        .collect();
    Goal::new(
        "reaction time (p50) of the controller over that of sleepy's fastest lever".into(),
        Bound::AtLeast(FASTER_THAN_CONTROLLER),
        TIMES,
        &found,
    )
}

fn untouched(alone: &[AloneRow]) -> [Goal; 2] {
    let find = |value: fn(&AloneRow) -> Figure| -> Vec<Found> {
        alone
            .iter()
            .filter(|row| row.system != NO_MODULE && row.request == FUNCTION)
            .filter_map(|row| {
                let Figure { median, spread } = value(row);
                let spread = spread.map_or_else(String::new, |spread| format!(" +-{spread:.4}"));
                Some((Some(median?), format!("{}{spread}", row.system)))
            })
            .collect()
    };
    [
        Goal::new(
            "throughput of a halting guest, a function alone on its CPU, over that without the module".into(),
            Bound::AtLeast(1.0 - UNTOUCHED),
            FINE_TIMES,
            &find(|row| row.per_second_ratio),
        ),
        Goal::new(
            "latency (p99) of the same guest, over that without the module".into(),
            Bound::AtMost(1.0 + UNTOUCHED),
            FINE_TIMES,
            &find(|row| row.p99_ratio),
        ),
    ]
}

#[cfg(test)]
#[path = "goals_tests.rs"]
mod tests;
