// SPDX-License-Identifier: GPL-2.0-only

//! The state of a VM in one word, and how events change it.

use super::Word;

/// Unit of the time in a [`State`], as a power of two of nanoseconds.
const TICK_SHIFT: u32 = 5;

const SLEEPY: u64 = 1 << 0;
const HELD: u64 = 1 << 1;
const IN_FLIGHT: Field = Field { shift: 2, bits: 9 };
const ON_CPU: Field = Field {
    shift: 11,
    bits: 12,
};
const TIME: Field = Field {
    shift: 23,
    bits: 41,
};

/// A run of bits in the word.
struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    const fn max(&self) -> u64 {
        (1 << self.bits) - 1
    }

    const fn get(&self, word: u64) -> u64 {
        word >> self.shift & self.max()
    }

    const fn set(&self, word: u64, value: u64) -> u64 {
        word & !(self.max() << self.shift) | (value & self.max()) << self.shift
    }
}

/// What a VM is doing, for the accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Awake, with a request in flight.
    InFlight = 0,
    /// Awake, with nothing in flight.
    Idle = 1,
    /// Sleepy.
    Sleepy = 2,
}

/// What happens to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A flow comes into flight.
    Request,
    /// So many flows are no longer in flight.
    Done(u64),
    /// Something else wakes it.
    Wake,
    /// It may sleep; without effect while a flow is in flight or the VM is held awake.
    Sleep,
    /// It is awake from now on, whatever comes.
    Hold,
    /// A vCPU gets a CPU.
    RunIn,
    /// A vCPU leaves its CPU.
    RunOut,
    /// Nothing; brings the accounts up to now.
    Touch,
}

/// State of a VM, packed.
///
/// # Invariants
///
/// A word that is sleepy has nothing in flight and is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(u64);

impl State {
    /// Awake, with nothing in flight and no vCPU on a CPU.
    pub fn new(now: u64) -> Self {
        // INVARIANT: Not sleepy.
        Self(TIME.set(0, now >> TICK_SHIFT))
    }

    /// The word, to be kept in a [`Word`].
    pub fn word(self) -> u64 {
        self.0
    }

    /// The VM's weight is taken away.
    pub fn sleepy(self) -> bool {
        self.0 & SLEEPY != 0
    }

    /// The VM is kept awake for good.
    pub fn held(self) -> bool {
        self.0 & HELD != 0
    }

    /// Number of flows in flight.
    pub fn in_flight(self) -> u64 {
        IN_FLIGHT.get(self.0)
    }

    /// Number of vCPUs on a CPU.
    pub fn on_cpu(self) -> u64 {
        ON_CPU.get(self.0)
    }

    /// What the VM is doing.
    pub fn phase(self) -> Phase {
        if self.sleepy() {
            Phase::Sleepy
        } else if self.in_flight() > 0 {
            Phase::InFlight
        } else {
            Phase::Idle
        }
    }

    /// The state after `event` at the time `now`, and the nanoseconds since the last change.
    ///
    /// A clock that seems to go back (another CPU was faster to read it) counts as standing still. Time
    /// between changes must be below 2^45 ns, some 9 hours.
    pub fn apply(self, event: Event, now: u64) -> (Self, u64) {
        let tick = now >> TICK_SHIFT;
        let mut elapsed = tick.wrapping_sub(TIME.get(self.0)) & TIME.max();
        let mut word = self.0;
        if elapsed > TIME.max() / 2 {
            elapsed = 0;
        } else {
            word = TIME.set(word, tick);
        }
        // INVARIANT: `Request`, `Wake` and `Hold` clear SLEEPY; only `Sleep` sets it, after its check.
        word = match event {
            Event::Request => {
                // A full counter stays full: that is more flows than the table can hold.
                let flows = (self.in_flight() + 1).min(IN_FLIGHT.max());
                IN_FLIGHT.set(word, flows) & !SLEEPY
            }
            Event::Done(flows) => IN_FLIGHT.set(word, self.in_flight().saturating_sub(flows)),
            Event::Wake => word & !SLEEPY,
            Event::Sleep if self.in_flight() == 0 && !self.held() => word | SLEEPY,
            Event::Hold => (word | HELD) & !SLEEPY,
            Event::RunIn => ON_CPU.set(word, (self.on_cpu() + 1).min(ON_CPU.max())),
            Event::RunOut => ON_CPU.set(word, self.on_cpu().saturating_sub(1)),
            Event::Sleep | Event::Touch => word,
        };
        (Self(word), elapsed << TICK_SHIFT)
    }
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub before: State,
    /// The state after.
    pub after: State,
    /// Nanoseconds for which `before` held. Each nanosecond is told to exactly one caller.
    pub elapsed: u64,
}

impl Change {
    /// The VM was sleepy and is awake now.
    pub fn woke(&self) -> bool {
        self.before.sleepy() && !self.after.sleepy()
    }

    /// The VM was awake and is sleepy now.
    pub fn fell_asleep(&self) -> bool {
        !self.before.sleepy() && self.after.sleepy()
    }

    /// The last flow has left the flight.
    pub fn landed(&self) -> bool {
        self.before.in_flight() > 0 && self.after.in_flight() == 0
    }
}

/// The state in `word`.
pub fn load<W: Word>(word: &W) -> State {
    State(word.load())
}

/// Applies `event` to the state in `word`.
pub fn update<W: Word>(word: &W, event: Event, now: u64) -> Change {
    let mut before = load(word);
    loop {
        let (after, elapsed) = before.apply(event, now);
        match word.compare_exchange(before.0, after.0) {
            Ok(()) => {
                return Change {
                    before,
                    after,
                    elapsed,
                };
            }
            Err(seen) => before = State(seen),
        }
    }
}
