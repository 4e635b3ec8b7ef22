# SPDX-License-Identifier: GPL-2.0-only
"""Where an awake VM waits for the CPU of a sleepy one, the sleepy one gives up its turn.

Tiny VMs that spin, on one CPU.
"""

import os
import time
from contextlib import ExitStack

import pytest

from lib import abi, cgroup, host

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
ROUNDS = host.turns(180)


@pytest.fixture
def sleepers(scenes, aside):
    """VMs on CPU 1, or on the CPUs given, with these levers; in control groups of their own, where the lever takes one."""
    with ExitStack() as stack:
        def make(levers=(abi.NICE, abi.NICE), cpus=None):
            made = [scenes(add=False) for _ in levers]
            for number, (scene, lever) in enumerate(zip(made, levers)):
                os.sched_setaffinity(scene.tids[0], {cpus[number] if cpus else 1})
                how = {}
                if lever == abi.GROUP:
                    group = stack.enter_context(cgroup.group(f"vm{number}"))
                    group.take(scene.vmm.pid)
                    how["group_fd"] = stack.enter_context(group.fd())
                scene.add(lever=lever, linger=1 * MS, max_sleep=LONG, request_timeout=LONG, **how)
                scene.attached()
            for scene in made:
                scene.wait_sleepy()
            return made
        yield make


def vcpu(scene):
    return scene.device.vcpus(scene.id)[0]


def converse(scene):
    """Requests at ever other moments of the other's turn, each answered after a few turns."""
    for turn in range(ROUNDS):
        scene.wait_sleepy()
        time.sleep(0.0003 * (turn % 10))
        scene.request(turn)
        time.sleep(0.005)
        scene.answer(turn)


def test_sleepy_gives_way_to_awake(sleepers):
    asked, other = sleepers()
    converse(asked)
    assert vcpu(other).yielded > 0


@pytest.mark.fast
@pytest.mark.parametrize("levers", [(abi.OBSERVE, abi.NICE), (abi.NICE, abi.OBSERVE)], ids=["asked", "other"])
def test_observe_neither_asks_nor_gives(sleepers, levers):
    asked, other = sleepers(levers)
    converse(asked)
    assert vcpu(other).yielded == 0


@pytest.mark.fast
@pytest.mark.parametrize("lever", [abi.NICE, abi.IDLE, abi.GROUP, abi.PARK], ids=["nice", "idle", "cgroup", "park"])
def test_woken_beside_one_that_works(sleepers, lever):
    """It has its CPU after a few turns of the one that works, not when that is done."""
    works, asked, *_ = sleepers([lever] * 4)
    works.request()
    waits = []
    for turn in range(10):
        asked.wait_sleepy()
        time.sleep(0.05)
        before, began = vcpu(asked).oncpu, time.monotonic()
        asked.request(turn)
        host.wait(lambda: vcpu(asked).oncpu > before, "it runs", step=0.0005)
        waits.append(time.monotonic() - began)
        time.sleep(0.02)
        asked.answer(turn)
    assert sorted(waits)[-2] < 0.1, waits


def test_real_time_threads_do_not(sleepers):
    """Their turns are not sleepy's to give."""
    asked, other = sleepers()
    os.sched_setscheduler(other.tids[0], os.SCHED_RR, os.sched_param(1))
    for turn in range(10):
        asked.request(turn)
        time.sleep(0.02)
        asked.answer(turn)
        time.sleep(0.02)
    os.sched_setscheduler(other.tids[0], os.SCHED_OTHER, os.sched_param(0))
    assert vcpu(other).yielded == 0


def test_nobody_gives_way_on_another_cpu(sleepers):
    asked, other = sleepers(cpus=(1, 0))
    converse(asked)
    assert vcpu(other).yielded == 0


def test_sleepy_keeps_moving(sleepers):
    """Beside one that is woken all the time, it gives up every other turn at most."""
    asked, other = sleepers()
    first = vcpu(other)
    converse(asked)
    last = vcpu(other)
    yielded, preempted = last.yielded - first.yielded, last.preempted - first.preempted
    assert 0 < yielded <= preempted / 2 + 1
    assert last.oncpu > first.oncpu


def test_removed_while_it_gives_way(sleepers):
    asked, other = sleepers()
    for turn in range(ROUNDS):
        asked.wait_sleepy()
        asked.request(turn)
        other.device.remove(other.id)
        asked.answer(turn)
        other.add(linger=1 * MS, max_sleep=LONG)
        other.attached()
        other.wait_sleepy()


def test_killed_while_it_gives_way(sleepers):
    asked, other = sleepers()
    for turn in range(ROUNDS):
        asked.wait_sleepy()
        asked.request(turn)
        asked.answer(turn)
        if turn == ROUNDS // 2:
            other.vmm.stop()
    host.wait(lambda: len(asked.device.vms()) == 1, "it is gone")
    asked.wait_sleepy()
