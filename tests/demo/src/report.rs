// SPDX-License-Identifier: GPL-2.0-only

//! From the module's statistics before and after each round to the table and to demo.json.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use sleepy_host::Result;
use sleepy_host::ctl::{Histogram, Phases, Stats};

use crate::Arguments;

/// What is to be reached: how many times lower with `nice` than with `observe`.
const TRIGGER_P99_GOAL: f64 = 3.0;
const EXEC_P50_GOAL: f64 = 1.5;

/// All rounds of one lever.
pub struct Run {
    lever: &'static str,
    trigger: Counts,
    exec: Counts,
    oncpu: Phases,
    latencies: Vec<Duration>,
}

/// A histogram's counts by the upper bound of the bucket, in nanoseconds.
#[derive(Default)]
struct Counts(BTreeMap<u64, u64>);

impl Counts {
    fn add(&mut self, before: &Histogram, after: &Histogram) {
        let before = before.counts();
        for (upper, count) in after.counts() {
            let new = count.saturating_sub(before.get(&upper).copied().unwrap_or(0));
            *self.0.entry(upper).or_default() += new;
        }
    }

    /// The bucket's upper bound, so that this share of all is below it.
    fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.0.values().sum();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut below = 0;
        self.0.iter().find_map(|(upper, count)| {
            below += count;
            (below >= rank).then_some(*upper)
        })
    }
}

impl Run {
    /// One without a round.
    pub fn new(lever: &'static str) -> Self {
        Self {
            lever,
            trigger: Counts::default(),
            exec: Counts::default(),
            oncpu: Phases::default(),
            latencies: Vec::new(),
        }
    }

    /// Which one.
    pub fn lever(&self) -> &'static str {
        self.lever
    }

    /// Adds a round. Fails if the module cannot have seen all that the client did.
    pub fn add(
        &mut self,
        before: &[Stats],
        after: &[Stats],
        latencies: Vec<Duration>,
    ) -> Result<()> {
        let mut seen = 0;
        for end in after {
            let start = before.iter().find(|start| start.name == end.name);
            let start =
                start.ok_or_else(|| format!("{}: no statistics before the round", end.name))?;
            if end.timeouts > start.timeouts || end.overflows > start.overflows {
                return Err(
                    format!("{}: requests were lost (see sleepyctl stats)", end.name).into(),
                );
            }
            seen += (end.requests - start.requests).min(end.responses - start.responses);
            self.trigger.add(&start.trigger_ns, &end.trigger_ns);
            self.exec.add(&start.exec_ns, &end.exec_ns);
            self.oncpu.in_flight += end.oncpu_ns.in_flight - start.oncpu_ns.in_flight;
            self.oncpu.idle += end.oncpu_ns.idle - start.oncpu_ns.idle;
            self.oncpu.sleepy += end.oncpu_ns.sleepy - start.oncpu_ns.sleepy;
        }
        let sent = u64::try_from(latencies.len())?;
        if sent == 0 || seen < sent {
            return Err(format!(
                "the client sent {sent} requests, sleepy saw {seen} with their responses"
            )
            .into());
        }
        self.latencies.extend(latencies);
        Ok(())
    }

    fn idle_share(&self) -> f64 {
        let idle = self.oncpu.idle + self.oncpu.sleepy;
        let all = idle + self.oncpu.in_flight;
        if all == 0 {
            0.0
        } else {
            idle as f64 / all as f64
        }
    }

    /// Of the times that the client waited, in nanoseconds.
    fn latency(&self, percent: usize) -> Option<u64> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted
            .get(rank - 1)
            .and_then(|latency| u64::try_from(latency.as_nanos()).ok())
    }

    fn outcome(&self) -> Result<Outcome> {
        let percentiles = |counts: &Counts, what: &str| -> Result<Percentiles> {
            let missing = || format!("lever {}: no {what} time was measured", self.lever);
            let at = |percent| counts.percentile(percent).ok_or_else(missing);
            Ok(Percentiles {
                p50: at(50)?,
                p99: at(99)?,
            })
        };
        Ok(Outcome {
            lever: self.lever,
            trigger_ns: percentiles(&self.trigger, "trigger")?,
            exec_ns: percentiles(&self.exec, "execution")?,
            idle_share: self.idle_share(),
            requests: self.latencies.len(),
        })
    }
}

/// demo.json
#[derive(Serialize)]
pub struct Outcomes {
    schema_version: u32,
    overcommit: u8,
    runs: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    lever: &'static str,
    trigger_ns: Percentiles,
    exec_ns: Percentiles,
    idle_share: f64,
    requests: usize,
}

#[derive(Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
}

/// What goes into demo.json.
pub fn json(runs: &[Run], vms: u8) -> Result<Outcomes> {
    let runs = runs.iter().map(Run::outcome).collect::<Result<_>>()?;
    Ok(Outcomes {
        schema_version: 1,
        overcommit: vms,
        runs,
    })
}

/// The runs side by side, and what was to be reached.
pub fn table(runs: &[Run], vms: u8, arguments: &Arguments) -> Result<String> {
    let outcomes: Vec<Outcome> = runs.iter().map(Run::outcome).collect::<Result<_>>()?;
    let mut text = format!(
        "{vms} microVMs of 1 vCPU on 1 CPU, all polling for requests of {} ms of work;\n\
         requests to one after the other, mean pause {} ms; {} x {} s with each lever\n\n",
        arguments.work, arguments.think, arguments.rounds, arguments.seconds
    );
    let mut row = |name: &str, value: &dyn Fn(&Run, &Outcome) -> String| {
        write!(text, "{name:32}")?;
        for (run, outcome) in runs.iter().zip(&outcomes) {
            write!(text, "{:>12}", value(run, outcome))?;
        }
        writeln!(text)
    };
    row("lever", &|_, of| of.lever.into())?;
    row("requests", &|_, of| of.requests.to_string())?;
    row("trigger time p50", &|_, of| time(of.trigger_ns.p50))?;
    row("             p99", &|_, of| time(of.trigger_ns.p99))?;
    row("execution time p50", &|_, of| time(of.exec_ns.p50))?;
    row("               p99", &|_, of| time(of.exec_ns.p99))?;
    let waited = |run: &Run, percent| run.latency(percent).map_or("-".into(), time);
    row("response time at the client p50", &|run, _| waited(run, 50))?;
    row("                            p99", &|run, _| waited(run, 99))?;
    row("idle CPU share", &|_, of| {
        format!("{:.0} %", of.idle_share * 100.0)
    })?;
    text.push('\n');
    let of = |lever| outcomes.iter().find(|outcome| outcome.lever == lever);
    if let (Some(without), Some(with)) = (of("observe"), of("nice")) {
        for (name, without, with, goal) in [
            (
                "trigger time p99",
                without.trigger_ns.p99,
                with.trigger_ns.p99,
                TRIGGER_P99_GOAL,
            ),
            (
                "execution time p50",
                without.exec_ns.p50,
                with.exec_ns.p50,
                EXEC_P50_GOAL,
            ),
        ] {
            let times = without as f64 / with as f64;
            writeln!(
                text,
                "{name} is {times:.1} times lower with nice (goal: {goal}, {})",
                if times >= goal {
                    "reached"
                } else {
                    "NOT reached"
                }
            )?;
        }
    }
    Ok(text)
}

fn time(ns: u64) -> String {
    format!("{:.2} ms", ns as f64 / 1e6)
}
