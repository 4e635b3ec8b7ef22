# SPDX-License-Identifier: GPL-2.0-only
"""No lever starves a sleepy VM: a Linux guest that is parked keeps its clock, its connections and its nerve."""

import json
import os
import re
import statistics
import time

import pytest

from lib import abi, client, host, net, plug, watch, web

RULES = ("--request", f"tcp dst port {web.HTTP}", "--response", f"tcp src port {web.HTTP}")
PARK_MAX = abi.policy().park_max
LONG_MINUTES = 15 if host.FULL else 4
COMPLAINT = re.compile(r"stall|lockup|hung|blocked for more than|unstable|watchdog|BUG|WARNING|Oops", re.IGNORECASE)
# In 500 us an emulated guest may not even end a tick of its clock, which takes some 5 us on hardware.
ENOUGH = "5ms"
# The one watchdog that Linux does not tell that the host has held it up.
NOT_TOLD = "workqueue lockup"


def ping(netns, address, count):
    """Times of the answers, in seconds, where one came within ten."""
    times = []
    with net.inside(netns):
        for _ in range(count):
            # One at a time: of several, ping(8) waits for the last for no longer than twice what the others took.
            output = os.popen(f"ping -n -c 1 -W 10 {address} 2>&1").read()
            times += [float(took) / 1000 for took in re.findall(r"time=([0-9.]+) ms", output)]
            time.sleep(1)
    return times


class Clock:
    """A guest's clock, read over a connection, beside the host's."""

    def __init__(self, connection):
        before = time.time_ns()
        status, body = connection.ask("/clock")
        after = time.time_ns()
        assert status == 200
        self.least, self.most = int(body) - after, int(body) - before

    def gained_since(self, other):
        """How much it has gained since another reading, in nanoseconds: (at least, at most)."""
        return self.least - other.most, self.most - other.least


def check_parked(device, guest, scenes, vms, minutes, stir_run=ENOUGH, may_say=None):
    """So many VMs on one CPU: one of them works, and the others are parked, as the guest is."""
    levers = [abi.OBSERVE] + [abi.PARK] * (vms - 2)
    for lever in levers:
        scene = scenes(add=False)
        for tid in scene.tids:
            os.sched_setaffinity(tid, {1})
        scene.add(lever=lever, max_sleep=abi.MAX_TIME, **({} if lever == abi.OBSERVE else {"linger": 1}))
    for tid in guest.tids():
        os.sched_setaffinity(tid, {1})
    with plug.plug(guest, "netns") as netns, client.Connection(netns, guest.ip4) as connection:
        # What a guest does for the first time, the emulator translates first: longer than a parked guest runs for a packet.
        assert ping(netns, guest.ip4, 1)
        before, said = Clock(connection), len(guest.log.read_text())
        vm = watch.add(device, guest, "--lever", "park", "--stir-run", stir_run, *RULES,
                       times=("--linger", "1us", "--max-sleep", "1h")).id
        end = time.monotonic() + 60 * minutes
        times, asked = [], 0
        began, ran = time.monotonic_ns(), device.vcpus(vm)[0]
        while time.monotonic() < end:
            time.sleep(min(20, max(0, end - time.monotonic())))
            times += ping(netns, guest.ip4, 5)
            asked += 5
        after = device.vcpus(vm)[0]
        share = (after.oncpu - ran.oncpu) / (time.monotonic_ns() - began)
        print(f"parked {after.parked - ran.parked} times, {share:.4f} of the CPU; ping: {len(times)} of {asked}, "
              f"median {statistics.median(times):.3f} s, longest {max(times):.3f} s")
        # One that halts waits by itself: it may have been let run for each packet.
        assert share < 0.2 and (after.parked > ran.parked or not guest.busy)
        assert device.get(vm).state == abi.SLEEPY, "nothing of that was a request"
        gained = Clock(connection).gained_since(before)  # on the connection that has been there all the time
        device.remove(vm)
    assert gained[0] < 0.2e9 and gained[1] > -0.2e9, f"the clock has gained {gained} ns"
    assert len(times) == asked, f"{asked - len(times)} of {asked} pings were lost"
    assert max(times) < PARK_MAX / 1e9 * host.SLOW, times
    complaints = [line for line in guest.log.read_text()[said:].splitlines()
                  if COMPLAINT.search(line) and not (may_say and may_say in line)]
    assert not complaints, complaints


BUSY = pytest.mark.parametrize("busy", [True, False], ids=["polls", "halts"])


@BUSY
def test_parked(device, guests, scenes, busy):
    guest = guests.get(31 if busy else 34, busy=busy)
    check_parked(device, guest, scenes, 6, 0.4)


def test_one_of_fifty(device, guests, scenes):
    check_parked(device, guests.get(31, busy=True), scenes, 51, 0.4)


def test_watchdogs_are_told(device, guests, scenes):
    """Next to no CPU: it is no lockup if the host has held the guest up."""
    check_parked(device, guests.get(31, busy=True), scenes, 6, 0.6, stir_run="50us", may_say=NOT_TOLD)


@pytest.mark.long
def test_parked_for_long(device, guests, scenes):
    guest = guests.get(31, busy=True)
    check_parked(device, guest, scenes, 6, LONG_MINUTES)


@pytest.mark.parametrize("lever", ["nice", "idle", "park"])
def test_lock_holders(device, guests, lever):
    """Four vCPUs that fight for a spinlock wake and sleep all the time: none waits for one that is left behind."""
    guest = guests.get(32, vcpus=4, storm=True)
    with plug.plug(guest, "netns") as netns, web.Connection(netns, guest) as connection:
        connection.get("/storm")
        connection.receive()
        one = watch.add(device, guest, "--lever", lever, *RULES, times=(
            "--linger", "1ms", "--max-sleep", "60s", "--park-max", "20s", "--stir-run", "1ms"))
        times, turns = [], []
        for _ in range(50):
            host.wait(lambda: one.vm().state == abi.SLEEPY, "sleepy", step=0.002)
            began = time.monotonic()
            connection.get("/storm")
            status, body = connection.receive()
            times.append(time.monotonic() - began)
            assert status == 200
            turns.append(json.loads(body)["turns"])
        print(f"{lever}: answers median {statistics.median(times):.3f} s, longest {max(times):.3f} s")
        assert turns == sorted(set(turns)), "the storm goes on"
        assert max(times) < 5 * host.SLOW, "far below park_max"
        device.remove(one.id)
