# SPDX-License-Identifier: GPL-2.0-only
"""When a VM falls asleep and is stirred, by the trace's own clock.

       test: packet socket  ->  st0 (tap)  ->  tiny VM
       test: packet socket  <-  st0        <-  test, through the tiny VM's tap descriptor

Never too early is exact. Too late is judged by the median, since the emulator may be kept waiting itself.
"""

import statistics
import time

import pytest

from lib import abi, frames, host, trace

pytestmark = pytest.mark.core

MS = abi.MS
MICROSECOND = 1000  # the trace's resolution
BOUND = 60 * MS * host.SLOW
ROUNDS = 8


def follow(times, after):
    """The first of these times that is not before `after`."""
    return next(time for time in times if time >= after)


def check(delays, least):
    assert min(delays) >= least - MICROSECOND, f"too early: {delays}"
    assert statistics.median(delays) <= least + BOUND, f"too late: {delays}"


def check_median(delays, expected):
    assert expected // 2 <= statistics.median(delays) <= expected + BOUND, f"not {expected}: {delays}"


@pytest.mark.parametrize("linger", [MS // 5, 20 * MS, 150 * MS])
def test_sleepy_after_linger(scenes, linger):
    scene = scenes(linger=linger, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    with scene.recording() as recording:
        for turn in range(ROUNDS):
            scene.request(turn)
            scene.answer(turn)
            scene.wait_sleepy()
    answers = [event.time for event in recording.frames(trace.IN, scene.tap)]
    slept = [at for at, nice in recording.renices(scene.tids[0]) if nice == 19]
    assert len(answers) == len(slept) == ROUNDS
    check([at - answer for at, answer in zip(slept, answers)], linger)


def test_linger_counts_from_the_last_packet(scenes):
    """Packets of an answer that come while it lingers keep it awake for `linger` more."""
    linger = 200 * MS
    scene = scenes(linger=linger, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    with scene.recording() as recording:
        scene.request()
        for _ in range(6):
            scene.answer()
            time.sleep(0.03)
        scene.wait_sleepy()
    answers = recording.frames(trace.IN, scene.tap)
    assert len(answers) == 6
    renices = recording.renices(scene.tids[0])
    gaps = [b.time - a.time for a, b in zip(answers, answers[1:])]
    if max(gaps) < linger:  # the emulator was not held up longer than that
        assert [nice for _, nice in renices] == [0, 19]
    assert renices[-1][0] - answers[-1].time >= linger - MICROSECOND


def test_lost_request_frees_it_after_request_timeout(scenes):
    timeout, linger = 150 * MS, 10 * MS
    scene = scenes(linger=linger, request_timeout=timeout, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    with scene.recording() as recording:
        for turn in range(4):
            recording.mark(f"request {turn}")
            scene.request(turn)
            scene.wait_sleeps("timeout", turn + 1)
            scene.wait_sleepy()
    marks = recording.marks()
    slept = [at for at, nice in recording.renices(scene.tids[0]) if nice == 19]
    check([at - marks[f"request {turn}"] for turn, at in enumerate(slept)], timeout + linger)
    stats = scene.stats()
    assert (stats.timeouts, stats.sleeps["timeout"], stats.wakes["request"]) == (4, 4, 4)


@pytest.mark.fast
def test_repeated_request_is_not_lost(scenes):
    """Retransmission shows that the client still waits: its timeout begins anew."""
    timeout = 400 * MS * host.SLOW
    scene = scenes(linger=2 * MS, request_timeout=timeout, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    with scene.recording() as recording:
        for turn in range(8):
            recording.mark(f"{turn}")
            scene.request()
            time.sleep(0.1 * host.SLOW)
        timeouts = scene.stats().timeouts
        recording.mark("end")
    times = sorted(recording.marks().values())
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert sum(gaps) > 2 * timeout
    if max(gaps) < timeout:  # the emulator was not held up longer than that
        assert recording.nices(scene.tids[0])[:1] == [0]
        assert timeouts == 0


@pytest.mark.fast
def test_other_flow_does_not_prolong_a_lost_one(scenes):
    timeout = 300 * MS * host.SLOW
    scene = scenes(linger=2 * MS, request_timeout=timeout, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    scene.request(1)
    end = time.monotonic() + 2 * timeout / abi.SECOND
    while time.monotonic() < end:
        scene.request(2)
        scene.answer(2)
        scene.vm.drain()
        time.sleep(0.02)
    stats = scene.stats()
    assert stats.timeouts == 1
    host.wait(lambda: scene.get().in_flight == 0, "nothing in flight")


def test_max_sleep_stirs(scenes):
    """Whatever happens, a sleepy VM runs for `linger` every `max_sleep`."""
    max_sleep, linger = 100 * MS, 30 * MS
    scene = scenes(linger=linger, max_sleep=max_sleep)
    scene.wait_sleepy()
    before = scene.stats().wakes["stir"]
    with scene.recording() as recording:
        host.wait(lambda: scene.stats().wakes["stir"] > before + ROUNDS, "stirred", 10)
    renices = recording.renices(scene.tids[0])
    slept = [at for at, nice in renices if nice == 19]
    woken = [at for at, nice in renices if nice == 0]
    # What the module goes by is when the timer fired, which may be well before the thread was moved.
    check_median([follow(woken, at) - at for at in slept if at < woken[-1]], max_sleep)
    check_median([follow(slept, at) - at for at in woken if at < slept[-1]], linger)
    stats = scene.stats()
    assert stats.wakes["request"] == 0
    assert stats.sleeps["rest"] >= ROUNDS


@pytest.mark.fast
def test_request_while_stirred(scenes):
    """A request that finds it awake is in flight like any other."""
    scene = scenes(linger=300 * MS * host.SLOW, max_sleep=20 * MS)
    host.wait(lambda: scene.stats().wakes["stir"] and scene.get().state == abi.AWAKE, "stirred")
    scene.request()
    assert scene.get().in_flight == 1
    time.sleep(0.5 * host.SLOW)
    assert scene.get().state == abi.AWAKE
    scene.answer()
    scene.wait_sleeps("response")


def test_awake_at_first_then_quiet(scenes):
    scene = scenes(linger=300 * MS * host.SLOW, max_sleep=60 * abi.SECOND)
    assert scene.get().state == abi.AWAKE and scene.nices() == [0]
    scene.wait_sleepy()
    stats = scene.stats()
    assert stats.sleeps["rest"] == 1
    assert sum(stats.wakes.values()) == 0


def test_ports_and_families_are_different_flows(scenes):
    """IPv6 and IPv4, and each port, are flows of their own."""
    scene = scenes(add=False)
    everything = [(abi.REQUEST, abi.TO_VM, frames.EVERYTHING), (abi.RESPONSE, abi.FROM_VM, frames.EVERYTHING)]
    scene.add(rules=everything, linger=2 * MS, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    flows = [{"ipv6": False}, {"ipv6": True}]
    sent = 0
    for how in flows:
        for port in (1000, 1001, 1002):
            scene.host.send(frames.udp(True, port, 7, **how))
            sent += 1
            assert scene.get().in_flight == sent
    for how in flows:
        for port in (1002, 1000, 1001):
            scene.vm.send(frames.udp(False, port, 7, **how))
            sent -= 1
            assert scene.get().in_flight == sent
    scene.wait_sleepy()
