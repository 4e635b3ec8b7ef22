// SPDX-License-Identifier: GPL-2.0-only

//! What sleepy is to reach, and whether it does. Of several places, the worst one decides.

use serde::Serialize;

use crate::stats::Figure;
use crate::summary::{AloneRow, BURST, NO_MODULE, ReactionRow, Row, Summary};

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

/// A figure and where it was measured.
type Found = (f64, String);

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
        let worst = found
            .iter()
            .max_by(|(a, _), (b, _)| bound.badness(*a).total_cmp(&bound.badness(*b)));
        let got = match worst {
            None => "not measured".into(),
            Some((value, place)) if found.len() == 1 => format!("{} ({place})", unit.show(*value)),
            Some((value, place)) => {
                let good = found
                    .iter()
                    .filter(|(value, _)| bound.holds(*value))
                    .count();
                format!(
                    "{} at worst ({place}); reached in {good} of {} places",
                    unit.show(*value),
                    found.len()
                )
            }
        };
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
        "{} {}, {}, {} chains, {}, {}",
        cell.chain, cell.input, cell.wait, cell.chains, cell.network, cell.arrival
    )
}

/// At the largest number of chains.
fn crowd(rows: &[Row]) -> [Goal; 2] {
    let bursts = || rows.iter().filter(|row| row.cell.arrival == BURST);
    let most = bursts().map(|row| row.cell.chains).max();
    let find = |value: fn(&Row) -> Option<f64>| -> Vec<Found> {
        bursts()
            .filter(|row| row.system == LEVER && Some(row.cell.chains) == most)
            .filter_map(|row| Some((value(row)?, place(row))))
            .collect()
    };
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
            &find(Row::over_limit),
        ),
    ]
}

fn against_eevdf(rows: &[Row], overcommit: u32) -> [Goal; 2] {
    let goal = |what: &str, p99: fn(&Row) -> Option<u64>| {
        let found: Vec<Found> = rows
            .iter()
            .filter(|row| row.cell.wait == "busypoll" && row.cell.overcommit == overcommit)
            .filter(|row| row.system == LEVER)
            .filter_map(|row| {
                let same = |other: &&Row| other.system == "eevdf" && other.cell == row.cell;
                let eevdf = p99(rows.iter().find(same)?)?;
                Some((eevdf as f64 / p99(row)?.max(1) as f64, place(row)))
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
                best.controller_ratio?,
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
            .filter(|row| row.system != NO_MODULE)
            .filter_map(|row| {
                let Figure { median, spread } = value(row);
                let spread = spread.map_or_else(String::new, |spread| format!(" +- {spread:.4}"));
                Some((median?, format!("{}{spread}", row.system)))
            })
            .collect()
    };
    [
        Goal::new(
            "throughput of a halting guest alone on its CPU, over that without the module".into(),
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
mod tests {
    use sleepy_bench::record::{Reaction, Trial};

    use super::*;
    use crate::read::Data;
    use crate::summary::tests::{guest, summary, trial};

    fn reached(goals: &[Goal]) -> Vec<Option<bool>> {
        goals.iter().map(|goal| goal.reached).collect()
    }

    /// With this much idle of 1000 ns.
    fn idle(mut trial: Trial, idle_ns: u64) -> Trial {
        let measured = trial.outcome.as_mut().unwrap();
        (measured.useful_ns, measured.awake_ns) = (1000 - idle_ns, idle_ns);
        measured.sleepy_ns = 0;
        trial
    }

    fn p99(mut trial: Trial, trigger: u64, inter: u64) -> Trial {
        let measured = trial.outcome.as_mut().unwrap();
        (measured.trigger_ns, measured.inter_ns) = (vec![trigger], vec![inter]);
        trial
    }

    #[test]
    fn nothing_measured() {
        let goals = all(&summary(Vec::new()));
        assert!(
            goals
                .iter()
                .all(|goal| goal.reached.is_none() && goal.got == "not measured")
        );
        assert_eq!(goals.len(), 9);
    }

    #[test]
    fn only_the_largest_number_of_chains_counts() {
        let at = |idle_ns, exec_ns| {
            summary(vec![
                idle(trial("sleepy-park", 1, 0, &[1]), 900),
                idle(trial("sleepy-park", 50, 0, &[exec_ns]), idle_ns),
            ])
        };
        assert_eq!(reached(&crowd(&at(30, 550).rows)), [Some(true), Some(true)]);
        let bad = crowd(&at(31, 560).rows);
        assert_eq!(reached(&bad), [Some(false), Some(false)]);
        assert_eq!(
            bad[0].got,
            "3.10 % (image small, busypoll, 50 chains, local, burst)"
        );
    }

    #[test]
    fn the_worst_place_decides() {
        let mut other = idle(trial("sleepy-park", 50, 0, &[1]), 40);
        other.cell.chain = "compile".into();
        let good = idle(trial("sleepy-park", 50, 0, &[1]), 10);
        let goals = crowd(&summary(vec![good, other]).rows);
        assert_eq!(goals[0].reached, Some(false));
        assert!(
            goals[0].got.starts_with("4.00 % at worst (compile"),
            "{}",
            goals[0].got
        );
        assert!(goals[0].got.ends_with("reached in 1 of 2 places"));
    }

    #[test]
    fn eevdf_is_compared_within_a_cell() {
        let rows = summary(vec![
            p99(trial("eevdf", 1, 0, &[1]), 1000, 1000),
            p99(trial("sleepy-park", 1, 0, &[1]), 100, 101),
            p99(trial("sleepy-park", 2, 0, &[1]), 1, 1),
        ])
        .rows;
        assert_eq!(reached(&against_eevdf(&rows, 3)), [Some(true), Some(false)]);
        assert_eq!(reached(&against_eevdf(&rows, 6)), [None, None]);
    }

    #[test]
    fn the_best_lever_counts() {
        let reaction = |system: &str, vms, ns| Reaction {
            system: system.into(),
            vms,
            outcome: Ok(vec![ns]),
        };
        let goal = |park| {
            let reactions = vec![
                reaction("controller", 10, 5000),
                reaction("sleepy-nice", 10, 200),
                reaction("sleepy-park", 10, park),
                // There is no controller to compare with.
                reaction("sleepy-park", 1000, 1),
            ];
            let summary = Summary::new(Data {
                reactions,
                ..Data::default()
            });
            against_controller(&summary.reactions)
        };
        let good = goal(100);
        assert_eq!(good.reached, Some(true));
        assert_eq!(
            good.got,
            "50.00 x (sleepy-park, 10 VMs; sleepy-nice 25.00 x)"
        );
        assert_eq!(goal(101).reached, Some(false));
    }

    #[test]
    fn a_guest_alone_may_lose_a_hundredth() {
        let goals = |per_second, latency| {
            let alone = vec![
                guest(NO_MODULE, 0, 1000.0, 1000),
                guest("sleepy-park", 0, per_second, latency),
            ];
            untouched(
                &Summary::new(Data {
                    alone,
                    ..Data::default()
                })
                .alone,
            )
        };
        assert_eq!(reached(&goals(990.0, 1010)), [Some(true), Some(true)]);
        assert_eq!(reached(&goals(989.0, 1011)), [Some(false), Some(false)]);
    }
}
