// SPDX-License-Identifier: GPL-2.0-only

//! One turn: requests to all chains, and what became of them.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use sleepy_bench::record::{Checks, Measured};
use sleepy_host::Result;
use sleepy_host::ctl::{Histogram, Phases, Stats};

use crate::arrivals::Arrival;
use crate::chain::{Called, Client};
use crate::fleet::{Fleet, Member, VCPU_CPU};
use crate::store::Store;

/// What came before is over after this time.
const SETTLE: Duration = Duration::from_millis(300);

/// What is asked of the chains.
pub enum Load {
    /// One request of each, all at once.
    Burst,
    /// So many of each, one after the other, when they come.
    Open {
        /// How they come.
        arrival: Arrival,
        /// Mean time between one of a chain and the next.
        mean: Duration,
        /// Of each chain.
        count: usize,
        /// Of the pauses.
        seed: u64,
    },
}

impl Load {
    fn times(&self, chain: usize) -> Vec<Duration> {
        match self {
            Self::Burst => vec![Duration::ZERO],
            Self::Open {
                arrival,
                mean,
                count,
                seed,
            } => arrival.times(*mean, *count, seed + 1000 * chain as u64),
        }
    }
}

/// What else there is to tell of a turn.
pub struct Told {
    /// What was measured.
    pub measured: Measured,
    /// The times from a wake-up to its effect.
    pub effects: Vec<u64>,
}

/// Calls all chains of a fleet. A VM that `parks` waits in a way that its guest knows nothing of.
pub fn run(
    fleet: &Fleet,
    clients: &[Client],
    store: &Store,
    load: &Load,
    parks: bool,
) -> Result<Told> {
    // So that no connection has to be made, the packets of which are requests, too.
    each(clients, Client::connect)?;
    thread::sleep(SETTLE);
    let stolen = (fleet.never_halts() && !parks)
        .then(|| Stolen::new(fleet, &clients[0]))
        .transpose()?;
    let (before, ran_before) = (fleet.stats()?, ran(fleet.members())?);
    let start = Barrier::new(clients.len() + 1);
    let (begin, busy, called) = thread::scope(|scope| -> Result<_> {
        let threads: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(number, client)| {
                let start = &start;
                scope.spawn(move || -> Result<Vec<Called>> {
                    let times = load.times(number);
                    start.wait();
                    let begin = Instant::now();
                    let call = |at| {
                        let intended = begin + at;
                        thread::sleep(intended.saturating_duration_since(Instant::now()));
                        client.call(intended, store)
                    };
                    times.into_iter().map(call).collect()
                })
            })
            .collect();
        let busy = busy()?;
        start.wait();
        let begin = Instant::now();
        let mut called = Vec::new();
        for thread in threads {
            called.push(thread.join().map_err(|_| "a client panicked")??);
        }
        Ok((begin, busy, called))
    })?;
    let elapsed = begin.elapsed();
    let busy = self::busy()?.saturating_sub(busy);
    let (after, ran_after) = (fleet.stats()?, ran(fleet.members())?);
    let told = Window {
        before,
        after,
        stages: clients.first().map_or(0, Client::stages),
    };
    told.lost()?;

    let mut measured = Measured {
        exec_ns: called
            .iter()
            .flatten()
            .map(|called| ns(called.exec))
            .collect(),
        elapsed_ns: ns(elapsed),
        ..Measured::default()
    };
    if matches!(load, Load::Burst) {
        told.last(&mut measured)?;
    } else {
        told.histograms(&mut measured);
    }
    told.cpu(&mut measured, busy);
    let seen: u64 = measured.stage_ns.iter().sum();
    let outside: Duration = called
        .iter()
        .flatten()
        .flat_map(|called| &called.stages)
        .sum();
    measured.checks = Checks {
        client: quotient(ns(outside), seen),
        schedstat: quotient(ran_after.saturating_sub(ran_before), told.oncpu()),
        steal: stolen
            .map(|stolen| stolen.check(fleet, &clients[0]))
            .transpose()?,
    };
    Ok(Told {
        measured,
        effects: told.counted(|stats| &stats.effect_ns),
    })
}

/// Does something for all chains at once.
fn each(clients: &[Client], what: impl Fn(&Client) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let what = &what;
        let threads: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(move || what(client)))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a client panicked")??;
        }
        Ok(())
    })
}

/// The module's statistics before and after.
struct Window {
    before: Vec<Stats>,
    after: Vec<Stats>,
    stages: usize,
}

impl Window {
    /// Fails if the module has lost sight of a request.
    fn lost(&self) -> Result<()> {
        for (before, after) in self.before.iter().zip(&self.after) {
            if after.timeouts > before.timeouts || after.overflows > before.overflows {
                return Err(
                    format!("{}: requests were lost (see sleepyctl stats)", after.name).into(),
                );
            }
        }
        Ok(())
    }

    /// The times of the one request that each VM got.
    fn last(&self, measured: &mut Measured) -> Result<()> {
        for chain in self.after.chunks(self.stages) {
            let mut answered = None;
            for stats in chain {
                let missing = || {
                    format!(
                        "{}: sleepy has not seen the request and its response",
                        stats.name
                    )
                };
                let last = stats.last_ns.ok_or_else(missing)?;
                let (Some(request), Some(response)) = (last.request, last.response) else {
                    return Err(missing().into());
                };
                let ran = last.ran.ok_or_else(missing)?;
                measured.trigger_ns.push(ran.saturating_sub(request));
                measured.stage_ns.push(response.saturating_sub(request));
                measured
                    .inter_ns
                    .extend(answered.map(|answered| ran.saturating_sub(answered)));
                answered = Some(response);
            }
        }
        Ok(())
    }

    /// The times of many, to the histograms' resolution.
    fn histograms(&self, measured: &mut Measured) {
        measured.trigger_ns = self.counted(|stats| &stats.trigger_ns);
        measured.stage_ns = self.counted(|stats| &stats.exec_ns);
    }

    /// Each new count as the upper bound of its bucket.
    fn counted(&self, which: impl Fn(&Stats) -> &Histogram) -> Vec<u64> {
        let mut times = Vec::new();
        for (before, after) in self.before.iter().zip(&self.after) {
            let before = which(before).counts();
            for (upper, count) in which(after).counts() {
                let old = before.get(&upper).copied().unwrap_or(0);
                times.extend((old..count).map(|_| upper));
            }
        }
        times
    }

    /// On-CPU time by phase.
    fn phases(&self) -> Phases {
        let mut sum = Phases::default();
        for (before, after) in self.before.iter().zip(&self.after) {
            let (before, after) = (&before.oncpu_ns, &after.oncpu_ns);
            sum.in_flight += after.in_flight.saturating_sub(before.in_flight);
            sum.idle += after.idle.saturating_sub(before.idle);
            sum.sleepy += after.sleepy.saturating_sub(before.sleepy);
        }
        sum
    }

    fn oncpu(&self) -> u64 {
        let phases = self.phases();
        phases.in_flight + phases.idle + phases.sleepy
    }

    /// The window is longer than the turn, by the time that it takes to read so many statistics. Nothing is in flight then, but
    /// guests may spin: what they used in the turn is the CPU's busy time less the useful one, divided as in the window.
    fn cpu(&self, measured: &mut Measured, busy: u64) {
        let phases = self.phases();
        let idle = busy.saturating_sub(phases.in_flight);
        let all = phases.idle + phases.sleepy;
        measured.useful_ns = phases.in_flight;
        measured.sleepy_ns =
            quotient(phases.sleepy, all).map_or(0, |part| (idle as f64 * part) as u64);
        measured.awake_ns = idle - measured.sleepy_ns.min(idle);
    }
}

fn quotient(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The view of its CPU that the first guest has, one that never halts: it either runs or knows that it does not.
struct Stolen {
    at: Instant,
    steal: u64,
    ran: u64,
}

impl Stolen {
    fn new(fleet: &Fleet, client: &Client) -> Result<Self> {
        Ok(Self {
            steal: client.steal()?,
            ran: ran(&fleet.members()[..1])?,
            at: Instant::now(),
        })
    }

    /// The time that the guest and the scheduler tell of, over that which has passed.
    fn check(self, fleet: &Fleet, client: &Client) -> Result<f64> {
        let now = Self::new(fleet, client)?;
        let told = (now.steal - self.steal) + (now.ran - self.ran);
        Ok(told as f64 / (now.at - self.at).as_nanos() as f64)
    }
}

/// How long the vCPUs' CPU has been busy, in nanoseconds. Nothing else runs there.
fn busy() -> Result<u64> {
    let text = fs::read_to_string("/proc/schedstat")?;
    let name = format!("cpu{VCPU_CPU}");
    let fields = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&&*name));
    let time = fields.as_ref().and_then(|fields| fields.get(7));
    Ok(time.ok_or("/proc/schedstat tells no CPU's time")?.parse()?)
}

/// How long the vCPUs have run, in nanoseconds, as the scheduler tells.
fn ran(members: &[Member]) -> Result<u64> {
    let mut sum = 0;
    for member in members {
        for tid in &member.vcpus {
            let text =
                fs::read_to_string(format!("/proc/{}/task/{tid}/schedstat", member.vm.pid()))?;
            let time = text.split_whitespace().next().ok_or("no schedstat")?;
            sum += time.parse::<u64>()?;
        }
    }
    Ok(sum)
}
