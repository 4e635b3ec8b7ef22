// SPDX-License-Identifier: GPL-2.0-only

//! Of [`super`].

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
        "50.00 x (sleepy-park, 10 VMs; sleepy-nice 25.00 x); could not be measured in 1 more"
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
