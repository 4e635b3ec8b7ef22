# SPDX-License-Identifier: GPL-2.0-only
"""What the levers do to the threads, and how a policy is changed while it works.

       test: packet socket  ->  st0 (tap)  ->  tiny VM
       test: packet socket  <-  st0        <-  test, through the tiny VM's tap descriptor
"""

import os
import time

import pytest

from lib import abi, frames, host

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
LENGTH = len(frames.udp(True, 10000, 7, b"?"))


def test_observe_changes_nothing(scenes):
    scene = scenes(add=False, nice=3)
    with scene.recording() as recording:
        scene.add(lever=abi.OBSERVE, linger=2 * MS, max_sleep=100 * MS)
        host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
        for turn in range(5):
            scene.request(turn)
            assert scene.get().in_flight == 1
            scene.answer(turn)
            host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
        host.wait(lambda: scene.stats().wakes["stir"], "stirred")
        stats = scene.stats()
        scene.device.remove(scene.id)
    assert recording.renices() == [], "observe has called set_user_nice()"
    assert scene.nices() == [3]
    assert (stats.requests, stats.responses, stats.wakes["request"], stats.sleeps["response"]) == (5, 5, 5, 5)


def test_boost_while_in_flight(scenes):
    """Boosted before the first packet is delivered; no longer once it has answered; sleepy after linger."""
    linger = 50 * MS
    scene = scenes(linger=linger, flags=abi.BOOST, boost_nice=-5, max_sleep=LONG)
    scene.wait_sleepy()
    with scene.recording() as recording:
        for turn in range(4):
            scene.request(turn)
            scene.request(turn)
            scene.answer(turn)
            scene.wait_sleepy()
    deliveries = recording.deliveries(scene.tap, {scene.tids[0]: 19}, LENGTH)
    assert len(deliveries) == 8
    assert all(set(nices.values()) == {-5} for nices, _ in deliveries)
    assert recording.nices(scene.tids[0]) == [-5, 0, 19] * 4
    times = [at for at, _ in recording.renices(scene.tids[0])]
    assert all(times[i + 2] - times[i + 1] >= linger - 10 * MS for i in range(0, len(times), 3)), \
        "the boost lasted while it lingered"


def test_boost_when_request_finds_it_awake(scenes):
    scene = scenes(linger=LONG, flags=abi.BOOST, boost_nice=-7, max_sleep=LONG)
    scene.attached()
    assert scene.nices() == [0]
    scene.request()
    assert scene.nices() == [-7]
    scene.answer()
    assert scene.nices() == [0]
    assert scene.get().state == abi.AWAKE


def test_administrator_after_a_boost(scenes):
    """What the awake thread is given is its own, even if it was within a boost once."""
    scene = scenes(linger=500 * MS * host.SLOW, flags=abi.BOOST, boost_nice=-5, max_sleep=LONG,
                   wake_on=abi.wake_on("request", "packet"))
    scene.attached()
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [-5]
    scene.answer()
    before = 0
    for nice in (10, 0, 3, -10, -2):
        scene.wait_sleepy()
        scene.host.send(frames.udp(True, 1, 9))
        assert scene.nices() == [before]
        os.setpriority(os.PRIO_PROCESS, scene.tids[0], nice)
        before = nice
    scene.wait_sleepy()
    scene.device.remove(scene.id)
    assert scene.nices() == [-2]


def test_boost_that_waits_for_the_notifier(scenes):
    """A request has come before the thread has run with sleepy for the first time."""
    scene = scenes(add=False)
    with host.stopped(scene.vmm.pid):
        scene.add(linger=1 * MS, flags=abi.BOOST, boost_nice=-5, max_sleep=LONG, request_timeout=LONG)
        scene.wait_sleepy()
        scene.request()
        host.wait(lambda: scene.get().state == abi.AWAKE, "awake")
        assert scene.nices() == [0], "what it makes would be boosted for good"
    host.wait(lambda: scene.nices() == [-5], f"boosted; {scene}")
    scene.answer()
    scene.wait_sleepy()


def test_boost_that_is_no_boost(scenes):
    """A boost is used only below a thread's own nice value."""
    scene = scenes(nice=-10, linger=2 * MS, flags=abi.BOOST, boost_nice=-5, max_sleep=LONG)
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [-10]
    scene.answer()
    scene.wait_sleepy()


@pytest.mark.parametrize("nice", [-20, -3, 5, 18])
def test_baseline_is_each_threads_own(scenes, nice):
    scene = scenes(nice=nice, linger=2 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    vcpu = scene.device.vcpus(scene.id)[0]
    assert (vcpu.nice, vcpu.baseline, vcpu.flags & abi.MOVED) == (19, nice, abi.MOVED)
    scene.request()
    assert scene.nices() == [nice]
    vcpu = scene.device.vcpus(scene.id)[0]
    assert (vcpu.nice, vcpu.baseline, vcpu.flags & (abi.MOVED | abi.FOREIGN)) == (nice, nice, 0)
    scene.answer()
    scene.wait_sleepy()
    scene.device.remove(scene.id)
    assert scene.nices() == [nice]


def test_baselines_differ_within_a_vm(scenes):
    scene = scenes(vcpus=2, add=False)
    for tid, nice in zip(scene.tids, (2, 9)):
        os.setpriority(os.PRIO_PROCESS, tid, nice)
    scene.add(linger=2 * MS, max_sleep=LONG, sleepy_nice=15)
    scene.wait_sleepy()
    assert scene.nices() == [15, 15]
    scene.request()
    assert scene.nices() == [2, 9]
    scene.answer()
    scene.wait_sleepy()
    scene.device.remove(scene.id)
    assert scene.nices() == [2, 9]


def test_sleepy_nice_below_its_own_is_not_used(scenes):
    scene = scenes(add=False, nice=12)
    with scene.recording() as recording:
        scene.add(linger=2 * MS, sleepy_nice=10, max_sleep=LONG)
        host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
        assert scene.nices() == [12]
        assert not scene.device.vcpus(scene.id)[0].flags & abi.MOVED
        scene.request()
        scene.answer()
        host.wait(lambda: scene.stats().sleeps["response"], "asleep again")
    assert all(nice == 12 for _, nice in recording.renices(scene.tids[0]))


def test_set_sleepy_nice(scenes):
    scene = scenes(linger=2 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    scene.set(sleepy_nice=10)
    scene.wait_sleepy()
    assert scene.nices() == [10]
    scene.request()
    assert scene.nices() == [0]
    assert scene.get().policy.sleepy_nice == 10


def test_set_lever_to_observe_gives_back_its_weight(scenes):
    scene = scenes(linger=2 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    scene.set(lever=abi.OBSERVE)
    assert scene.nices() == [0]
    host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
    assert scene.nices() == [0]
    assert not scene.device.vcpus(scene.id)[0].flags & abi.MOVED


def test_set_lever_to_nice_takes_its_weight(scenes):
    scene = scenes(lever=abi.OBSERVE, linger=2 * MS, max_sleep=LONG)
    host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
    scene.set(lever=abi.NICE)
    scene.wait_sleepy()
    assert scene.nices() == [19]


def test_set_while_in_flight(scenes):
    """What is in flight stays in flight; a boost begins and ends at once."""
    scene = scenes(linger=2 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    scene.request()
    scene.set(flags=abi.BOOST, boost_nice=-4)
    assert scene.nices() == [-4]
    assert scene.get().in_flight == 1
    scene.set(flags=0, boost_nice=0)
    assert scene.nices() == [0]
    scene.answer()
    scene.wait_sleepy()


def test_set_max_sleep_and_linger(scenes):
    """New times hold at once, also for a VM that has just begun to sleep for an hour."""
    scene = scenes(linger=2 * MS, max_sleep=abi.MAX_TIME)
    scene.wait_sleepy()
    scene.set(max_sleep=50 * MS)
    host.wait(lambda: scene.stats().wakes["stir"] >= 2, "stirred")
    scene.set(linger=abi.MAX_TIME)
    assert scene.get().state == abi.AWAKE
    time.sleep(0.2)
    assert scene.get().state == abi.AWAKE and scene.nices() == [0]
    scene.set(linger=2 * MS)
    scene.wait_sleepy()


def test_set_counts_as_admin(scenes):
    scene = scenes(linger=2 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    scene.set(linger=3 * MS)
    scene.wait_sleepy()
    assert scene.stats().wakes["admin"] == 1


# An administrator has the last word.


def test_foreign_nice_is_left_alone(scenes):
    scene = scenes(linger=2 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    tid = scene.tids[0]
    os.setpriority(os.PRIO_PROCESS, tid, 7)
    with scene.recording() as recording:
        for turn in range(3):
            scene.request(turn)
            assert host.nice_of(tid) == 7
            scene.answer(turn)
            host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
            assert host.nice_of(tid) == 7
        vcpu = scene.device.vcpus(scene.id)[0]
        assert vcpu.flags & abi.FOREIGN and not vcpu.flags & abi.MOVED
        assert vcpu.nice == 7
        scene.device.remove(scene.id)
    assert host.nice_of(tid) == 7
    assert recording.renices() == []


def test_foreign_nice_of_one_thread_only(scenes):
    scene = scenes(vcpus=2, linger=2 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    os.setpriority(os.PRIO_PROCESS, scene.tids[0], 4)
    scene.request()
    assert scene.nices() == [4, 0]
    by_tid = {vcpu.tid: vcpu for vcpu in scene.device.vcpus(scene.id)}
    assert by_tid[scene.tids[0]].flags & abi.FOREIGN
    assert not by_tid[scene.tids[1]].flags & abi.FOREIGN
    scene.answer()
    host.wait(lambda: scene.nices() == [4, 19], "the other one sleeps")
    scene.device.remove(scene.id)
    assert scene.nices() == [4, 0]


def test_foreign_nice_while_awake(scenes):
    """Also a change that comes while the VM is awake outlives everything that follows."""
    scene = scenes(linger=2 * MS, request_timeout=LONG, max_sleep=LONG)
    scene.wait_sleepy()
    scene.request()
    os.setpriority(os.PRIO_PROCESS, scene.tids[0], 6)
    scene.answer()
    host.wait(lambda: scene.stats().sleeps["response"], "asleep")
    scene.request()
    assert scene.nices() == [6]
    scene.device.remove(scene.id)
    assert scene.nices() == [6]


def test_remove_gives_back_boost_too(scenes):
    scene = scenes(linger=2 * MS, flags=abi.BOOST, boost_nice=-9, max_sleep=LONG)
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [-9]
    scene.device.remove(scene.id)
    assert scene.nices() == [0]
