# SPDX-License-Identifier: GPL-2.0-only
"""What the levers reach in each layout: the worker's share of its CPU beside sleepy VMs that spin.

The table is printed when all tests are done. How long each share is measured, and how often: SLEEPY_LAYOUTS="SECONDS
ROUNDS".
"""

import os

import pytest

from lib import layouts

SECONDS, ROUNDS = os.environ.get("SLEEPY_LAYOUTS", "1 1").split()

# What must help there, and what cannot.
REACHES = {
    "flat": {"nice", "idle", "park"},
    "autogroup": {"park"},
    "per-vm": {"cgroup", "park"},
    "nested": {"park"},
    "cpuset": {"nice", "idle", "park"},
}
FAILS = {"autogroup": {"nice", "idle"}, "per-vm": {"nice", "idle"}}
# In a full run alone.
RARE = "autogroup", "nested", "cpuset"


@pytest.mark.parametrize("layout", [
    pytest.param(layout, id=name, marks=[pytest.mark.full] if name in RARE else []) for name, layout in layouts.LAYOUTS.items()])
def test_shares(device, layout, shares):
    rows = layouts.measure(device, layout, float(SECONDS), int(ROUNDS))
    shares += rows
    share = {(row["lever"], row["sleepers"]): row["worker_share"] for row in rows}
    for sleepers in layouts.SIZES:
        none = share["observe", sleepers]
        for lever in REACHES[layout.name]:
            assert share[lever, sleepers] > min(0.9, 1.5 * none), (lever, sleepers, share)
        for lever in FAILS.get(layout.name, ()):
            assert share[lever, sleepers] < 2 * none, (lever, sleepers, share)
    # What is missing to 0.97 and more, in a longer measurement, is the test host's own work.
    assert share["park", 50] > 0.9 and share["auto", 50] > 0.9, share
