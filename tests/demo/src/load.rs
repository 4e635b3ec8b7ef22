// SPDX-License-Identifier: GPL-2.0-only

//! The client: sends an HTTP request to a microVM, waits for its answer, thinks, sends one to the next.

use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::Agent;

use sleepy_host::Result;
use sleepy_host::vm::Vm;

/// A request not answered in this time has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How the work of a request is measured.
const TRIAL_UNITS: u64 = 200;
const TRIALS: u32 = 20;

/// How much a request asks for.
#[derive(Clone, Copy)]
pub struct Work {
    units: u64,
}

#[derive(Deserialize)]
struct Answer {
    ns: u64,
}

impl Work {
    /// As many units as take `time` when nothing interrupts: the fastest of several tries tells.
    pub fn measure(guests: &[Vm], time: Duration) -> Result<Self> {
        let mut fastest = u64::MAX;
        for guest in guests {
            let client = Client::new(guest);
            for _ in 0..TRIALS {
                fastest = fastest.min(client.request(TRIAL_UNITS)?.ns);
            }
        }
        let units = u128::from(TRIAL_UNITS) * time.as_nanos() / u128::from(fastest.max(1));
        Ok(Self {
            units: u64::try_from(units)?.max(1),
        })
    }

    /// The `n` of each request.
    pub fn units(self) -> u64 {
        self.units
    }
}

/// What happens in a round.
pub struct Load {
    /// Of each request.
    pub work: Work,
    /// Mean time between an answer and the next request; the times are distributed exponentially.
    pub think: Duration,
    /// How long requests are sent.
    pub time: Duration,
}

impl Load {
    /// Sends requests to the guests in turn; returns how long each took. The same `seed` gives the same pauses.
    pub fn run(&self, guests: &[Vm], seed: u64) -> Result<Vec<Duration>> {
        let clients: Vec<_> = guests.iter().map(Client::new).collect();
        let mut dice = fastrand::Rng::with_seed(seed);
        let end = Instant::now() + self.time;
        let mut latencies = Vec::new();
        for client in clients.iter().cycle() {
            // 1 - f64() is above 0: its logarithm is finite.
            thread::sleep(self.think.mul_f64(-(1.0 - dice.f64()).ln()));
            let begin = Instant::now();
            if begin >= end {
                break;
            }
            client.request(self.work.units)?;
            latencies.push(begin.elapsed());
        }
        Ok(latencies)
    }
}

/// Keeps its connection from one request to the next.
pub struct Client {
    agent: Agent,
    url: String,
    name: String,
}

impl Client {
    /// Connects at the first request.
    pub fn new(guest: &Vm) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self {
            agent,
            url: guest.url(),
            name: guest.name().to_owned(),
        }
    }

    fn request(&self, units: u64) -> Result<Answer> {
        self.try_request(units)
            .map_err(|error| format!("request to {}: {error}", self.name).into())
    }

    fn try_request(&self, units: u64) -> Result<Answer> {
        let mut answer = self
            .agent
            .get(format!("{}/work?n={units}", self.url))
            .call()?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }
}
