# SPDX-License-Identifier: GPL-2.0-only
"""What a vCPU thread's switches and a guest's exits cost."""

import os
from pathlib import Path

from lib import abi, host

from guests import BODIES, HALT, Crashed, Guest, repeat
from record import interleaved

AWAKE = {"linger": abi.MAX_TIME, "max_sleep": abi.MAX_TIME, "request_timeout": abi.MAX_TIME}
SLEEPY = {**AWAKE, "linger": 1}
# Of each event, what it needs of the policy, and an exit or interrupt that it looks at.
EVENTS = {
    "hint": ("hypercall", {"wake_on": abi.wake_on("request", "hint")}),
    "spin": ("port", {"sleep_on": abi.sleep_on("response", "spin"), "spin": abi.MAX_TIME}),
    "ipi": ("ipi", {"wake_on": abi.wake_on("request", "ipi")}),
    "timer": ("timer", {"wake_on": abi.wake_on("request", "timer")}),
    "interrupt": ("interrupt", {"wake_on": abi.wake_on("request", "interrupt")}),
}


def switches(tid):
    """How often this thread has given up its CPU."""
    status = Path(f"/proc/self/task/{tid}/status").read_text(encoding="ascii")
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def measure_switches(results, device, count, repetitions):
    """A guest that halts, and is interrupted as soon as it has, by a thread on the same CPU.

    That thread is of SCHED_IDLE, so that the vCPU's has the CPU at once: one switch to it and one back for each interrupt.
    """
    none, watched = Guest(HALT), Guest(HALT)
    tids = {guest: guest.start() for guest in (none, watched)}
    watched.register(device, "switches", abi.policy(**AWAKE))
    watched.attach(device)

    def run(guest, policy=None):
        if policy:
            device.set(watched.id, policy)
            want = abi.SLEEPY if policy.linger == 1 else abi.AWAKE
            host.wait(lambda: device.get(watched.id).state == want, "the state that is measured")
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        before = switches(tids[guest])
        took = guest.interrupt(count)
        switched = switches(tids[guest]) - before
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if abs(switched - count) > count // 50:
            raise Crashed(f"{switched} switches by {count} interrupts")
        return took / switched

    idle = abi.policy(**AWAKE).but(sleep_on=abi.sleep_on("idle"))
    cases = {"none": lambda: run(none), "awake": lambda: run(watched, abi.policy(**AWAKE)),
             "sleepy": lambda: run(watched, abi.policy(**SLEEPY)), "awake, idle": lambda: run(watched, idle)}
    try:
        values = interleaved(cases, repetitions)
    finally:
        device.clear()
    results.beside("switch", "none", {}, values, {case: (case, {}) for case in cases if case != "none"})


def measure_exits(results, device, count, repetitions):
    """Two guests that do the same: one registered, one not.

    Of each kind of exit or interrupt, `none` is a VM that is not registered, while nobody wants the event; `default` is one
    that is registered and does not want it either, `other` one that is not registered, while another one wants it.
    """
    plain = abi.policy(**AWAKE).but(lever=abi.OBSERVE)
    for event, (kind, changes) in EVENTS.items():
        none, watched = (Guest(repeat(BODIES.get(kind, HALT), count)) for _ in range(2))

        def run(guest, policy, kind=kind, watched=watched):
            device.set(watched.id, policy)
            took = guest.interrupt(count) if kind == "interrupt" else guest.enter()
            return took / count

        if kind != "interrupt":
            none.enter()
            watched.enter()
        watched.register(device, "exits", plain)
        wants = plain.but(**changes)
        cases = {"none": lambda: run(none, plain), "default": lambda: run(watched, plain),
                 event: lambda: run(watched, wants), "other": lambda: run(none, wants)}
        try:
            values = interleaved(cases, repetitions)
        finally:
            device.clear()
        named = {f"{case}: {kind}": found for case, found in values.items()}
        base, *others = named
        results.beside("exit", base, {}, named, {case: (case, {}) for case in others})
