// SPDX-License-Identifier: GPL-2.0-only

//! Every order in which a few things can happen to a VM, its timer among them, up to a depth.
//!
//! The states are those of the module's own code: all its words, as they are after each step.

use std::{
    cell::Cell,
    fmt,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

use sleepy_policy::{
    Word,
    machine::{Cause, Machine, Settings, Threads},
    state::{Change, Event},
};
use sleepy_policy_tests::{TIMES, on};
use stateright::{Checker, Model, Property};

/// A word that can be set from outside.
struct Shared(Rc<Cell<u64>>);

thread_local! {
    static WORDS: Cell<Vec<Rc<Cell<u64>>>> = const { Cell::new(Vec::new()) };
    static BENCH: Bench = Bench::new();
}

impl Word for Shared {
    fn new(value: u64) -> Self {
        let word = Rc::new(Cell::new(value));
        let mut words = WORDS.take();
        words.push(word.clone());
        WORDS.set(words);
        Self(word)
    }

    fn load(&self) -> u64 {
        self.0.get()
    }

    fn store(&self, value: u64) {
        self.0.set(value);
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        let seen = self.0.get();
        if seen == old {
            self.0.set(new);
            Ok(())
        } else {
            Err(seen)
        }
    }
}

/// As long after its boot as hosts are; a multiple of all units of time.
const START: u64 = 1 << 40;

/// A machine that is brought to a state, does something there, and tells the state that it is in then.
struct Bench {
    machine: Machine<Shared>,
    words: Vec<Rc<Cell<u64>>>,
    initial: Vec<u64>,
}

/// The words that are not as in the beginning.
type Snapshot = Vec<(u16, u64)>;

impl Bench {
    fn new() -> Self {
        WORDS.take();
        let machine = Machine::new(START);
        let words = WORDS.take();
        let initial = words.iter().map(|word| word.get()).collect();
        Self {
            machine,
            words,
            initial,
        }
    }

    fn does<R>(&self, from: &Snapshot, what: impl FnOnce(&Machine<Shared>) -> R) -> (Snapshot, R) {
        for (word, value) in self.words.iter().zip(&self.initial) {
            word.set(*value);
        }
        for (index, value) in from {
            self.words[usize::from(*index)].set(*value);
        }
        let result = what(&self.machine);
        let words = self.words.iter().map(|word| word.get());
        let changed = (0..).zip(words.zip(&self.initial));
        let changed = changed.filter(|(_, (now, before))| now != *before);
        let snapshot = changed.map(|(index, (now, _))| (index, now)).collect();
        (snapshot, result)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Request(u32),
    Part(u32),
    Response(u32),
    Segment(u32),
    Call,
    /// A segment of a call, with more behind it.
    Calling,
    Acknowledge,
    Answer,
    Close(u32),
    Wake,
    Doze,
    Halt,
    Unhalt,
    /// The timer fires when it is due,
    Elapse,
    /// half of that time passes.
    Half,
    /// The timer fires too early.
    Early,
}

/// Two flows of one set, and the one of a call.
const FLOWS: [u32; 2] = [1, 9];
const CALLED: u32 = 17;

/// A VM, and what somebody who has seen all packets knows of it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Vm {
    words: Snapshot,
    now: u64,
    timer: u64,
    sleepy: bool,
    in_flight: u64,
    calls: u64,
    /// Since when each flow has a request without any answer.
    open: [Option<u64>; 2],
    asleep_since: Option<u64>,
    /// What a packet or the guest asked for has not been done.
    ignored: bool,
    /// The last event has changed the state, and has not said so; or the other way round.
    untold: bool,
    halted: bool,
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (now, timer) = (self.now - START, self.timer - START);
        let state = if self.sleepy { "sleepy" } else { "awake" };
        let (flights, calls) = (self.in_flight, self.calls);
        write!(
            f,
            "{now} ns, timer {timer}: {state}, {flights} in flight, {calls} calls"
        )
    }
}

struct Exploration {
    settings: Settings,
    ops: Vec<Op>,
    checked: AtomicU64,
}

impl Exploration {
    fn new(causes: &[Cause], more: &[Op]) -> Self {
        let [f, g] = FLOWS;
        let mut ops = vec![
            Op::Request(f),
            Op::Request(g),
            Op::Response(f),
            Op::Response(g),
            Op::Call,
            Op::Answer,
            Op::Elapse,
        ];
        ops.extend(more);
        let settings = Settings {
            // Of the order of what the flows' own times are, so that each may come before the other.
            linger: 1 << 21,
            request_timeout: 1 << 29,
            max_sleep: 1 << 25,
            sleep_on: on(causes),
            ..TIMES
        };
        Self {
            settings,
            ops,
            checked: AtomicU64::new(0),
        }
    }

    /// Has the properties checked after every order of so many events.
    fn explore(self, events: usize) {
        // The beginning is at depth 1, and what is as deep as the target is not checked any more.
        let checker = self
            .checker()
            .threads(2)
            .target_max_depth(events + 2)
            .spawn_bfs()
            .join();
        let checked = checker.model().checked.load(Ordering::Relaxed);
        println!("{checked} states checked, after up to {events} events");
        assert!(checked > 1_000_000, "{checked} states");
        checker.assert_properties();
    }
}

impl Model for Exploration {
    type State = Vm;
    type Action = Op;

    fn init_states(&self) -> Vec<Vm> {
        vec![Vm {
            words: Vec::new(),
            now: START,
            timer: START + self.settings.linger,
            sleepy: false,
            in_flight: 0,
            calls: 0,
            open: [None; 2],
            asleep_since: None,
            ignored: false,
            untold: false,
            halted: false,
        }]
    }

    fn actions(&self, vm: &Vm, actions: &mut Vec<Op>) {
        let possible = |op: &&Op| match op {
            Op::Halt => !vm.halted,
            Op::Unhalt => vm.halted,
            _ => true,
        };
        actions.extend(self.ops.iter().filter(possible));
    }

    fn next_state(&self, from: &Vm, op: Op) -> Option<Vm> {
        let mut vm = from.clone();
        match op {
            Op::Elapse => vm.now = vm.now.max(vm.timer),
            Op::Half => vm.now += vm.timer.saturating_sub(vm.now) / 2,
            _ => {}
        }
        let (now, settings) = (vm.now, &self.settings);
        let told = Cell::new(from.sleepy);
        let tell = |change: Option<Change>| match change {
            Some(change) if change.woke() => told.set(false),
            Some(change) if change.fell_asleep() => told.set(true),
            _ => {}
        };
        let (words, (timer, state)) = BENCH.with(|bench| {
            bench.does(&from.words, |machine| {
                let packet = |packet: sleepy_policy::machine::Packet| {
                    tell(packet.change);
                    packet.timer
                };
                let timer = match op {
                    Op::Request(flow) => packet(machine.request(flow, true, settings, now)),
                    Op::Part(flow) => packet(machine.request(flow, false, settings, now)),
                    Op::Response(flow) => {
                        packet(machine.response(flow, false, settings, now, |_| ()))
                    }
                    Op::Segment(flow) => {
                        packet(machine.response(flow, true, settings, now, |_| ()))
                    }
                    Op::Call => packet(machine.call(CALLED, false, settings, now)),
                    Op::Calling => packet(machine.call(CALLED, true, settings, now)),
                    Op::Acknowledge => packet(machine.acknowledged(CALLED, settings, now)),
                    Op::Answer => packet(machine.answer(CALLED, settings, now)),
                    Op::Close(flow) => packet(machine.close(flow, settings, now)),
                    Op::Wake => {
                        let change = machine.update(Event::Wake, now);
                        tell(Some(change));
                        change.woke().then_some(now + settings.linger)
                    }
                    Op::Doze => {
                        let change = machine.doze(now);
                        tell(Some(change));
                        change.fell_asleep().then_some(now + settings.max_sleep)
                    }
                    Op::Halt => {
                        machine.idle.halt(now);
                        None
                    }
                    Op::Unhalt => {
                        machine.idle.run(now);
                        None
                    }
                    Op::Elapse | Op::Early => {
                        let threads = Threads { vcpus: 1, oncpu: 0 };
                        let tick = machine.tick(settings, &threads, now);
                        tick.changes.into_iter().for_each(tell);
                        vm.timer = tick.next;
                        None
                    }
                    Op::Half => None,
                };
                (timer, machine.state())
            })
        });
        vm.words = words;
        vm.timer = timer.unwrap_or(u64::MAX).min(vm.timer);
        vm.sleepy = state.sleepy();
        vm.untold = told.get() != vm.sleepy;
        vm.in_flight = state.in_flight();
        vm.calls = state.calls();
        vm.asleep_since = if vm.sleepy {
            vm.asleep_since.or(Some(now))
        } else {
            None
        };
        match op {
            Op::Halt => vm.halted = true,
            Op::Unhalt => vm.halted = false,
            _ => {}
        }
        let place = |flow: u32| FLOWS.iter().position(|known| *known == flow);
        match op {
            Op::Request(flow) | Op::Part(flow) => vm.open[place(flow)?] = Some(now),
            Op::Response(flow) | Op::Segment(flow) | Op::Close(flow) => {
                vm.open[place(flow)?] = None
            }
            _ => {}
        }
        for open in &mut vm.open {
            *open = open.filter(|since| now - since < settings.request_timeout);
        }
        let wakes = matches!(
            op,
            Op::Request(_) | Op::Part(_) | Op::Call | Op::Calling | Op::Answer | Op::Wake
        );
        vm.ignored = wakes && vm.sleepy;
        Some(vm)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "never sleepy with a request in flight, but for one that waits itself",
                |model: &Self, vm: &Vm| {
                    model.checked.fetch_add(1, Ordering::Relaxed);
                    !vm.sleepy || vm.in_flight == 0 || (vm.in_flight == 1 && vm.calls > 0)
                },
            ),
            Property::always("what is not answered is in flight", |_, vm: &Vm| {
                vm.open.iter().flatten().count() as u64 <= vm.in_flight
            }),
            Property::always(
                "who asks a VM, or answers it, finds it awake",
                |_, vm: &Vm| !vm.ignored,
            ),
            Property::always(
                "a sleep is over, or looked at, after max_sleep",
                |model: &Self, vm: &Vm| {
                    vm.asleep_since
                        .is_none_or(|since| vm.timer <= since + model.settings.max_sleep)
                },
            ),
            Property::always(
                "who changes the state is told so, to have the threads follow",
                |_, vm: &Vm| !vm.untold,
            ),
            Property::always("its timer is never lost", |model: &Self, vm: &Vm| {
                let longest = model.settings.max_sleep.max(model.settings.request_timeout);
                vm.timer <= vm.now + longest
            }),
            Property::sometimes("it sleeps", |_, vm: &Vm| vm.sleepy),
            Property::sometimes(
                "it sleeps with a request in flight, waiting itself",
                |_, vm: &Vm| vm.sleepy && vm.in_flight > 0,
            ),
        ]
    }
}

/// Requests, answers and calls, and all that time does.
#[test]
fn flows() {
    let [f, g] = FLOWS;
    Exploration::new(
        &[Cause::Response],
        &[
            Op::Segment(f),
            Op::Part(f),
            Op::Close(f),
            Op::Close(g),
            Op::Half,
        ],
    )
    .explore(8);
}

/// Calls of several segments.
#[test]
fn calls() {
    Exploration::new(
        &[Cause::Response],
        &[Op::Calling, Op::Acknowledge, Op::Half],
    )
    .explore(8);
}

/// What is no packet, beside one flow and a call.
#[test]
fn events() {
    let causes = [Cause::Response, Cause::Idle, Cause::Hint];
    Exploration::new(
        &causes,
        &[
            Op::Wake,
            Op::Doze,
            Op::Halt,
            Op::Unhalt,
            Op::Early,
            Op::Half,
        ],
    )
    .explore(8);
}
