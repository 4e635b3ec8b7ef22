// SPDX-License-Identifier: GPL-2.0-only

//! Chains of functions, and their client.

use std::time::{Duration, Instant};

use serde::Deserialize;
use sleepy_host::Result;
use ureq::Agent;

use crate::store::Store;

/// A request not answered in this time has failed; so much more for each chain that shares the CPU.
const PATIENCE: Duration = Duration::from_secs(30);
const MORE_PATIENCE: Duration = Duration::from_secs(6);

/// What is called one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What it is called.
    pub name: &'static str,
    /// Each is a function in a microVM of its own.
    pub stages: &'static [&'static str],
}

/// Work on pictures, and on the text of programs.
pub const CHAINS: [Chain; 2] = [
    Chain {
        name: "image",
        stages: &["blur", "edge", "resize", "gamma", "sepia"],
    },
    Chain {
        name: "compile",
        stages: &["preprocess", "compile", "link"],
    },
];

impl Chain {
    /// The one of this name.
    pub fn named(name: &str) -> Result<Self> {
        CHAINS
            .into_iter()
            .find(|chain| chain.name == name)
            .ok_or_else(|| format!("no chain '{name}'").into())
    }

    /// What its first stage is given; `small` or `large`.
    pub fn input(&self, size: &str) -> Vec<u8> {
        match (self.name, size) {
            ("image", "small") => sleepy_function::picture(256 << 10),
            ("image", _) => sleepy_function::picture(1 << 20),
            (_, "small") => sleepy_function::SMALL_C.into(),
            _ => sleepy_function::LARGE_C.into(),
        }
    }
}

/// One chain's client. It keeps its connections.
pub struct Client {
    agent: Agent,
    /// Of each stage: the request, and where its result is.
    calls: Vec<(String, String)>,
    pings: Vec<String>,
}

/// How a chain was called.
#[derive(Clone, Debug)]
pub struct Called {
    /// From the intended send time to the last response.
    pub exec: Duration,
    /// Of each stage, from its request to its response.
    pub stages: Vec<Duration>,
}

impl Client {
    /// For the functions at `urls`, in the order of the stages: chain `number` of `chains`.
    pub fn new(
        chain: &Chain,
        (number, chains): (usize, u32),
        urls: &[String],
        input: &str,
    ) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE + MORE_PATIENCE * chains))
            .max_idle_connections(urls.len())
            .build()
            .into();
        let result = |stage: &str| format!("{}{number}-{stage}", chain.name);
        let mut from = input.to_owned();
        let calls = urls.iter().zip(chain.stages).map(|(url, stage)| {
            let to = result(stage);
            let call = format!(
                "{url}/run?stage={stage}&from={}&to={}",
                Store::address(&from),
                Store::address(&to)
            );
            from.clone_from(&to);
            (call, to)
        });
        Self {
            agent,
            calls: calls.collect(),
            pings: urls.iter().map(|url| format!("{url}/ping")).collect(),
        }
    }

    /// How many functions a call is of.
    pub fn stages(&self) -> usize {
        self.calls.len()
    }

    /// Connects to all functions, so that no call has to.
    pub fn connect(&self) -> Result<()> {
        for ping in &self.pings {
            self.get(ping)?;
        }
        Ok(())
    }

    /// Asks the first function for nothing but an answer.
    pub fn ping(&self) -> Result<()> {
        self.get(&self.pings[0]).map(drop)
    }

    /// How long the first function's guest has had no CPU though it wanted one, in nanoseconds, as the guest knows.
    pub fn steal(&self) -> Result<u64> {
        #[derive(Deserialize)]
        struct Steal {
            steal_ns: u64,
        }
        let url = self.pings[0].replace("/ping", "/steal");
        Ok(serde_json::from_slice::<Steal>(&self.get(&url)?)?.steal_ns)
    }

    /// Calls one stage after the other. Fails if one has put no result into the store.
    pub fn call(&self, intended: Instant, store: &Store) -> Result<Called> {
        let mut stages = Vec::with_capacity(self.calls.len());
        for (call, _) in &self.calls {
            let begin = Instant::now();
            self.get(call)?;
            stages.push(begin.elapsed());
        }
        let exec = intended.elapsed();
        for (call, to) in &self.calls {
            if store.take(to).is_none_or(|result| result.is_empty()) {
                return Err(format!("{call}: no result in the store").into());
            }
        }
        Ok(Called { exec, stages })
    }

    fn get(&self, url: &str) -> Result<Vec<u8>> {
        let failed = |error: ureq::Error| format!("{url}: {error}");
        let mut answer = self.agent.get(url).call().map_err(failed)?;
        Ok(answer.body_mut().read_to_vec().map_err(failed)?)
    }
}
