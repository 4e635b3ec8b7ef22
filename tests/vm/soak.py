#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Random operations on a host with VMs (lib/churn.py), in rounds; after each, all must be as it was before.

Which operations there are, and what each does, follows from the seed; when the kernel does what does not. Run it by
scripts/soak; SLEEPY_KO, SLEEPY_FLAVOUR and SLEEPYCTL are those of tests/vm/run.
"""

import argparse
import random
import sys
import time
import traceback
from collections import Counter, deque
from pathlib import Path

from lib import abi, churn, host, journal, kvm

ROUND = 50
LAST = 12
# Who keeps what it was first asked for on the module's behalf: kprobes a page for the next ones, the slab allocator its
# per-CPU arrays of free objects ("sheaves").
KEPT = "__get_insn_slot", "__pcs_replace_empty_main", "__pcs_replace_full_main"
KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
TRACES = Path("/sys/kernel/debug/slab")

# What is looked for, in the order of the table.
LOOKS = {
    "log": "report in the kernel's log", "calls": "call with another end", "states": "state that cannot be",
    "tool": "sleepyctl failed", "left": "VM or link left", "threads": "thread not as before",
    "groups": "group not as before", "references": "reference to sleepy, KVM", "probes": "probe left",
    "objects": "object in the slabs left", "leaks": "kmemleak",
}


def objects():
    """The kernel's objects that came by way of the module: {stack trace: how many}. For this the kernel has to be
    booted with slab_debug=U, see scripts/soak."""
    found = Counter()
    for file in TRACES.glob("*/alloc_traces"):
        for trace in file.read_text().split("\n\n"):
            if "[sleepy]" in trace and not any(keeper in trace for keeper in KEPT):
                count, _, rest = trace.strip().partition(" ")
                found["\n".join(rest.splitlines()[1:])] += int(count)
    return found


def first_vm():
    """One comes and goes: the module keeps the room in which it notes who goes."""
    vmm = kvm.Vmm()
    vmm.machine("halt")
    with abi.Device() as device:
        device.add("first", vmm.pid)
        device.clear()
    vmm.stop()


class Soak:
    """One run; `journal_file` outlives the test host."""

    def __init__(self, seed, journal_file=None):
        self.seed, self.journal = seed, journal_file
        self.random = random.Random(seed)
        self.looks, self.done, self.found = Counter(), Counter(), None
        self.number, self.last = 0, deque(maxlen=LAST)
        self.log = host.Log()

    def round(self, until=None):
        """One round; ends early when the time is over."""
        if not host.loaded():
            host.load()
        first_vm()
        before = objects()
        stage = churn.Churn(self.looks)
        try:
            for _ in range(ROUND):
                if until and time.monotonic() > until:
                    break
                self.step(stage)
            self.begin("end of the round")
            stage.end()
        except Exception as error:  # whatever it is, it is a finding
            self.note(error)
            try:
                stage.close()
            except Exception:  # what comes after a finding may be its consequence
                traceback.print_exc()
            return
        try:
            self.look_back(before)
        except Exception as error:
            self.note(error)

    def note(self, error):
        """What was found."""
        if isinstance(error, churn.Found):
            self.found = error.what, str(error)
        else:
            self.found = "calls", traceback.format_exc()

    def skip(self):
        """A round that is not done: what comes after it is the same."""
        for _ in range(ROUND):
            self.random.getrandbits(64)
        self.number += ROUND

    def begin(self, what):
        self.last.append(what)
        if self.journal:
            journal.begin(self.journal, what)

    def step(self, stage):
        self.number += 1
        name, machine, do = stage.operation(self.random.getrandbits(64))
        self.begin(f"{self.number} {name} {machine}".rstrip())
        self.done[name] += do() is not False
        self.look_at_log()

    def look_at_log(self):
        self.looks["log"] += 1
        found = host.reports(self.log.read())
        if found:
            raise churn.Found("log", "\n".join(found))

    def look_back(self, before):
        """All VMs are removed: nothing of the module is left, in it and in KVM."""
        soon = self.soon
        self.look_at_log()
        with abi.Device() as device:
            soon("left", lambda: not device.vms(), "no VM is left")
        soon("references", lambda: host.refcount() == 0, "nobody refers to sleepy")
        soon("references", lambda: host.refcount(host.kvm_vendor()) <= 0, "nobody refers to KVM")
        soon("probes", lambda: "kvm" not in Path("/sys/kernel/debug/kprobes/list").read_text(), "no kprobe is left")
        if TRACES.exists() and any(TRACES.iterdir()):
            soon("objects", lambda: not objects() - before, "no object is left",
                 lambda: "\n".join(f"{count} from\n{trace}" for trace, count in (objects() - before).items()))
        host.unload(seconds=churn.PATIENCE)
        host.unload_kvm(churn.PATIENCE)
        host.load_kvm()
        if KMEMLEAK.exists():
            for _ in range(2):  # an object must be found unreferenced twice
                KMEMLEAK.write_text("scan")
            self.looks["leaks"] += 1
            if leaks := KMEMLEAK.read_text():
                raise churn.Found("leaks", leaks[:8000])
        self.look_at_log()

    def soon(self, what, condition, text, more=lambda: ""):
        try:
            host.wait(condition, text, churn.PATIENCE, step=0.05)
        except AssertionError as error:
            raise churn.Found(what, f"{error}\n{more()}".rstrip()) from None
        self.looks[what] += 1

    def table(self):
        """Its lines: what was done, beside what was looked for."""
        done = [f"{label:27} {self.done[name]:6}" for name, (_, label) in churn.OPERATIONS.items()]
        looked = [f"{label:26} {self.looks[what] or '-':>7} {int(bool(self.found) and self.found[0] == what):5}"
                  for what, label in LOOKS.items()]
        yield f"{'done':27} {'times':>6}   {'looked for':26} {'looks':>7} {'found':>5}"
        for at, left in enumerate(done):
            yield f"{left}   {looked[at] if at < len(looked) else ''}".rstrip()

    def verdict(self, first):
        """What was found, and how to see it again."""
        if self.found:
            yield f"found: {LOOKS[self.found[0]]}, in operation {self.last[-1]}"
            yield from ("  " + line for line in self.found[1].splitlines())
            yield "the last operations:"
            yield from ("  " + line for line in self.last)
        else:
            yield "nothing was found"
        yield f"again: make soak FLAVOUR={host.FLAVOUR} SEED={self.seed} ROUND={first}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True, help="for so long, and to the end of a round")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--round", type=int, default=1, help="the first round to do, of those that the seed makes")
    parser.add_argument("--journal", help="note each operation there when it begins")
    given = parser.parse_args()
    host.panic_on_warn()
    soak, began, rounds = Soak(given.seed, given.journal), time.monotonic(), given.round - 1
    print(f"soak: kernel {host.FLAVOUR}, seed {given.seed}", flush=True)
    for _ in range(rounds):
        soak.skip()
    while not soak.found and time.monotonic() - began < given.seconds:
        rounds += 1
        soak.round(began + given.seconds)
        print(f"round {rounds}: up to operation {soak.number}, {time.monotonic() - began:.0f} s", flush=True)
    print("", *soak.table(), "", *soak.verdict(given.round if not soak.found else rounds), sep="\n")
    sys.exit(int(bool(soak.found)))


if __name__ == "__main__":
    main()
