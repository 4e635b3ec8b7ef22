# SPDX-License-Identifier: GPL-2.0-only
"""What happens to a whole host: a debugger, another time of day, no memory, many VMs."""

import mmap
import os
import signal
import time
from pathlib import Path

import pytest

from lib import abi, host, power, ptrace
from lib.scene import RULES

MS = abi.MS
LONG = 60 * abi.SECOND


@pytest.mark.core
@pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])
def test_traced_by_a_debugger(scenes, lever):
    """A vCPU thread that a debugger stops is given its weight back all the same, and sleeps again when it goes on."""
    scene = scenes(lever=lever, linger=1 * MS, max_sleep=LONG, park_max=3600 * abi.SECOND, stir_run=1 * MS)
    tid, = scene.tids
    for turn in range(5):
        scene.wait_low()
        with ptrace.interrupted(tid):
            scene.request(turn)
            assert scene.nices() == [0] and scene.get().in_flight == 1
            for _ in range(5):
                ptrace.step(tid)
        scene.wait_runs()
        scene.answer(turn)
    scene.wait_low()
    with ptrace.interrupted(tid):
        scene.device.remove(scene.id)
        assert scene.nices() == [0]
    scene.add()
    scene.attached()
    scene.wait_runs()


@pytest.mark.core
@pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])
def test_clock_steps(scenes, lever):
    """Another time of day changes nothing: `max_sleep` is over when it is over."""
    scene = scenes(lever=lever, linger=1 * MS, max_sleep=200 * MS, park_max=100 * MS, stir_run=1 * MS)
    scene.wait_sleepy()
    day = 24 * 3600
    with host.other_time() as step:
        for seconds in (day, -2 * day, 365 * day, -364 * day):
            before = scene.stats().wakes["stir"]
            step(seconds)
            time.sleep(1)
            stirs = scene.stats().wakes["stir"] - before
            assert 1 <= stirs <= 5, f"{stirs} after a step of {seconds} s"
            scene.request()
            assert scene.get().in_flight == 1
            scene.answer()
            scene.wait_sleepy()


class Hog:
    """A process that takes all memory that it can get."""

    def __init__(self):
        self.pid = os.fork()
        if self.pid == 0:
            try:
                taken = []
                while True:
                    taken.append(mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
            finally:
                os._exit(0)

    def killed(self):
        """Whether it has been killed, for want of memory."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return pid == self.pid and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.flavour("base", "previous")  # a debug kernel takes minutes to fill its memory
def test_no_memory(scenes):
    """The VMM that is killed for it is gone; the other one does not notice. Both have traffic all the time."""
    victim, other = (scenes(lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=LONG, stir_run=1 * MS) for _ in range(2))
    Path(f"/proc/{victim.vmm.pid}/oom_score_adj").write_text("1000")
    Path(f"/proc/{other.vmm.pid}/oom_score_adj").write_text("-1000")
    hog = Hog()
    turn, deadline = 0, time.monotonic() + 120
    while not hog.killed():
        assert time.monotonic() < deadline, "memory is not used up"
        turn += 1
        for scene in (victim, other):
            scene.host.send(b"\0" * 60)
        other.request(turn)
        other.answer(turn)
    host.wait(lambda: [vm.id for vm in other.device.vms()] == [other.id], "the victim is gone")
    assert other.stats().requests == other.stats().responses == turn
    other.wait_sleepy()
    other.request()
    assert other.get().in_flight == 1


@pytest.mark.flavour("base", "previous")  # the memory kernel looks for leaks itself, after all tests
def test_many_vms_come_and_go(scenes, device):
    """Added, attached and gone: nothing is kept of them."""
    several = [scenes(add=False, code="halt") for _ in range(4)]

    references = host.refcount()

    def kept_of(vms):
        """The bytes that the kernel has more after so many."""
        before = host.kept()
        for turn in range(vms // len(several)):
            for scene in several:
                scene.add(linger=0, max_sleep=1 * MS, rules=RULES * 4)
                scene.answer(turn)  # a request would wait in the tap for ever
            for scene in several:
                scene.attached()
            for scene in several:
                scene.device.remove(scene.id)
        host.wait(lambda: host.refcount() == references, "no reference is left")
        time.sleep(1)
        return host.kept() - before

    # What is cached is so at some time, most of it soon; what is lost is so each time.
    for _ in range(3):
        kept_of(80)
    vms, grown = 1000 if host.FULL else 400, []
    while not grown or grown[-1] >= vms * 32:
        assert len(grown) < 8, f"bytes that the kernel has more after each {vms} VMs: {grown}"
        grown.append(kept_of(vms))
    print(f"bytes that the kernel has more after each {vms} VMs: {grown}")


@pytest.mark.core
@pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])
def test_suspended(scenes, lever):
    """Who slept sleeps, who was asked is awake, and both go on from there."""
    asleep, asked = (scenes(lever=lever, linger=1 * MS, max_sleep=LONG, park_max=LONG, stir_run=1 * MS) for _ in range(2))
    for turn in range(3):
        for scene in (asleep, asked):
            scene.wait_low()
        asked.request(turn)
        power.suspend()
        assert asleep.is_sleepy() and asked.nices() == [0] and asked.get().in_flight == 1
        asleep.request(turn)
        assert asleep.nices() == [0]
        for scene in (asleep, asked):
            scene.wait_runs()
            scene.answer(turn)
            assert scene.stats().responses == scene.stats().requests == turn + 1
    for scene in (asleep, asked):
        scene.attached()
        scene.wait_sleepy()
