// SPDX-License-Identifier: GPL-2.0-only

//! Which flows are in flight.
//!
//! A small set-associative table, keyed by the hash of a flow, the same in both directions. Without a
//! lock: a slot is claimed and freed by compare-and-swap, and every operation looks at one set only. Two
//! flows with the same hash share a slot: an answer to one ends both, and the next request of the other
//! begins anew. A flow that finds its set full goes into the one overflow slot, where only time ends it.

use super::Word;

/// Slots of a set.
const WAYS: usize = 8;
/// Number of sets; a power of two.
const SETS: usize = 8;
/// The most flows in flight that are told apart.
pub const CAPACITY: usize = WAYS * SETS;

const EMPTY: u64 = 0;
/// Set in the key of a slot in use, so that no hash looks empty.
const USED: u64 = 1 << 32;
/// Key of a slot that is being filled.
const CLAIMED: u64 = 1 << 33;

struct Slot<W> {
    key: W,
    /// When the flow came into flight.
    since: W,
    /// When its last request was seen.
    seen: W,
}

impl<W: Word> Slot<W> {
    fn new() -> Self {
        Self {
            key: W::new(EMPTY),
            since: W::new(0),
            seen: W::new(0),
        }
    }

    fn claim(&self, key: u64, now: u64) -> bool {
        if self.key.compare_exchange(EMPTY, CLAIMED).is_err() {
            return false;
        }
        self.since.store(now);
        self.seen.store(now);
        self.key.store(key);
        true
    }

    /// Frees the slot if it still has this key; tells since when the flow was in flight.
    fn free(&self, key: u64) -> Option<u64> {
        let since = self.since.load();
        self.key.compare_exchange(key, EMPTY).ok()?;
        Some(since)
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

    /// Notes another request of a flow that is in flight; false if it is not.
    pub fn refresh(&self, hash: u32, now: u64) -> bool {
        let key = u64::from(hash) | USED;
        match self.set(hash).iter().find(|slot| slot.key.load() == key) {
            Some(slot) => {
                slot.seen.store(now);
                true
            }
            None => false,
        }
    }

    /// Puts a flow in.
    pub fn insert(&self, hash: u32, now: u64) -> Insert {
        let key = u64::from(hash) | USED;
        if self.set(hash).iter().any(|slot| slot.claim(key, now)) {
            Insert::New
        } else if self.overflow.claim(USED, now) {
            Insert::Overflow
        } else {
            self.overflow.seen.store(now);
            Insert::Full
        }
    }

    /// Takes a flow out; returns how many slots it had (two after two requests at once), and hands out
    /// since when each was in flight.
    pub fn remove(&self, hash: u32, mut since: impl FnMut(u64)) -> u64 {
        let key = u64::from(hash) | USED;
        let mut removed = 0;
        for slot in self.set(hash).iter().filter(|s| s.key.load() == key) {
            if let Some(start) = slot.free(key) {
                since(start);
                removed += 1;
            }
        }
        removed
    }

    /// Takes out every flow whose last request is `timeout` or more ago; returns how many, and when the
    /// next one is due.
    pub fn expire(&self, now: u64, timeout: u64) -> (u64, Option<u64>) {
        let mut removed = 0;
        let mut next: Option<u64> = None;
        for slot in self.slots.iter().chain([&self.overflow]) {
            let key = slot.key.load();
            if key & USED == 0 {
                continue;
            }
            let due = slot.seen.load().saturating_add(timeout);
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if slot.free(key).is_some() {
                removed += 1;
            }
        }
        (removed, next)
    }
}

impl<W: Word> Default for Flows<W> {
    fn default() -> Self {
        Self::new()
    }
}
