# SPDX-License-Identifier: GPL-2.0-only
"""How soon a VM that is woken has its CPU, where others spin on it: the trigger times by lever, as a table.

So many VMs, of which the requests go to one after the other, at random times; how many of them, and how often:
SLEEPY_TRIGGERS="VMS[,VMS]... ROUNDS".
"""

import os
import random
import time

import pytest

from lib import abi, host, sched

SIZES, ROUNDS = os.environ.get("SLEEPY_TRIGGERS", "4 50").split()
SLICE = abi.MS // 10
# What is compared: the lever, and what else is special.
CASES = {
    "observe": (abi.OBSERVE, {}),
    "nice": (abi.NICE, {}),
    "idle": (abi.IDLE, {}),
    "park": (abi.PARK, {}),
    "nice, boost -20": (abi.NICE, {"flags": abi.BOOST, "boost_nice": -20}),
    "observe, slices of 0.1 ms": (abi.OBSERVE, {"slice": SLICE}),
    "nice, slices of 0.1 ms": (abi.NICE, {"slice": SLICE}),
    "idle, slices of 0.1 ms": (abi.IDLE, {"slice": SLICE}),
}


def lower(bucket):
    """Where a bucket begins, in nanoseconds (src/policy/histogram.rs)."""
    return bucket if bucket < 4 else (4 + bucket % 4) << (bucket // 4 - 1)


def at(buckets, part):
    """The time below which that part of the samples is, in milliseconds."""
    left = part * sum(buckets)
    for bucket, count in enumerate(buckets):
        left -= count
        if left <= 0:
            return lower(bucket + 1) / 1e6


def triggers(made, lever, slice=0, **policy):
    """The histograms of the trigger and the effect times, of all these VMs."""
    for scene in made:
        for tid in scene.tids:
            os.sched_setaffinity(tid, {1})
            sched.put(tid, slice=slice)
        scene.add(lever=lever, linger=abi.MS, max_sleep=abi.MAX_TIME, request_timeout=abi.MAX_TIME, **policy)
    host.wait(lambda: all(scene.get().state == abi.SLEEPY for scene in made), "asleep")
    when = random.Random(1)
    for turn in range(int(ROUNDS)):
        scene = made[turn % len(made)]
        time.sleep(when.uniform(0.004, 0.014))
        scene.request(turn)
        time.sleep(0.012)
        scene.answer(turn)
    stats = [scene.stats() for scene in made]
    for scene in made:
        scene.device.remove(scene.id)
    return [[sum(counts) for counts in zip(*(getattr(one, name) for one in stats))] for name in ("trigger", "effect")]


@pytest.mark.parametrize("vms", [int(size) for size in SIZES.split(",")])
def test_triggers(scenes, aside, report, vms):
    made = [scenes(add=False) for _ in range(vms)]
    report += ["", f"Trigger times in ms, {vms} VMs that spin on one CPU, {ROUNDS} requests:", "",
               f"{'lever':26} {'p50':>7} {'p90':>7} {'p99':>7}   {'to effect: p50':>14} {'p99':>7}"]
    median = {}
    for name, (lever, special) in CASES.items():
        trigger, effect = triggers(made, lever, **special)
        assert sum(trigger) == int(ROUNDS)
        median[name] = at(trigger, 0.5)
        later = "".join(f"{at(effect, part):{width}.2f}" for part, width in ((0.5, 17), (0.99, 8))) if sum(effect) else ""
        report += [f"{name:26} " + " ".join(f"{at(trigger, part):7.2f}" for part in (0.5, 0.9, 0.99)) + later]
    for lever in ("nice", "idle", "park"):
        assert median[lever] < median["observe"], median
