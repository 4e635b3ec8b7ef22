// SPDX-License-Identifier: GPL-2.0-only

//! Of [`super`], and the records that other tests are made of.

use super::*;

/// Two CPUs are shared.
pub fn host() -> Host {
    Host {
        kernel: "7.3.0".into(),
        cpu: "A processor".into(),
        cpus: 4,
        vcpu_cpus: 2,
        memory: 8192,
        accelerator: "kvm".into(),
    }
}

/// Three vCPUs for each chain and CPU.
pub fn cell(chains: u32) -> Cell {
    Cell {
        chain: "image".into(),
        input: "small".into(),
        wait: "busypoll".into(),
        chains,
        overcommit: 3 * chains,
        network: "local".into(),
        arrival: BURST.into(),
    }
}

/// Half of the CPU time is useful, and twice the sum of the execution times.
pub fn trial(system: &str, chains: u32, repetition: u32, exec_ns: &[u64]) -> Trial {
    let useful_ns = 2 * exec_ns.iter().sum::<u64>();
    Trial {
        system: system.into(),
        cell: cell(chains),
        repetition,
        outcome: Ok(Measured {
            exec_ns: exec_ns.to_vec(),
            useful_ns,
            awake_ns: useful_ns / 4,
            sleepy_ns: useful_ns / 4 * 3,
            ..Measured::default()
        }),
    }
}

/// One that could not be run.
pub fn failed_trial(system: &str, chains: u32, why: &str) -> Trial {
    Trial {
        outcome: Err(why.into()),
        ..trial(system, chains, 0, &[])
    }
}

/// Of these trials.
pub fn summary(trials: Vec<Trial>) -> Summary {
    Summary::new(Data {
        hosts: vec![host()],
        trials,
        ..Data::default()
    })
}

/// A well-behaved guest.
pub fn guest(system: &str, repetition: u32, per_second: f64, latency: u64) -> Alone {
    Alone {
        request: FUNCTION.into(),
        system: system.into(),
        repetition,
        per_second,
        latency_ns: vec![latency; 10],
    }
}

#[test]
fn rows_are_in_the_order_of_systems() {
    let systems = ["other", "sleepy-park", "scx_lavd", "eevdf"];
    let summary = summary(systems.map(|system| trial(system, 1, 0, &[1])).to_vec());
    let order: Vec<&str> = summary.rows.iter().map(|row| row.system.as_str()).collect();
    assert_eq!(order, ["eevdf", "scx_lavd", "sleepy-park", "other"]);
}

#[test]
fn repetitions_are_joined() {
    let mut second = trial("eevdf", 1, 1, &[300, 500]);
    let measured = second.outcome.as_mut().unwrap();
    (measured.useful_ns, measured.awake_ns, measured.sleepy_ns) = (1000, 0, 0);
    measured.checks.client = Some(1.25);
    let failed = failed_trial("eevdf", 1, "no memory");
    let summary = summary(vec![trial("eevdf", 1, 0, &[100]), second, failed]);

    let row = &summary.rows[0];
    assert_eq!(row.samples, [100, 300, 500]);
    assert_eq!(
        (row.exec_ns.p50, row.exec_ns.spread),
        (Some(300), Some(100))
    );
    assert_eq!(row.trigger_ns, Quantiles::default());
    assert_eq!(row.useful_ns, Some(200));
    // 200 of 1400 were idle.
    assert_eq!(row.idle_share, Some(50.0 / 1400.0 + 150.0 / 1400.0));
    assert_eq!(row.repetitions, 2);
    assert_eq!(row.error.as_deref(), Some("1 of 3 repetitions: no memory"));
    assert_eq!(row.checks.client, Some(1.25));
    assert_eq!((summary.checks.len(), summary.checks[0].count), (1, 1));
}

#[test]
fn switches_are_not_idle_time() {
    let mut one = trial("eevdf", 1, 0, &[100]);
    one.outcome.as_mut().unwrap().checks.schedstat = Some(1.25);
    let summary = summary(vec![one]);
    // 400 in all, 200 of them useful.
    let row = &summary.rows[0];
    assert!((row.switch_share.unwrap() - 80.0 / 400.0).abs() < 1e-9);
    assert!((row.idle_share.unwrap() - 120.0 / 320.0).abs() < 1e-9);
}

#[test]
fn what_could_not_be_run_has_no_figures() {
    let summary = summary(vec![failed_trial("scx_lavd", 1, "no sched_ext")]);
    let row = &summary.rows[0];
    assert_eq!(row.error.as_deref(), Some("no sched_ext"));
    assert_eq!(
        (row.idle_share, row.useful_ns, row.limit_exec_ns),
        (None, None, None)
    );
    assert_eq!(row.exec_ns, Quantiles::default());
}

fn limit(trials: Vec<Trial>, chains: u32) -> Option<u64> {
    let summary = summary(trials);
    let row = summary.rows.iter().find(|row| row.cell.chains == chains);
    row.unwrap().limit_exec_ns
}

#[test]
fn limit_is_useful_time_on_the_shared_cpus() {
    let trials = vec![
        trial("eevdf", 4, 0, &[900]),
        // The median of 800, 1000 and 2000 of useful time, on two CPUs.
        trial("sleepy-park", 4, 0, &[400]),
        trial("sleepy-park", 4, 1, &[500]),
        trial("sleepy-park", 4, 2, &[1000]),
    ];
    assert_eq!(limit(trials, 4), Some(500));
}

#[test]
fn limit_is_no_less_than_one_chain_alone() {
    let trials = vec![
        trial("eevdf", 4, 0, &[500]),
        trial("eevdf", 1, 0, &[900]),
        trial("sleepy-park", 1, 0, &[700]),
    ];
    assert_eq!(limit(trials, 4), Some(700));
}

#[test]
fn limit_is_of_bursts_only() {
    let mut poisson = trial("eevdf", 4, 0, &[500]);
    poisson.cell.arrival = "poisson".into();
    assert_eq!(limit(vec![poisson.clone()], 4), None);
    assert_eq!(summary(vec![poisson]).rows[0].over_own, None);
}

#[test]
fn each_turn_has_its_own_useful_time() {
    let turn = |repetition, useful| {
        let mut one = trial("sleepy-park", 4, repetition, &[400]);
        one.outcome.as_mut().unwrap().useful_ns = useful;
        one
    };
    // On two CPUs: 1, 2 and 4 times what it allows.
    let summary = summary(vec![turn(0, 800), turn(1, 400), turn(2, 200)]);
    assert_eq!(summary.rows[0].over_own, Some(2.0));
}

#[test]
fn ratios() {
    let reaction = |system: &str, ns| Reaction {
        system: system.into(),
        vms: 10,
        outcome: Ok(vec![ns]),
    };
    let summary = Summary::new(Data {
        reactions: vec![reaction("sleepy-nice", 20), reaction("controller", 1000)],
        alone: vec![
            guest("sleepy-park", 0, 99.0, 11),
            guest("sleepy-park", 1, 202.0, 10),
            guest(NO_MODULE, 0, 100.0, 10),
            guest(NO_MODULE, 1, 200.0, 10),
        ],
        ..Data::default()
    });
    assert_eq!(summary.reactions[1].controller_ratio, Some(50.0));
    assert_eq!(summary.alone[0].system, NO_MODULE);
    let ratio = summary.alone[1].per_second_ratio;
    assert_eq!(ratio.median, Some(0.99));
    assert!((ratio.spread.unwrap() - 0.01).abs() < 1e-9);
    assert_eq!(summary.alone[1].p99_ratio.median, Some(1.0));
}
