// SPDX-License-Identifier: GPL-2.0-only

//! `stats`

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use sleepy_uapi as uapi;
use sleepy_uapi::{Histogram, PHASES, VmGet, VmStats};

use crate::cli::StatsArgs;
use crate::device::{Device, gone, vm_name};
use crate::error::Result;
use crate::events;
use crate::histogram::Summary;
use crate::output::Output;
use crate::stats_text;

#[derive(Serialize)]
struct Body {
    vms: Vec<Stats>,
}

/// What one VM did.
#[derive(Serialize)]
pub struct Stats {
    pub name: String,
    pub id: u32,
    pub requests: u64,
    pub responses: u64,
    pub in_flight: u32,
    pub closed: u64,
    pub timeouts: u64,
    pub overflows: u64,
    pub calls: u64,
    pub answers: u64,
    pub calls_in_flight: u32,
    pub hints_refused: u64,
    pub wakes: Causes,
    pub sleeps: Causes,
    pub time_ns: Phases,
    pub oncpu_ns: Phases,
    /// Part of the on-CPU time in which no request was in flight.
    pub idle_share: Option<f64>,
    pub trigger_ns: Summary,
    pub exec_ns: Summary,
    pub effect_ns: Summary,
    pub last_ns: Last,
}

/// How often, by cause.
pub struct Causes(pub Vec<(&'static str, u64)>);

impl Causes {
    fn new(names: &[&'static str], counts: &[u64]) -> Self {
        Self(names.iter().copied().zip(counts.iter().copied()).collect())
    }
}

impl Serialize for Causes {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}

#[derive(Serialize)]
pub struct Phases {
    pub in_flight: u64,
    pub idle: u64,
    pub sleepy: u64,
}

impl Phases {
    /// All phases together.
    pub fn sum(&self) -> u64 {
        self.in_flight + self.idle + self.sleepy
    }
}

impl From<&[u64; PHASES]> for Phases {
    fn from(times: &[u64; PHASES]) -> Self {
        Self {
            in_flight: times[uapi::PHASE_IN_FLIGHT],
            idle: times[uapi::PHASE_IDLE],
            sleepy: times[uapi::PHASE_SLEEPY],
        }
    }
}

/// Times of the last request that came into flight, by the monotonic clock.
#[derive(Default, Serialize)]
pub struct Last {
    pub request: Option<u64>,
    pub ran: Option<u64>,
    pub response: Option<u64>,
}

impl From<&uapi::Last> for Last {
    fn from(last: &uapi::Last) -> Self {
        let seen = |time: u64| (time != 0).then_some(time);
        Self {
            request: seen(last.request),
            ran: seen(last.ran),
            response: seen(last.response),
        }
    }
}

impl Stats {
    fn new(vm: &VmGet, stats: &VmStats) -> Self {
        let oncpu_ns = Phases::from(&stats.oncpu);
        Self {
            name: vm_name(vm),
            id: vm.id,
            requests: stats.requests,
            responses: stats.responses,
            in_flight: vm.in_flight,
            closed: stats.closed,
            timeouts: stats.timeouts,
            overflows: stats.overflows,
            calls: stats.calls,
            answers: stats.answers,
            calls_in_flight: vm.calls,
            hints_refused: stats.hints_refused,
            wakes: Causes::new(&events::WAKES, &stats.wakes),
            sleeps: Causes::new(&events::SLEEPS, &stats.sleeps),
            time_ns: Phases::from(&stats.time),
            idle_share: share(oncpu_ns.sum() - oncpu_ns.in_flight, oncpu_ns.sum()),
            oncpu_ns,
            trigger_ns: Summary::from(&stats.trigger),
            exec_ns: Summary::from(&stats.exec),
            effect_ns: Summary::from(&stats.effect),
            last_ns: Last::from(&stats.last),
        }
    }
}

/// `part` of `whole`, if there is a whole.
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Runs it.
pub fn run(output: Output, args: &StatsArgs) -> Result<()> {
    let device = Device::open()?;
    let mut before = HashMap::new();
    loop {
        let (now, is_read) = print(output, &device, args, &before)?;
        let Some(pause) = args.watch.filter(|_| is_read) else {
            return Ok(());
        };
        before = now;
        std::thread::sleep(pause);
    }
}

/// Prints what happened since `before`, or with JSON everything; returns the figures, and whether somebody reads on.
fn print(
    output: Output,
    device: &Device,
    args: &StatsArgs,
    before: &HashMap<u32, VmStats>,
) -> Result<(HashMap<u32, VmStats>, bool)> {
    let vms = if args.names.is_empty() {
        device.vms()?
    } else {
        device.named(&args.names)?
    };
    let mut now = HashMap::new();
    let mut shown = Vec::new();
    for vm in &vms {
        let stats = match device.stats(vm)? {
            Some(stats) => stats,
            None if args.names.is_empty() => continue,
            None => return Err(gone(vm)),
        };
        let since = before
            .get(&vm.id)
            .filter(|_| !output.json)
            .map_or(stats, |before| difference(&stats, before));
        shown.push(Stats::new(vm, &since));
        now.insert(vm.id, stats);
    }
    let interval = args.watch.filter(|_| !before.is_empty());
    let body = Body { vms: shown };
    let is_read = output.print_on(&body, || {
        heading(args.watch, interval) + &stats_text::human(&body.vms)
    })?;
    Ok((now, is_read))
}

fn heading(watch: Option<Duration>, interval: Option<Duration>) -> String {
    match (watch, interval) {
        (None, _) => String::new(),
        (Some(_), None) => "--- since they were added\n".to_string(),
        (Some(_), Some(interval)) => format!("--- last {}s\n", interval.as_secs_f64()),
    }
}

/// What was counted between two looks.
fn difference(now: &VmStats, before: &VmStats) -> VmStats {
    fn each<const N: usize>(now: &[u64; N], before: &[u64; N]) -> [u64; N] {
        std::array::from_fn(|i| now[i].saturating_sub(before[i]))
    }
    let histogram = |now: &Histogram, before: &Histogram| Histogram {
        buckets: each(&now.buckets, &before.buckets),
    };
    VmStats {
        id: now.id,
        reserved: 0,
        requests: now.requests.saturating_sub(before.requests),
        responses: now.responses.saturating_sub(before.responses),
        closed: now.closed.saturating_sub(before.closed),
        timeouts: now.timeouts.saturating_sub(before.timeouts),
        overflows: now.overflows.saturating_sub(before.overflows),
        calls: now.calls.saturating_sub(before.calls),
        answers: now.answers.saturating_sub(before.answers),
        hints_refused: now.hints_refused.saturating_sub(before.hints_refused),
        wakes: each(&now.wakes, &before.wakes),
        sleeps: each(&now.sleeps, &before.sleeps),
        time: each(&now.time, &before.time),
        oncpu: each(&now.oncpu, &before.oncpu),
        trigger: histogram(&now.trigger, &before.trigger),
        exec: histogram(&now.exec, &before.exec),
        effect: histogram(&now.effect, &before.effect),
        last: now.last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_all_cpu_time_without_a_request() {
        let mut stats = VmStats::default();
        assert_eq!(
            Stats::new(&VmGet::default(), &stats).idle_share,
            None,
            "it never ran"
        );
        stats.oncpu[uapi::PHASE_IN_FLIGHT] = 25;
        stats.oncpu[uapi::PHASE_IDLE] = 35;
        stats.oncpu[uapi::PHASE_SLEEPY] = 40;
        assert_eq!(Stats::new(&VmGet::default(), &stats).idle_share, Some(0.75));
    }

    #[test]
    fn interval_is_what_came_since() {
        let mut before = VmStats {
            requests: 5,
            ..VmStats::default()
        };
        before.trigger.buckets[7] = 5;
        let mut now = VmStats {
            requests: 8,
            timeouts: 1,
            ..before
        };
        now.trigger.buckets[9] = 3;
        let interval = Stats::new(&VmGet::default(), &difference(&now, &before));
        assert_eq!(
            (
                interval.requests,
                interval.timeouts,
                interval.trigger_ns.count
            ),
            (3, 1, 3)
        );
        assert_eq!(interval.trigger_ns.buckets.len(), 1);
    }

    #[test]
    fn json_has_what_scripts_rely_on() {
        let json =
            serde_json::to_value(Stats::new(&VmGet::default(), &VmStats::default())).unwrap();
        for path in [
            "/requests",
            "/responses",
            "/in_flight",
            "/closed",
            "/timeouts",
            "/overflows",
            "/idle_share",
            "/calls",
            "/answers",
            "/calls_in_flight",
            "/hints_refused",
            "/wakes/request",
            "/wakes/answer",
            "/sleeps/response",
            "/sleeps/call",
            "/time_ns/in_flight",
            "/time_ns/idle",
            "/time_ns/sleepy",
            "/oncpu_ns/in_flight",
            "/oncpu_ns/idle",
            "/oncpu_ns/sleepy",
            "/trigger_ns/count",
            "/trigger_ns/p50",
            "/trigger_ns/p90",
            "/trigger_ns/p99",
            "/trigger_ns/max",
            "/trigger_ns/buckets",
            "/exec_ns/count",
            "/effect_ns/count",
            "/last_ns/request",
            "/last_ns/ran",
            "/last_ns/response",
        ] {
            assert!(json.pointer(path).is_some(), "{path}");
        }
    }
}
