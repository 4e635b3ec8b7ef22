// SPDX-License-Identifier: GPL-2.0-only

//! When a VM sleeps and when it is awake.
//!
//! Pure code: no kernel types, no clock, no allocation, no lock. The module and the host's tests compile
//! these very files; what differs is only the atomic word behind [`Word`].
//!
//! Events come from softirq, from inside the scheduler and from process context at once, so that no lock
//! would fit them all. Whatever decides is therefore in one word, [`State`], changed by compare-and-swap
//! in [`state::update`]; the flow table beside it says only *which* flows the word counts.
//!
//! All times are nanoseconds of a monotonic clock that the caller reads.

pub mod boost;
pub mod flows;
pub mod histogram;
pub mod idle;
pub mod machine;
pub mod sent;
pub mod state;

/// A 64-bit atomic.
pub trait Word {
    /// A word with this value.
    fn new(value: u64) -> Self;
    /// Reads it; nothing that follows comes earlier.
    fn load(&self) -> u64;
    /// Writes it; nothing that went before comes later.
    fn store(&self, value: u64);
    /// Writes `new` if it is `old`, fully ordered; otherwise tells what it is.
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64>;
}
