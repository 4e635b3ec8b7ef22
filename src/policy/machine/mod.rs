// SPDX-License-Identifier: GPL-2.0-only

//! The state machine of one VM: the state word, the flows it counts, and what else it goes by.

mod tick;

pub use tick::{Threads, Tick, Woke};

use super::{
    flows::{Asker, Flows, Insert, Removed, MAX_HOLD, MORE_HOLD},
    idle::Idle,
    sent::Sent,
    state::{self, Change, Event, State},
    Word,
};

/// What a VM is configured with. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long it stays awake after whatever has woken it, or its last answer.
    pub linger: u64,
    /// After this time a request counts as lost.
    pub request_timeout: u64,
    /// After this time asleep it is awake for `linger`.
    pub max_sleep: u64,
    /// For [`Cause::Quiet`].
    pub quiet: u64,
    /// For [`Cause::Spin`].
    pub spin: u64,
    /// How long it may stay sleepy after a timer of the guest.
    pub timer_slack: u64,
    /// What lets it sleep, one bit for each [`Cause`]. [`Cause::Response`] stands for all that come with flows.
    pub sleep_on: u32,
}

impl Settings {
    fn on(&self, cause: Cause) -> bool {
        self.sleep_on >> cause as u32 & 1 == 1
    }
}

/// Why a VM falls asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The last flow was answered.
    Response = 0,
    /// The last flow was closed.
    Close = 1,
    /// The last flow was lost.
    Timeout = 2,
    /// Nothing came after it was woken by something else than a request, or was added.
    Rest = 3,
    /// Every vCPU has halted.
    Idle = 4,
    /// It burns CPU time without I/O.
    Spin = 5,
    /// There is no I/O at all.
    Quiet = 6,
    /// The guest says so.
    Hint = 7,
    /// A packet says so.
    Rule = 8,
    /// It waits for an answer itself.
    Call = 9,
}

/// In place of a cause: as [`Cause::Rest`], and it was only stirred: it goes back to sleep whatever
/// lets it sleep otherwise.
const STIRRED: u64 = 15;

impl Cause {
    fn from_word(word: u64) -> Self {
        match word {
            0 => Self::Response,
            1 => Self::Close,
            2 => Self::Timeout,
            9 => Self::Call,
            _ => Self::Rest,
        }
    }
}

/// What a packet did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Its effect on the state, if it had one.
    pub change: Option<Change>,
    /// How many flows it ended.
    pub ended: Removed,
    /// It found the flow table full.
    pub overflow: bool,
    /// The timer must fire at this time, or before; too early costs nothing but the call.
    pub timer: Option<u64>,
}

/// One VM.
///
/// Every method may be called from any context, any number of them at once; but [`tick`](Self::tick) by one at a time.
pub struct Machine<W> {
    state: W,
    flows: Flows<W>,
    /// Time of the last packet that a rule matched, or of the last transition; later where more of a call may come.
    last: W,
    /// When it fell asleep.
    slept: W,
    /// A [`Cause`], or [`STIRRED`].
    cause: W,
    /// Hash of the flow that was answered last, and the time of that answer's last segment.
    answered: W,
    segment: W,
    /// Hash of the flow of the VM's last call of several segments, until it is answered.
    asking: W,
    /// How long a guest's timer may wait; 0 if none has fired.
    timer: W,
    /// Time of the last I/O of any kind, or of the last wake-up by something else than a packet.
    io: W,
    /// That time, when the timer last looked, and the on-CPU time then. Written by `tick` alone.
    io_seen: W,
    oncpu_seen: W,
    /// When it was last woken by something else than a packet of a flow.
    roused: W,
    /// Which vCPUs have halted.
    pub idle: Idle<W>,
    /// What the VM has sent by TCP.
    pub sent: Sent<W>,
}

impl<W: Word> Machine<W> {
    /// A VM that is awake and has nothing in flight.
    pub fn new(now: u64) -> Self {
        Self {
            state: W::new(State::new(now).word()),
            flows: Flows::new(),
            last: W::new(now),
            slept: W::new(now),
            cause: W::new(Cause::Rest as u64),
            answered: W::new(u64::MAX),
            segment: W::new(0),
            asking: W::new(u64::MAX),
            timer: W::new(0),
            io: W::new(now),
            io_seen: W::new(0),
            oncpu_seen: W::new(0),
            roused: W::new(0),
            idle: Idle::new(now),
            sent: Sent::new(),
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        state::load(&self.state)
    }

    /// A request to the VM was seen; `whole` unless it goes on in the next segment. On return the VM is
    /// awake.
    pub fn request(&self, hash: u32, whole: bool, settings: &Settings, now: u64) -> Packet {
        self.last.store(now);
        if self.flows.refresh(hash, Asker::Peer, whole, now) {
            // The flow may have landed between the two looks, and the VM with it; or the VM sleeps since
            // it waits for an answer itself.
            let change = self
                .state()
                .sleepy()
                .then(|| state::update(&self.state, Event::Wake, now));
            return Packet {
                change,
                timer: change.map(|_| now.saturating_add(settings.linger)),
                ..Packet::default()
            };
        }
        // The word first: it never counts fewer flows than the table has.
        let change = state::update(&self.state, Event::Request, now);
        let insert = self.flows.insert(hash, Asker::Peer, whole, now);
        if insert == Insert::Full {
            // The overflow slot has been counted.
            state::update(&self.state, Event::Done(1), now);
        }
        Packet {
            change: Some(change),
            overflow: insert != Insert::New,
            timer: change
                .woke()
                .then(|| now.saturating_add(settings.request_timeout)),
            ..Packet::default()
        }
    }

    /// The VM answers; with `more` there is more of the answer behind this segment. `since` is told when
    /// each flow that this answers came into flight.
    pub fn response(
        &self,
        hash: u32,
        more: bool,
        settings: &Settings,
        now: u64,
        since: impl FnMut(u64),
    ) -> Packet {
        self.last.store(now);
        let Some(answered) = self.flows.answer(hash, more, now, since) else {
            return self.goes_on(hash, settings, now);
        };
        if answered.ended == 0 {
            return Packet {
                timer: answered.held.map(|hold| now.saturating_add(hold)),
                ..Packet::default()
            };
        }
        self.answered(hash, now);
        let ended = Removed {
            requests: answered.ended,
            calls: 0,
        };
        self.done(ended, Cause::Response, settings, now)
    }

    /// An answer without a request: the last one goes on, after a pause in which the VM may have fallen
    /// asleep.
    fn goes_on(&self, hash: u32, settings: &Settings, now: u64) -> Packet {
        if self.answered.load() != u64::from(hash) {
            return Packet::default();
        }
        let pause = now.saturating_sub(self.segment.load());
        self.segment.store(now);
        if pause <= settings.linger || pause > MAX_HOLD {
            return Packet::default();
        }
        let change = state::update(&self.state, Event::Request, now);
        let hold = self.flows.stream(hash, pause, now);
        if hold.is_none() {
            state::update(&self.state, Event::Done(1), now);
        }
        Packet {
            change: Some(change),
            timer: Some(now.saturating_add(hold.unwrap_or(settings.linger))),
            ..Packet::default()
        }
    }

    /// A flow was answered, at this time.
    fn answered(&self, hash: u32, at: u64) {
        self.segment.store(at);
        self.answered.store(u64::from(hash));
    }

    /// The VM asks somebody else; with `more` there is more of its request behind this packet. On return it
    /// is awake.
    pub fn call(&self, hash: u32, more: bool, settings: &Settings, now: u64) -> Packet {
        if more {
            self.asking.store(u64::from(hash));
        }
        // A sender may push many times in one call, and wait for room in between.
        let hold = if self.asks_by(hash) { MORE_HOLD } else { 0 };
        self.last.store(now.saturating_add(hold));
        let mut overflow = false;
        let change = if more {
            // Whoever still asks does not wait for the answer: not yet in flight, or not any more.
            let calls = self.flows.remove_of(hash, Asker::Vm).calls;
            state::update(&self.state, Event::Answered(calls), now)
        } else if self.flows.refresh(hash, Asker::Vm, true, now) {
            state::update(&self.state, Event::Wake, now)
        } else {
            let called = state::update(&self.state, Event::Call, now);
            overflow = self.flows.insert(hash, Asker::Vm, true, now) != Insert::New;
            if overflow {
                called.then(&state::update(&self.state, Event::Answered(1), now))
            } else {
                called
            }
        };
        if change.after.may_sleep() {
            let waits = change.after.calls() > 0;
            let cause = if waits { Cause::Call } else { Cause::Rest };
            self.cause.store(cause as u64);
        }
        Packet {
            change: Some(change),
            overflow,
            timer: (change.released() || change.woke())
                .then(|| now.saturating_add(settings.linger)),
            ..Packet::default()
        }
    }

    /// Whether a call of several segments is on its way.
    pub fn asks(&self) -> bool {
        self.asking.load() != u64::MAX
    }

    fn asks_by(&self, hash: u32) -> bool {
        self.asking.load() == u64::from(hash)
    }

    /// Nobody asks by this flow any more.
    fn asked(&self, hash: u32) {
        let _ = self.asking.compare_exchange(u64::from(hash), u64::MAX);
    }

    /// Somebody has got a part of what the VM sends. If that is a call of several segments, there is room for more of it: on return
    /// the VM is awake.
    pub fn acknowledged(&self, hash: u32, settings: &Settings, now: u64) -> Packet {
        if !self.asks_by(hash) {
            return Packet::default();
        }
        self.last.store(now.saturating_add(MORE_HOLD));
        let change = state::update(&self.state, Event::Wake, now);
        Packet {
            change: Some(change),
            timer: change.woke().then(|| now.saturating_add(settings.linger)),
            ..Packet::default()
        }
    }

    /// Somebody answers the VM. On return it is awake.
    pub fn answer(&self, hash: u32, settings: &Settings, now: u64) -> Packet {
        self.last.store(now);
        self.asked(hash);
        let ended = self.flows.remove_of(hash, Asker::Vm);
        if ended.none() {
            // The answer goes on.
            return Packet {
                change: Some(state::update(&self.state, Event::Wake, now)),
                timer: Some(now.saturating_add(settings.linger)),
                ..Packet::default()
            };
        }
        self.done(ended, Cause::Response, settings, now)
    }

    /// The flow was closed, in whatever direction.
    pub fn close(&self, hash: u32, settings: &Settings, now: u64) -> Packet {
        self.last.store(now);
        // What its sender had sent before it knew is no answer that goes on.
        let _ = self.answered.compare_exchange(u64::from(hash), u64::MAX);
        self.asked(hash);
        self.done(self.flows.remove(hash), Cause::Close, settings, now)
    }

    fn done(&self, ended: Removed, cause: Cause, settings: &Settings, now: u64) -> Packet {
        if ended.none() {
            return Packet::default();
        }
        let mut change = None;
        if ended.requests > 0 {
            change = Some(state::update(&self.state, Event::Done(ended.requests), now));
        }
        if ended.calls > 0 {
            let next = state::update(&self.state, Event::Answered(ended.calls), now);
            change = Some(change.map_or(next, |first: Change| first.then(&next)));
        }
        let after = change.map(|change| change.after);
        let lands = after.is_some_and(State::may_sleep);
        if lands {
            let waits = after.is_some_and(|state| state.calls() > 0);
            let cause = if waits { Cause::Call } else { cause };
            self.cause.store(cause as u64);
        }
        Packet {
            change,
            ended,
            overflow: false,
            timer: lands.then(|| now.saturating_add(settings.linger)),
        }
    }

    /// There was I/O of some kind.
    pub fn io(&self, now: u64) {
        // Often enough for the shortest time that it is compared with, and no more.
        if now.saturating_sub(self.io.load()) > 250_000 {
            self.io.store(now);
        }
    }

    /// A timer of the guest fired while the VM was sleepy; returns when the timer must fire.
    pub fn guest_timer(&self, settings: &Settings, now: u64) -> Option<u64> {
        let due = now.saturating_add(settings.timer_slack).max(1);
        self.timer.compare_exchange(0, due).ok().map(|()| due)
    }

    /// Something that lets the VM sleep at once.
    pub fn doze(&self, now: u64) -> Change {
        if self.unknown() {
            return state::update(&self.state, Event::Touch, now);
        }
        // Asleep already, it is stirred when it would have been, and its guest's timer is due when it was.
        if !self.state().sleepy() {
            self.slept.store(now);
            self.timer.store(0);
        }
        let slept = state::update(&self.state, Event::Sleep, now);
        if slept.fell_asleep() && self.unknown() {
            // A request on the same flow came in between, and found the VM awake.
            let woke = state::update(&self.state, Event::Wake, now);
            return if woke.woke() {
                slept.then(&woke)
            } else {
                slept
            };
        }
        slept
    }

    /// Whether it waits for an answer itself, and which of several requests waits for that cannot be known, though the
    /// state word counts a single flow.
    fn unknown(&self) -> bool {
        self.state().calls() > 0 && self.flows.several()
    }

    /// Something else than a packet happened.
    pub fn update(&self, event: Event, now: u64) -> Change {
        if matches!(event, Event::Wake | Event::Hold) {
            self.last.store(now);
            self.roused.store(now);
            self.cause.store(Cause::Rest as u64);
        }
        let change = state::update(&self.state, event, now);
        if change.woke() {
            self.io.store(now);
        }
        change
    }
}
