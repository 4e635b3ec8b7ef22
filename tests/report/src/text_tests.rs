// SPDX-License-Identifier: GPL-2.0-only

//! Of [`super`].

use sleepy_bench::record::{Checks, Cost, Reaction};

use super::*;
use crate::goals;
use crate::read::Data;
use crate::summary::BURST;
use crate::summary::tests::{failed_trial, guest, host, trial};
use crate::table::WIDTH;

const WHY: &str = "the scheduler ended by itself: libbpf: prog 'flash_init': BPF program load failed: \
                   -EINVAL\nprocessed 4711 insns (limit 1000000) \
                   max_states_per_insn/peak_states/mark_read/a_very_long_word_without_any_blank_in_it_at_all\n";

fn cost(case: &str, value: Option<f64>) -> Cost {
    Cost {
        path: "packet".into(),
        case: case.into(),
        rules: Some(100),
        vms: Some(1000),
        value,
        spread: value.map(|_| 1.5),
        unit: "instructions".into(),
        why: value.is_none().then(|| WHY.into()),
    }
}

/// Everything there is, with long times and long errors.
fn everything() -> String {
    let mut trials = Vec::new();
    for system in SYSTEMS {
        let mut trial = trial(system, 50, 0, &[123_456_789_012, 9_999_999_999_999]);
        let measured = trial.outcome.as_mut().unwrap();
        measured.trigger_ns = vec![999_999_999];
        measured.checks = Checks {
            client: Some(1.0),
            schedstat: Some(12.34),
            steal: Some(0.9),
        };
        trials.push(trial);
        trials.push(failed_trial(system, 50, WHY));
        trials.push(failed_trial(system, 1, WHY));
    }
    let mut poisson = failed_trial("a system of a very long name", 1, WHY);
    poisson.cell.arrival = "poisson".into();
    trials.push(poisson);
    let reactions = ["controller", "sleepy-cgroup"].map(|system| Reaction {
        system: system.into(),
        vms: 1000,
        outcome: if system == "controller" {
            Err(WHY.into())
        } else {
            Ok(vec![1_234_567])
        },
    });
    let summary = Summary::new(Data {
        hosts: vec![host()],
        trials,
        reactions: reactions.to_vec(),
        alone: vec![
            guest("none", 0, 123_456.7, 10),
            guest("sleepy-cgroup", 0, 0.1, 10_000),
        ],
        costs: vec![cost("none", Some(12_345_678_901.0)), cost(WHY, None)],
    });
    report(&summary, &goals::all(&summary))
}

#[test]
fn no_line_is_too_long() {
    let text = everything();
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
        assert_eq!(line, line.trim_end());
    }
    for system in SYSTEMS {
        let rows = text.matches(&format!("\n{system} ")).count();
        assert!(rows >= 2, "{system}\n{text}");
    }
}

#[test]
fn a_row_says_why_it_is_empty() {
    let summary = Summary::new(Data {
        hosts: vec![host()],
        trials: vec![
            trial("eevdf", 1, 0, &[2_000_000]),
            failed_trial("scx_lavd", 1, "no sched_ext"),
        ],
        ..Data::default()
    });
    let text = report(&summary, &goals::all(&summary));
    assert!(
        text.contains("\nscx_lavd could not be run: no sched_ext\n"),
        "{text}"
    );
    assert!(
        text.contains("\nnot tried here: eevdf-tuned, controller"),
        "{text}"
    );
    assert!(text.contains("all asked at once"), "{text}");
    let row = text.lines().rfind(|line| line.starts_with("eevdf "));
    let row: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        [
            "eevdf", "2ms", "-", "1.00", "1.00", "2ms", "-", "-", "50.0", "%"
        ]
    );
    assert_eq!(summary.rows[0].cell.arrival, BURST);
}

#[test]
fn goals_without_data_say_so() {
    let summary = Summary::new(Data::default());
    let text = report(&summary, &goals::all(&summary));
    assert_eq!(text.matches("\nnot measured ").count(), 9, "{text}");
}

#[test]
fn times_have_three_digits() {
    let times = [
        0,
        999,
        1000,
        1234,
        12_345,
        999_499,
        999_500,
        123_456_789,
        4_000_000_000,
    ];
    let shown = [
        "0ns", "999ns", "1us", "1.23us", "12.3us", "999us", "1.00ms", "123ms", "4s",
    ];
    assert_eq!(times.map(ns), shown);
}
