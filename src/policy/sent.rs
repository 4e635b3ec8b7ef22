// SPDX-License-Identifier: GPL-2.0-only

//! What the VM has sent by TCP, and whether it sends it again.
//!
//! A guest that had no CPU, as one that sleeps has not, finds its timers run out before it looks at what has come meanwhile: it
//! sends again what was acknowledged long ago. Such a segment is no answer to the request that came behind that acknowledgement, and
//! no call that waits for an answer. Its sequence numbers tell.
//!
//! One word for each of a few flows; a flow that is pushed out by another is believed, as one that is not TCP.

use super::Word;

/// Number of words; a power of two.
const FLOWS: usize = 64;
/// So far back may be what is sent again, in bytes: more than a sender has on its way. What is further back is of a new
/// connection between the same ports.
const WINDOW: u32 = 1 << 23;

/// A word of no flow.
const NONE: u64 = u64::MAX;

/// Up to where the VM has sent, by flow.
pub struct Sent<W>([W; FLOWS]);

impl<W: Word> Sent<W> {
    /// Nothing.
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| W::new(NONE)))
    }

    fn of(&self, hash: u32) -> &W {
        &self.0[hash as usize % FLOWS]
    }

    /// The VM sends a segment of this flow, up to the sequence number `end`; false if it has sent all of that before, or the segment
    /// has no data.
    pub fn advance(&self, hash: u32, end: u32) -> bool {
        let word = self.of(hash);
        let seen = word.load();
        let behind = (seen as u32).wrapping_sub(end);
        if seen != NONE && seen >> 32 == u64::from(hash) && behind < WINDOW {
            return false;
        }
        word.store(u64::from(hash) << 32 | u64::from(end));
        true
    }

    /// The flow is closed: what comes next with its hash is another one.
    pub fn forget(&self, hash: u32) {
        let word = self.of(hash);
        let seen = word.load();
        if seen >> 32 == u64::from(hash) {
            let _ = word.compare_exchange(seen, NONE);
        }
    }
}

impl<W: Word> Default for Sent<W> {
    fn default() -> Self {
        Self::new()
    }
}
