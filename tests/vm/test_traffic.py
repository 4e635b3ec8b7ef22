# SPDX-License-Identifier: GPL-2.0-only
"""What happens to a host happens while requests come and are answered: by each lever, a VM sleeps and wakes as before, and has in
the end what it had."""

import itertools
import os
import time

import pytest

from lib import abi, cgroup, host, net, power, ptrace
from lib.machine import CPU1
from lib.traffic import flows

pytestmark = [pytest.mark.core, pytest.mark.fast]

MS = abi.MS
LEVERS = pytest.mark.parametrize("lever", [
    abi.PARK, *(pytest.param(lever, marks=pytest.mark.full) for lever in (abi.NICE, abi.IDLE, abi.GROUP))],
    ids=["park", "nice", "idle", "cgroup"])
A_WHILE = 0.3


def stopped(tuned):
    with host.stopped(tuned.scene.vmm.pid):
        flows(tuned.scene)


def frozen(tuned):
    with tuned.group.frozen():
        flows(tuned.scene)


def traced(tuned):
    for tid in tuned.scene.tids:
        with ptrace.interrupted(tid):
            flows(tuned.scene)
            for _ in range(5):
                ptrace.step(tid)


def without_a_cpu(tuned):
    CPU1.write_text("0")
    flows(tuned.scene)
    CPU1.write_text("1")


def at_another_time(tuned):
    with host.other_time() as step:
        for seconds in (24 * 3600, -48 * 3600):
            step(seconds)
            flows(tuned.scene)


def suspended(tuned):
    flows(tuned.scene)
    power.suspend()


def renamed(tuned):
    net.ip(f"link set {tuned.scene.tap} name strenamed")
    flows(tuned.scene)
    net.ip(f"link set strenamed name {tuned.scene.tap}")


def in_another_group(tuned):
    with cgroup.group("other") as other:
        other.take(tuned.scene.vmm.pid)
        flows(tuned.scene)
        tuned.group.take(tuned.scene.vmm.pid)


def crowded(tuned):
    """Its threads change CPUs as fast as they can."""
    before = tuned.scene.stats().requests
    for turn in itertools.count():
        if turn >= 100 and tuned.scene.stats().requests > before + 20:
            break
        for tid in tuned.scene.tids:
            os.sched_setaffinity(tid, {turn % 2})
        time.sleep(0.002)
    for tid in tuned.scene.tids:
        os.sched_setaffinity(tid, {0, 1})


FAULTS = [stopped, frozen, traced, without_a_cpu, at_another_time, suspended, renamed, in_another_group, crowded]


def goes_on(scene):
    """It is asked, sleeps and wakes."""
    before = scene.stats()

    def has():
        stats = scene.stats()
        return (stats.requests > before.requests + 20 and stats.wakes["request"] > before.wakes["request"]
                and sum(stats.sleeps.values()) > sum(before.sleeps.values()) + 1)

    host.wait(has, f"asked, asleep and awake; {scene}", 10)


def under_traffic(tuned, traffic, lever):
    tuned.add(lever, request_timeout=2 * abi.SECOND)
    load = traffic(tuned.scene, pauses=True)
    goes_on(tuned.scene)
    return load


@LEVERS
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_goes_on(tuned, traffic, fault, lever):
    scene = tuned.scene
    load = under_traffic(tuned, traffic, lever)
    fault(tuned)
    goes_on(scene)
    assert load.stop(), "a sender met an error"
    host.wait(lambda: scene.get().in_flight == 0, "all answered or lost")
    scene.request(50)
    tuned.wait_restored()
    scene.answer(50)
    tuned.wait_lowered(lever)
    scene.device.remove(scene.id)
    assert tuned.is_restored()


@LEVERS
@pytest.mark.parametrize("end", ["killed", "executes"])
def test_vmm_is_over(tuned, traffic, end, lever):
    under_traffic(tuned, traffic, lever)
    flows(tuned.scene)
    if end == "killed":
        tuned.scene.vmm.stop()
    else:
        tuned.scene.vmm.send("exec")
    host.wait(lambda: not tuned.scene.device.vms(), "the VM is gone", 3)
    assert tuned.weights() == tuned.WEIGHT


@LEVERS
@pytest.mark.parametrize("lost", ["deleted", "moved"])
def test_link_lost(tuned, traffic, lost, lever):
    """Requests may come where they cannot be seen any more: awake, with all that it had."""
    scene = tuned.scene
    load = under_traffic(tuned, traffic, lever)
    flows(scene)
    if lost == "deleted":
        net.ip(f"link del {scene.tap}")
    else:
        net.ip("netns add stns")
        net.ip(f"link set {scene.tap} netns stns")
    assert scene.get().lost_links == 1
    assert load.stop()
    host.wait(lambda: scene.get().in_flight == 0, "all lost", 10)
    time.sleep(A_WHILE)
    assert scene.get().state == abi.AWAKE and tuned.is_restored()


@LEVERS
def test_removed(tuned, traffic, lever):
    scene = tuned.scene
    load = traffic(scene)
    for _ in range(host.turns(15)):
        tuned.add(lever, linger=0, max_sleep=1 * MS)
        flows(scene)
        scene.device.remove(scene.id)
        assert tuned.is_restored()
    assert load.stop()
