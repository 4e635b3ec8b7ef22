// SPDX-License-Identifier: GPL-2.0-only

//! How many vCPUs have halted, and since when.

use super::Word;

/// Bits of the count; the rest of the word is the time.
const COUNT_BITS: u32 = 13;
/// Unit of the time, as a power of two of nanoseconds.
const TICK_SHIFT: u32 = 10;

/// Halted vCPUs: their number and the time of its last change, in one word.
pub struct Idle<W>(W);

impl<W: Word> Idle<W> {
    /// None has.
    pub fn new(now: u64) -> Self {
        Self(W::new(pack(0, now)))
    }

    /// A vCPU has halted.
    pub fn halt(&self, now: u64) {
        self.update(now, |count| count + 1);
    }

    /// A halted vCPU runs again.
    pub fn run(&self, now: u64) {
        self.update(now, |count| count.saturating_sub(1));
    }

    fn update(&self, now: u64, f: impl Fn(u64) -> u64) {
        let mut old = self.0.load();
        while let Err(seen) = self.0.compare_exchange(old, pack(f(count(old)), now)) {
            old = seen;
        }
    }

    /// Since when all of `vcpus` vCPUs are halted, if they are.
    pub fn since(&self, vcpus: u64) -> Option<u64> {
        let word = self.0.load();
        let all = vcpus > 0 && count(word) >= vcpus;
        all.then_some(word >> COUNT_BITS << TICK_SHIFT)
    }
}

fn pack(count: u64, now: u64) -> u64 {
    now >> TICK_SHIFT << COUNT_BITS | count & ((1 << COUNT_BITS) - 1)
}

fn count(word: u64) -> u64 {
    word & ((1 << COUNT_BITS) - 1)
}
