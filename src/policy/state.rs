// SPDX-License-Identifier: GPL-2.0-only

//! The state of a VM in one word, and how events change it.

use super::Word;

/// Unit of the time in a [`State`], as a power of two of nanoseconds.
const TICK_SHIFT: u32 = 8;

const SLEEPY: u64 = 1 << 0;
const HELD: u64 = 1 << 1;
const IN_FLIGHT: Field = Field { shift: 2, bits: 8 };
const CALLS: Field = Field { shift: 10, bits: 7 };
const ON_CPU: Field = Field {
    shift: 17,
    bits: 12,
};
const TIME: Field = Field {
    shift: 29,
    bits: 35,
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
    /// A request to the VM comes into flight.
    Request,
    /// So many requests to the VM are no longer in flight.
    Done(u64),
    /// A request of the VM itself comes into flight: it has just had something to do.
    Call,
    /// So many requests of the VM itself are no longer in flight: it has something to do.
    Answered(u64),
    /// Something else wakes it.
    Wake,
    /// It may sleep; without effect while it has something to do or is held awake.
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
/// A word that is sleepy [may sleep](State::may_sleep).
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

    /// Number of requests to the VM in flight.
    pub fn in_flight(self) -> u64 {
        IN_FLIGHT.get(self.0)
    }

    /// Number of requests of the VM itself in flight.
    pub fn calls(self) -> u64 {
        CALLS.get(self.0)
    }

    /// Whether it has nothing to do: no request in flight, or a single one, for which it waits for somebody
    /// else. Of several requests, which one waits cannot be known.
    pub fn may_sleep(self) -> bool {
        let waits = self.calls() > 0 && self.in_flight() == 1;
        !self.held() && (self.in_flight() == 0 || waits)
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
    /// between changes must be below 2^42 ns, some 73 minutes.
    pub fn apply(self, event: Event, now: u64) -> (Self, u64) {
        let tick = now >> TICK_SHIFT;
        let mut elapsed = tick.wrapping_sub(TIME.get(self.0)) & TIME.max();
        let mut word = self.0;
        if elapsed > TIME.max() / 2 {
            elapsed = 0;
        } else {
            word = TIME.set(word, tick);
        }
        let more = |field: &Field, value: u64| (value + 1).min(field.max());
        // A full counter stays full: that is more flows than the table can hold.
        word = match event {
            Event::Request => IN_FLIGHT.set(word, more(&IN_FLIGHT, self.in_flight())) & !SLEEPY,
            Event::Done(flows) => IN_FLIGHT.set(word, self.in_flight().saturating_sub(flows)),
            Event::Call => CALLS.set(word, more(&CALLS, self.calls())) & !SLEEPY,
            Event::Answered(flows) => CALLS.set(word, self.calls().saturating_sub(flows)) & !SLEEPY,
            Event::Wake => word & !SLEEPY,
            Event::Sleep if self.may_sleep() => word | SLEEPY,
            Event::Hold => (word | HELD) & !SLEEPY,
            Event::RunIn => ON_CPU.set(word, more(&ON_CPU, self.on_cpu())),
            Event::RunOut => ON_CPU.set(word, self.on_cpu().saturating_sub(1)),
            Event::Sleep | Event::Touch => word,
        };
        // INVARIANT: Only `Sleep` sets SLEEPY, after its check; what comes after it and lets the VM sleep no
        // longer, `Request`, `Answered` and `Hold`, clears it.
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
    /// This change and the one right after it as one.
    pub fn then(&self, next: &Self) -> Self {
        Self {
            before: self.before,
            after: next.after,
            elapsed: self.elapsed,
        }
    }

    /// The VM was sleepy and is awake now.
    pub fn woke(&self) -> bool {
        self.before.sleepy() && !self.after.sleepy()
    }

    /// The VM was awake and is sleepy now.
    pub fn fell_asleep(&self) -> bool {
        !self.before.sleepy() && self.after.sleepy()
    }

    /// It may sleep now, and might not before.
    pub fn released(&self) -> bool {
        !self.before.may_sleep() && self.after.may_sleep()
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
