// SPDX-License-Identifier: GPL-2.0-only

//! Whether a VM has anything to do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::packet::Meaning;

/// How long things last.
#[derive(Clone, Copy)]
pub struct Times {
    /// A VM has nothing to do so long after its last answer.
    pub linger: Duration,
    /// A request counts as lost after this.
    pub request_timeout: Duration,
}

/// What a VM was asked for. As long as it has something to do, [`State::deadline`] is when that ends.
pub struct State {
    times: Times,
    /// The peers that wait for an answer, and since when.
    in_flight: HashMap<SocketAddr, Instant>,
    awake: bool,
    /// When the VM last answered.
    answered: Instant,
}

impl State {
    /// A VM that has something to do until the linger is over.
    pub fn new(times: Times, now: Instant) -> Self {
        Self {
            times,
            in_flight: HashMap::new(),
            awake: true,
            answered: now,
        }
    }

    /// A packet. True if the VM has something to do again.
    pub fn packet(&mut self, meaning: Meaning, peer: SocketAddr, now: Instant) -> bool {
        match meaning {
            Meaning::Request => {
                self.in_flight.insert(peer, now);
                !std::mem::replace(&mut self.awake, true)
            }
            Meaning::Response => {
                self.in_flight.remove(&peer);
                self.answered = now;
                false
            }
        }
    }

    /// When to call [`State::time`].
    pub fn deadline(&self) -> Option<Instant> {
        let lost = self
            .in_flight
            .values()
            .min()
            .map(|oldest| *oldest + self.times.request_timeout);
        self.awake
            .then(|| lost.unwrap_or(self.answered + self.times.linger))
    }

    /// Time has gone by. True if the VM has nothing to do any more.
    pub fn time(&mut self, now: Instant) -> bool {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return false;
        }
        let timeout = self.times.request_timeout;
        self.in_flight.retain(|_, since| now < *since + timeout);
        self.awake = !self.in_flight.is_empty();
        !self.awake
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        linger: Duration::from_millis(2),
        request_timeout: Duration::from_secs(5),
    };

    fn peer(port: u16) -> SocketAddr {
        ([10, 9, 1, 1], port).into()
    }

    #[test]
    fn sleeps_when_the_last_answer_was_a_linger_ago() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut state = State::new(TIMES, start);
        assert!(!state.time(at(1)));
        assert!(state.time(at(2)));
        assert_eq!(state.deadline(), None);

        assert!(state.packet(Meaning::Request, peer(1), at(10)));
        assert!(!state.packet(Meaning::Request, peer(2), at(11)));
        assert!(!state.packet(Meaning::Response, peer(1), at(12)));
        assert!(!state.time(at(100)));
        assert!(!state.packet(Meaning::Response, peer(2), at(101)));
        assert!(!state.packet(Meaning::Response, peer(2), at(102)));
        assert!(!state.time(at(103)));
        assert!(state.time(at(104)));
    }

    #[test]
    fn gives_up_a_lost_request() {
        let start = Instant::now();
        let mut state = State::new(TIMES, start);
        state.packet(Meaning::Request, peer(1), start);
        assert!(!state.time(start + Duration::from_secs(4)));
        assert!(state.time(start + Duration::from_secs(5)));
    }
}
