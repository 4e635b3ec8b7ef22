// SPDX-License-Identifier: GPL-2.0-only

//! The state machine of one VM: the state word, the flows it counts, and the time of the last event.

use super::{
    flows::{Flows, Insert},
    state::{self, Change, Event, State},
    Word,
};

/// The times that a VM is configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long it stays awake after its last answer.
    pub linger: u64,
    /// After this time a request counts as lost.
    pub request_timeout: u64,
    /// After this time asleep it is awake for `linger`.
    pub max_sleep: u64,
}

/// Why nothing is in flight any more, and so why the VM falls asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The last flow was answered.
    Response = 0,
    /// The last flow was closed.
    Close = 1,
    /// The last flow was lost.
    Timeout = 2,
    /// Nothing came after it was woken by something else than a request, or was added.
    Quiet = 3,
}

impl Cause {
    fn from_word(word: u64) -> Self {
        match word {
            0 => Self::Response,
            1 => Self::Close,
            2 => Self::Timeout,
            _ => Self::Quiet,
        }
    }
}

/// What a request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its effect on the state, if it had one: a flow in flight already has none.
    pub change: Option<Change>,
    /// It found the flow table full.
    pub overflow: bool,
    /// The timer must fire at this time, or before.
    pub timer: Option<u64>,
}

/// What the end of a flow did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How many flows it ended.
    pub flows: u64,
    /// Its effect on the state, if it ended one.
    pub change: Option<Change>,
    /// The timer must fire at this time, or before.
    pub timer: Option<u64>,
}

/// What the timer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// How many flows were given up as lost.
    pub lost: u64,
    /// The effect of that on the state.
    pub expiry: Option<Change>,
    /// What happened then: it fell asleep or was stirred, or nothing.
    pub change: Change,
    /// Why it fell asleep, if it did.
    pub cause: Cause,
    /// When the timer must fire next.
    pub next: u64,
}

/// One VM.
///
/// Every method may be called from any context, any number of them at once.
pub struct Machine<W> {
    state: W,
    flows: Flows<W>,
    /// Time of the last packet that a rule matched, or of the last transition.
    last: W,
    /// A [`Cause`].
    cause: W,
}

impl<W: Word> Machine<W> {
    /// A VM that is awake and has nothing in flight.
    pub fn new(now: u64) -> Self {
        Self {
            state: W::new(State::new(now).word()),
            flows: Flows::new(),
            last: W::new(now),
            cause: W::new(Cause::Quiet as u64),
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        state::load(&self.state)
    }

    /// A request of the flow `hash` was seen. On return the VM is awake.
    pub fn request(&self, hash: u32, times: &Times, now: u64) -> Request {
        self.last.store(now);
        if self.flows.refresh(hash, now) {
            // The flow may have landed between the two looks, and the VM with it.
            let change = self
                .state()
                .sleepy()
                .then(|| state::update(&self.state, Event::Wake, now));
            return Request {
                change,
                overflow: false,
                timer: change.map(|_| now.saturating_add(times.linger)),
            };
        }
        // The word first: it never counts fewer flows than the table has.
        let change = state::update(&self.state, Event::Request, now);
        let insert = self.flows.insert(hash, now);
        if insert == Insert::Full {
            // The overflow slot has been counted.
            state::update(&self.state, Event::Done(1), now);
        }
        Request {
            change: Some(change),
            overflow: insert != Insert::New,
            timer: change
                .woke()
                .then(|| now.saturating_add(times.request_timeout)),
        }
    }

    /// The flow `hash` was answered or closed. `since` is told when each flow that this ends came into
    /// flight.
    pub fn end(
        &self,
        hash: u32,
        cause: Cause,
        times: &Times,
        now: u64,
        since: impl FnMut(u64),
    ) -> End {
        self.last.store(now);
        let flows = self.flows.remove(hash, since);
        if flows == 0 {
            return End {
                flows,
                change: None,
                timer: None,
            };
        }
        let change = state::update(&self.state, Event::Done(flows), now);
        if change.landed() {
            self.cause.store(cause as u64);
        }
        End {
            flows,
            change: Some(change),
            timer: change.landed().then(|| now.saturating_add(times.linger)),
        }
    }

    /// The timer fired, at any time: too early costs nothing but the call.
    pub fn tick(&self, times: &Times, now: u64) -> Tick {
        let (lost, due) = self.flows.expire(now, times.request_timeout);
        let expiry = (lost > 0).then(|| state::update(&self.state, Event::Done(lost), now));
        if expiry.is_some_and(|change| change.landed()) {
            self.last.store(now);
            self.cause.store(Cause::Timeout as u64);
        }
        let state = self.state();
        let quiet = now.saturating_sub(self.last.load());
        let (event, next) = if state.sleepy() {
            if quiet >= times.max_sleep {
                self.last.store(now);
                self.cause.store(Cause::Quiet as u64);
                (Event::Wake, times.linger)
            } else {
                (Event::Touch, times.max_sleep - quiet)
            }
        } else if state.in_flight() > 0 {
            let due = due.map_or(times.request_timeout, |due| due.saturating_sub(now));
            (Event::Touch, due)
        } else if state.held() {
            (Event::Touch, times.max_sleep)
        } else if quiet >= times.linger {
            self.last.store(now);
            (Event::Sleep, times.max_sleep)
        } else {
            (Event::Touch, times.linger - quiet)
        };
        let change = state::update(&self.state, event, now);
        // A request that came in between found the VM awake, and so left the timer alone.
        let next = if event == Event::Sleep && !change.after.sleepy() {
            times.linger
        } else {
            next
        };
        Tick {
            lost,
            expiry,
            change,
            cause: Cause::from_word(self.cause.load()),
            next: now.saturating_add(next.max(1)),
        }
    }

    /// After the timer was set to `next`: whether the last flow landed meanwhile, on another CPU, so that
    /// the timer must fire earlier than that.
    pub fn sooner(&self, times: &Times, now: u64, next: u64) -> Option<u64> {
        let state = self.state();
        let due = now.saturating_add(times.linger);
        (!state.sleepy() && !state.held() && state.in_flight() == 0 && due < next).then_some(due)
    }

    /// Something else than a packet happened.
    pub fn update(&self, event: Event, now: u64) -> Change {
        if matches!(event, Event::Wake | Event::Hold) {
            self.last.store(now);
            self.cause.store(Cause::Quiet as u64);
        }
        state::update(&self.state, event, now)
    }
}
