// SPDX-License-Identifier: GPL-2.0-only

//! Which flows are in flight.
//!
//! A small set-associative table, keyed by the hash of a flow, the same in both directions. Without a
//! lock: a slot is claimed, changed and freed by compare-and-swap of its key, and every operation looks at
//! one set only. Two flows with the same hash share a slot: an answer to one ends both, and the next request of
//! the other begins anew. A flow that finds its set full goes into the one overflow slot, where only time
//! ends it.
//!
//! # When an answer is over
//!
//! No packet says that it is the last one of an answer. A segment that is full, or that its sender does not
//! push, has more behind it; but a server may push many times in one answer, and one that answers in pieces
//! sends the next one when it has it. So an answer of one segment is over with it; one of several is a *stream*, over when
//! it pauses four times longer than it ever did. Of several requests on one flow, the first answer may not be the
//! last: the others are waited for twice as long as the first one took. Until then the flow stays in the table as
//! *answering*.

use super::Word;

/// Slots of a set.
const WAYS: usize = 8;
/// Number of sets; a power of two.
const SETS: usize = 8;
/// The most flows in flight that are told apart.
pub const CAPACITY: usize = WAYS * SETS;

/// How long an answer, or a call, may pause where more of it must come: TCP's shortest retransmission timeout.
pub const MORE_HOLD: u64 = 200_000_000;
/// How long a stream may pause at least.
pub const MIN_HOLD: u64 = 10_000_000;
/// How long any answer may pause at most.
pub const MAX_HOLD: u64 = 1_000_000_000;

const EMPTY: u64 = 0;
/// Set in the key of a slot in use, so that no hash looks empty.
const USED: u64 = 1 << 32;
/// Set for a request of the VM itself.
const CALL: u64 = 1 << 33;
/// Key of a slot that is being filled.
const CLAIMED: u64 = 1 << 34;
/// A segment of the answer was seen.
const ANSWERING: u64 = 1 << 35;
/// The last one had more behind it.
const MORE: u64 = 1 << 36;
/// The answer has several segments.
const STREAM: u64 = 1 << 37;
/// The bits that say which flow it is.
const ID: u64 = u32::MAX as u64 | USED | CALL;
/// Where the number of requests without an answer begins, and the most that are counted.
const OPEN_SHIFT: u32 = 38;
const OPEN_MAX: u64 = 255;
/// Counts the packets of requests, so that each changes the key: whoever has looked at the flow before, as one that is
/// over, finds another.
const NEXT: u64 = 1 << 48;
const COUNT: u64 = !(NEXT - 1);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Somebody asks the VM.
    Peer,
    /// The VM asks somebody.
    Vm,
}

fn id(hash: u32, asker: Asker) -> u64 {
    let call = if asker == Asker::Vm { CALL } else { 0 };
    u64::from(hash) | USED | call
}

fn open(key: u64) -> u64 {
    key >> OPEN_SHIFT & OPEN_MAX
}

/// How long a stream may pause whose longest pause was this one.
fn stream_hold(pause: u64) -> u64 {
    pause.saturating_mul(4).clamp(MIN_HOLD, MAX_HOLD)
}

struct Slot<W> {
    key: W,
    /// When the flow came into flight; while it is answering, how long the first answer took.
    since: W,
    /// When its last packet was seen.
    seen: W,
    /// The longest pause of a stream so far.
    pause: W,
}

impl<W: Word> Slot<W> {
    fn new() -> Self {
        Self {
            key: W::new(EMPTY),
            since: W::new(0),
            seen: W::new(0),
            pause: W::new(0),
        }
    }

    fn claim(&self, key: u64, pause: u64, now: u64) -> bool {
        if self.key.compare_exchange(EMPTY, CLAIMED).is_err() {
            return false;
        }
        self.since.store(now);
        self.seen.store(now);
        self.pause.store(pause);
        self.key.store(key);
        true
    }

    fn change(&self, key: u64, new: u64) -> bool {
        self.key.compare_exchange(key, new).is_ok()
    }

    /// A segment of the answer to what has this key, with `more` behind it or not; false if another packet of the flow
    /// came in between.
    fn answer(
        &self,
        key: u64,
        more: bool,
        now: u64,
        answered: &mut Answered,
        since: &mut impl FnMut(u64),
    ) -> bool {
        let start = self.since.load();
        let first = key & ANSWERING == 0;
        let left = open(key).saturating_sub(u64::from(!more));
        let stream = if more { STREAM } else { key & STREAM };
        if left == 0 && stream == 0 {
            let ends = self.change(key, EMPTY);
            if ends {
                answered.ended += 1;
                if first {
                    since(start);
                }
            }
            return ends;
        }
        let more = if more { MORE } else { 0 };
        let new = key & (ID | COUNT) | ANSWERING | stream | more | left << OPEN_SHIFT;
        let pause = now.saturating_sub(self.seen.load());
        self.seen.store(now);
        if !self.change(key, new) {
            return false;
        }
        if first {
            self.pause.store(0);
            self.since.store(now.saturating_sub(start));
            since(start);
        } else if pause > self.pause.load() {
            self.pause.store(pause);
        }
        if first || key & MORE != more {
            answered.held = Some(self.hold(new, 0));
        }
        true
    }

    /// How long it may be without a packet.
    fn hold(&self, key: u64, timeout: u64) -> u64 {
        if key & ANSWERING == 0 {
            timeout
        } else if key & MORE != 0 {
            MORE_HOLD
        } else if key & STREAM != 0 {
            stream_hold(self.pause.load())
        } else {
            self.since.load().saturating_mul(2).min(MAX_HOLD)
        }
    }
}

/// What became of a flow that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It has a slot.
    New,
    /// Its set is full; it has the overflow slot.
    Overflow,
    /// Its set is full, and the overflow slot was taken before.
    Full,
}

/// How many flows were taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Requests to the VM.
    pub requests: u64,
    /// Requests of the VM itself.
    pub calls: u64,
}

impl Removed {
    fn add(&mut self, key: u64) {
        if key & CALL != 0 {
            self.calls += 1;
        } else {
            self.requests += 1;
        }
    }

    /// Nothing was.
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a segment of an answer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// How many slots it ended.
    pub ended: u64,
    /// For how long the flow is held, if that begins here.
    pub held: Option<u64>,
}

/// What time did to the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Flows that got no answer in time.
    pub lost: Removed,
    /// Requests whose answer is over.
    pub answered: u64,
    /// The flow of one of them, and the time of its last packet.
    pub last: Option<(u32, u64)>,
    /// When the next flow is due.
    pub due: Option<u64>,
}

/// The flows in flight.
pub struct Flows<W> {
    slots: [Slot<W>; CAPACITY],
    overflow: Slot<W>,
}

impl<W: Word> Flows<W> {
    /// No flow.
    pub fn new() -> Self {
        Self {
            slots: core::array::from_fn(|_| Slot::new()),
            overflow: Slot::new(),
        }
    }

    fn set(&self, hash: u32) -> &[Slot<W>] {
        let first = hash as usize % SETS * WAYS;
        &self.slots[first..first + WAYS]
    }

    /// The slots of a flow (two after two requests at once), and their keys.
    fn of(&self, hash: u32, asker: Asker) -> impl Iterator<Item = (&Slot<W>, u64)> {
        let wanted = id(hash, asker);
        let keys = self.set(hash).iter().map(|slot| (slot, slot.key.load()));
        keys.filter(move |(_, key)| key & ID == wanted)
    }

    /// Notes another packet of a request on a flow that is in flight; false if it is not. `whole` is unset if
    /// the request goes on, or is none yet.
    pub fn refresh(&self, hash: u32, asker: Asker, whole: bool, now: u64) -> bool {
        for (slot, mut key) in self.of(hash, asker) {
            loop {
                if key & ID != id(hash, asker) {
                    break;
                }
                let count = (open(key) + u64::from(whole)).min(OPEN_MAX);
                let next = key.wrapping_add(NEXT);
                let new = next & (ID | STREAM | COUNT) | count << OPEN_SHIFT;
                slot.seen.store(now);
                if slot.change(key, new) {
                    if key & ANSWERING != 0 {
                        slot.since.store(now);
                    }
                    return true;
                }
                key = slot.key.load();
            }
        }
        false
    }

    /// Puts a flow in. Only requests to the VM may have the overflow slot.
    pub fn insert(&self, hash: u32, asker: Asker, whole: bool, now: u64) -> Insert {
        let key = id(hash, asker) | u64::from(whole) << OPEN_SHIFT;
        self.put(hash, key, 0, now)
    }

    fn put(&self, hash: u32, key: u64, pause: u64, now: u64) -> Insert {
        if self
            .set(hash)
            .iter()
            .any(|slot| slot.claim(key, pause, now))
        {
            Insert::New
        } else if key & CALL != 0 {
            Insert::Full
        } else {
            self.overflow(now)
        }
    }

    fn overflow(&self, now: u64) -> Insert {
        let slot = &self.overflow;
        loop {
            if slot.claim(USED, 0, now) {
                return Insert::Overflow;
            }
            let key = slot.key.load();
            if key == CLAIMED {
                // By somebody else, just now.
                return Insert::Full;
            }
            slot.seen.store(now);
            if key & USED != 0 && slot.change(key, key.wrapping_add(NEXT)) {
                return Insert::Full;
            }
        }
    }

    /// A segment of an answer to a peer; with `more` there is more behind it. None if the flow is not in
    /// flight. Hands out since when it was, with its first answer.
    pub fn answer(
        &self,
        hash: u32,
        more: bool,
        now: u64,
        mut since: impl FnMut(u64),
    ) -> Option<Answered> {
        let mut answered = None;
        for (slot, mut key) in self.of(hash, Asker::Peer) {
            let answered = answered.get_or_insert_default();
            while key & ID == id(hash, Asker::Peer)
                && !slot.answer(key, more, now, answered, &mut since)
            {
                key = slot.key.load();
            }
        }
        answered
    }

    /// Puts a flow in whose answer goes on after a pause, though it seemed to be over; returns how long it is held,
    /// unless there is no room.
    pub fn stream(&self, hash: u32, pause: u64, now: u64) -> Option<u64> {
        let key = id(hash, Asker::Peer) | ANSWERING | STREAM;
        let put = self.put(hash, key, pause, now) != Insert::Full;
        put.then(|| stream_hold(pause))
    }

    /// Whether there is a flow with several requests; what is in the overflow slot may be.
    pub fn several(&self) -> bool {
        let mut keys = self.slots.iter().map(|slot| slot.key.load());
        keys.any(|key| key & (USED | CALL) == USED && open(key) > 1)
            || self.overflow.key.load() != EMPTY
    }

    /// Takes a flow out, whoever asks; returns what it had.
    pub fn remove(&self, hash: u32) -> Removed {
        let mut removed = self.remove_of(hash, Asker::Peer);
        removed.calls = self.remove_of(hash, Asker::Vm).calls;
        removed
    }

    /// Takes a flow out; returns what it had.
    pub fn remove_of(&self, hash: u32, asker: Asker) -> Removed {
        let mut removed = Removed::default();
        for (slot, mut key) in self.of(hash, asker) {
            while key & ID == id(hash, asker) {
                if slot.change(key, EMPTY) {
                    removed.add(key);
                    break;
                }
                key = slot.key.load();
            }
        }
        removed
    }

    /// Takes out every flow whose time is over.
    pub fn expire(&self, now: u64, timeout: u64) -> Expired {
        let mut expired = Expired::default();
        for slot in self.slots.iter().chain([&self.overflow]) {
            let key = slot.key.load();
            if key & USED == 0 {
                continue;
            }
            let seen = slot.seen.load();
            let due = seen.saturating_add(slot.hold(key, timeout));
            if due > now {
                expired.due = Some(expired.due.map_or(due, |next| next.min(due)));
            } else if !slot.change(key, EMPTY) {
                // It has changed just now.
                expired.due = Some(now);
            } else if key & ANSWERING != 0 {
                expired.answered += 1;
                expired.last = Some((key as u32, seen));
            } else {
                expired.lost.add(key);
            }
        }
        expired
    }
}

impl<W: Word> Default for Flows<W> {
    fn default() -> Self {
        Self::new()
    }
}
