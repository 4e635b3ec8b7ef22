# SPDX-License-Identifier: GPL-2.0-only
"""VMMs that are stopped or frozen: nothing waits for them, and nothing is unloaded under them."""

import errno
import os
import time
from contextlib import contextmanager

import pytest

from lib import abi, cgroup, host

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
CGROUP = cgroup.ROOT / "sleepy-tests"


@contextmanager
def frozen(pid):
    """The cgroup freezer."""
    CGROUP.mkdir()
    group = cgroup.Group(CGROUP)
    try:
        group.take(pid)
        with group.frozen():
            yield
    finally:
        if os.path.exists(f"/proc/{pid}"):
            cgroup.Group(cgroup.ROOT).take(pid)
        host.wait(lambda: not group.pids(), "the cgroup is empty")
        CGROUP.rmdir()


HOW = pytest.mark.parametrize("halted", [host.stopped, frozen], ids=["stopped", "frozen"])
LEVER = pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])


BUSY = (errno.EBUSY, errno.EAGAIN)


def again():
    """Unloads the module as soon as it can be, if that is still to be done, and loads it anew."""
    if host.loaded():
        host.unload()
    host.load()


def run_on(scene):
    """Switches the threads a few times: with a notifier of a module that is gone, that is an oops."""
    for turn in range(10):
        for tid in scene.tids:
            os.sched_setaffinity(tid, {turn % 2})


def gone(scene):
    scene.device.close()
    again()


def asleep(scenes, lever=abi.NICE):
    """A VM of two vCPUs, lowered or parked."""
    scene = scenes(vcpus=2, lever=lever, linger=1 * MS, max_sleep=LONG, park_max=3600 * abi.SECOND)
    scene.attached()
    scene.wait_low()
    return scene


def swift(started):
    assert time.monotonic() - started < 2 * host.SLOW, "it waited for the VMM"


@HOW
@LEVER
def test_removed_while_it_does_not_run(scenes, halted, lever):
    """The weight is given back at once, the notifier when the thread runs: until then, rmmod is refused."""
    scene = asleep(scenes, lever)
    with halted(scene.vmm.pid):
        started = time.monotonic()
        scene.device.remove(scene.id)
        swift(started)
        assert scene.nices() == [0, 0]
        assert scene.device.vms() == []
        scene.device.close()
        # A frozen thread may have let go on its way into the freezer; a stopped one cannot.
        allowed = BUSY if halted is host.stopped else (0, *BUSY)
        assert host.refused_unload() in allowed
        time.sleep(0.5)
        if host.loaded():
            assert host.refused_unload() in allowed
    again()
    run_on(scene)


@HOW
@LEVER
def test_asked_while_it_does_not_run(scenes, halted, lever):
    """It runs when it can; a thread that is parked can be stopped and frozen."""
    scene = asleep(scenes, lever)
    with halted(scene.vmm.pid):
        scene.request()
        assert scene.nices() == [0, 0]
        before = scene.oncpu()
        time.sleep(0.3)
        assert scene.get().state == abi.AWAKE and scene.oncpu() == before
    host.wait(lambda: scene.share(0.1) > 0.5, "it runs")
    scene.answer()
    scene.wait_low()


@HOW
def test_added_while_it_does_not_run(scenes, halted):
    """The notifier waits for the thread; what the lever does, does not."""
    scene = scenes(add=False)
    with halted(scene.vmm.pid):
        started = time.monotonic()
        scene.add(linger=1 * MS, max_sleep=LONG)
        swift(started)
        scene.wait_sleepy()
        assert not scene.device.vcpus(scene.id)[0].flags & abi.ATTACHED
        scene.request()
        assert scene.nices() == [0]
        scene.answer()
        scene.wait_sleepy()
    scene.attached()


@HOW
def test_added_and_removed_while_it_does_not_run(scenes, halted):
    scene = scenes(add=False)
    with halted(scene.vmm.pid):
        for _ in range(3):
            scene.add(linger=1 * MS, max_sleep=LONG)
            scene.wait_sleepy()
            started = time.monotonic()
            scene.device.remove(scene.id)
            swift(started)
            assert scene.nices() == [0]
        scene.device.close()
        assert host.refused_unload() in (0, *BUSY)
    again()
    run_on(scene)


@HOW
def test_added_again_before_it_has_run(scenes, halted):
    """An old notifier that is still to go, and a new one that is still to come, on one thread."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.attached()
    with halted(scene.vmm.pid):
        scene.device.remove(scene.id)
        scene.add(linger=1 * MS, max_sleep=LONG)
    scene.attached()
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [0]


@HOW
def test_boosted_again_before_it_has_run(scenes, halted):
    """What is left of the old one, when it goes, leaves alone what the new one has set."""
    policy = {"linger": 1 * MS, "max_sleep": LONG, "request_timeout": LONG, "flags": abi.BOOST, "boost_nice": -5}
    scene = scenes(**policy)
    scene.attached()
    scene.request()
    host.wait(lambda: scene.nices() == [-5], "boosted")
    with halted(scene.vmm.pid):
        scene.device.remove(scene.id)
        assert scene.nices() == [0]
        scene.add(**policy)
    scene.attached()
    scene.request(1)
    host.wait(lambda: scene.nices() == [-5], "boosted again")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert scene.nices() == [-5]
        time.sleep(0.1)
    scene.device.remove(scene.id)
    assert scene.nices() == [0]


@HOW
def test_killed_while_it_does_not_run(scenes, halted):
    scene = asleep(scenes)
    scene.vm.close()
    with halted(scene.vmm.pid):
        scene.vmm.stop()
        host.wait(lambda: not scene.device.vms(), "the VM is gone", 3)
    gone(scene)


@HOW
def test_removed_and_killed_while_it_does_not_run(scenes, halted):
    scene = scenes(vcpus=2, linger=1 * MS, max_sleep=LONG)
    scene.attached()
    scene.vm.close()
    with halted(scene.vmm.pid):
        scene.device.remove(scene.id)
        scene.vmm.stop()
    gone(scene)


@HOW
def test_awake_and_asleep_while_it_does_not_run(scenes, halted):
    """Requests, stirs and lost requests go on."""
    scene = scenes(linger=1 * MS, max_sleep=20 * MS, request_timeout=30 * MS)
    scene.attached()
    with halted(scene.vmm.pid):
        before = scene.stats()
        scene.request()
        host.wait(lambda: scene.stats().timeouts > before.timeouts, "lost")
        host.wait(lambda: scene.stats().wakes["stir"] > before.wakes["stir"] + 3, "stirred")
    stats, vcpu = scene.stats(), scene.device.vcpus(scene.id)[0]
    assert stats.requests == before.requests + 1
    assert vcpu.flags & abi.ATTACHED
