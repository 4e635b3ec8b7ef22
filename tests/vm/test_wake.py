# SPDX-License-Identifier: GPL-2.0-only
"""A request wakes its VM before the VM can see it; what is answered, closed or lost lets it sleep.

       test: packet socket  ->  st0 (tap)  ->  tiny VM (its vCPUs spin)
       test: packet socket  <-  st0        <-  test, through the tiny VM's tap descriptor
"""

import os
import time

import pytest

from lib import abi, frames, host, trace

pytestmark = pytest.mark.core

MS = abi.MS
ROUNDS = host.turns(40)
LENGTH = len(frames.udp(True, 10000, 7, b"?"))


@pytest.mark.parametrize("vcpus", [1, 2])
def test_weight_is_back_before_delivery(scenes, vcpus):
    """For every request, from each CPU: every vCPU thread is at its baseline when the tap's queue gets it."""
    scene = scenes(vcpus=vcpus, linger=1 * MS, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    cpus = sorted(os.sched_getaffinity(0))
    with scene.recording() as recording:
        try:
            for turn in range(ROUNDS):
                os.sched_setaffinity(0, {cpus[turn % len(cpus)]})
                scene.wait_sleepy()
                scene.request(turn)
                scene.vm.expect(frames.udp(True, 10000 + turn, 7, b"?"))
                scene.answer(turn)
        finally:
            os.sched_setaffinity(0, cpus)
        scene.wait_sleepy()
    deliveries = recording.deliveries(scene.tap, dict.fromkeys(scene.tids, 19), LENGTH)
    assert len(deliveries) == ROUNDS
    assert {event.cpu for _, event in deliveries} == set(cpus)
    late = [(event.time, nices) for nices, event in deliveries if set(nices.values()) != {0}]
    assert not late, "delivered to a VM without its weight"
    for tid in scene.tids:
        # Sleepy before each of them: otherwise nothing was shown.
        assert recording.nices(tid) == [0, 19] * ROUNDS
    stats = scene.stats()
    assert stats.wakes["request"] == ROUNDS
    assert stats.sleeps["response"] == ROUNDS
    assert sum(stats.exec_) == ROUNDS
    # A request that comes while an earlier one still waits for a vCPU to get a CPU has no time of its own.
    assert 0 < sum(stats.trigger) <= ROUNDS


def test_concurrent_requests_from_all_cpus(scenes):
    """Requests that race for the same wake-up: none of them is delivered before it is complete."""
    scene = scenes(vcpus=2, linger=1 * MS, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    cpus = sorted(os.sched_getaffinity(0))
    rounds = ROUNDS // 2
    with scene.recording() as recording:
        for turn in range(rounds):
            scene.wait_sleepy()
            start = time.monotonic() + 0.01
            senders = [fork_sender(scene, cpu, start, turn * len(cpus) + at) for at, cpu in enumerate(cpus)]
            for sender in senders:
                assert os.waitpid(sender, 0)[1] == 0
            for at in range(len(cpus)):
                scene.answer(turn * len(cpus) + at)
        scene.wait_sleepy()
    deliveries = recording.deliveries(scene.tap, dict.fromkeys(scene.tids, 19), LENGTH)
    assert len(deliveries) == rounds * len(cpus)
    assert all(set(nices.values()) == {0} for nices, _ in deliveries), "delivered without its weight"
    assert scene.stats().wakes["request"] == rounds


def fork_sender(scene, cpu, start, flow):
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setaffinity(0, {cpu})
            while time.monotonic() < start:
                pass
            scene.request(flow)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def test_two_flows_keep_it_awake_until_both_are_answered(scenes):
    scene = scenes(linger=2 * MS, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    with scene.recording() as recording:
        scene.request(1)
        scene.request(2)
        assert scene.get().in_flight == 2
        scene.answer(1)
        time.sleep(0.2 * host.SLOW)
        assert scene.get().in_flight == 1
        assert scene.get().state == abi.AWAKE
        recording.mark("second answer")
        scene.answer(2)
        scene.wait_sleepy()
    (_, woken), (asleep, nice) = recording.renices(scene.tids[0])
    assert (woken, nice) == (0, 19)
    assert asleep > recording.marks()["second answer"]
    assert scene.stats().sleeps["response"] == 1


def test_request_of_several_packets_is_one_flow(scenes):
    scene = scenes(linger=2 * MS, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    for payload in (b"a", b"b" * 400, b"c"):
        scene.request(1, payload)
    assert scene.get().in_flight == 1
    scene.answer(1)
    scene.wait_sleepy()
    stats = scene.stats()
    assert (stats.requests, stats.responses) == (3, 1)
    assert sum(stats.exec_) == 1


@pytest.mark.parametrize("side", ["host", "vm"])
def test_reset_frees_the_flow(scenes, side):
    scene = scenes(linger=2 * MS, request_timeout=60 * abi.SECOND, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    scene.tcp_to_vm(frames.PSH | frames.ACK, b"GET /")
    assert scene.get().in_flight == 1 and scene.nices() == [0]
    send = scene.tcp_to_vm if side == "host" else scene.tcp_from_vm
    send(frames.RST)
    scene.wait_sleepy()
    stats = scene.stats()
    assert (stats.closed, stats.responses, stats.sleeps["close"]) == (1, 0, 1)
    assert sum(stats.exec_) == 0, "a close is no answer"


def test_reset_of_another_flow_frees_nothing(scenes):
    scene = scenes(linger=2 * MS, request_timeout=60 * abi.SECOND, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    scene.tcp_to_vm(frames.PSH | frames.ACK, b"GET /", flow=1)
    scene.tcp_to_vm(frames.RST, flow=2)
    time.sleep(0.1 * host.SLOW)
    assert (scene.get().in_flight, scene.get().state) == (1, abi.AWAKE)
    assert scene.stats().closed == 0


def test_close_without_request_wakes_nothing(scenes):
    scene = scenes(linger=2 * MS, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    with scene.recording() as recording:
        scene.tcp_to_vm(frames.RST)
        scene.tcp_from_vm(frames.FIN | frames.ACK)
        time.sleep(0.05)
    assert recording.renices() == []
    assert scene.get().state == abi.SLEEPY


def test_what_no_rule_matches_wakes_nothing(scenes):
    scene = scenes(linger=2 * MS, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    with scene.recording() as recording:
        scene.host.send(frames.udp(True, 10000, 8))      # another port
        scene.host.send(frames.udp(False, 10000, 7))     # an answer, the wrong way
        scene.vm.send(frames.udp(True, 10000, 7))        # a request, the wrong way
        scene.host.send(frames.ethernet(True, 0x0806, b"\0" * 46))
        scene.vm.send(frames.udp(False, 10000, 8))
        time.sleep(0.05)
    assert len(recording.frames(trace.OUT, scene.tap)) == 3
    assert len(recording.frames(trace.IN, scene.tap)) == 2
    assert recording.renices() == []
    stats = scene.stats()
    assert (stats.requests, stats.responses) == (0, 0)


def test_first_rule_that_matches_counts(scenes):
    """An IGNORE rule hides a packet from the rules behind it, in its own direction only."""
    scene = scenes(add=False)
    port = frames.ipv4_port(17, True, 7)
    scene.add(linger=2 * MS, max_sleep=60 * abi.SECOND, rules=[
        (abi.IGNORE, abi.FROM_VM, frames.EVERYTHING),
        (abi.IGNORE, abi.TO_VM, frames.ipv4_port(17, True, 9)),
        (abi.REQUEST, abi.TO_VM, frames.NOTHING),
        (abi.REQUEST, abi.TO_VM, port),
        (abi.CLOSE, abi.TO_VM, port),
        (abi.RESPONSE, abi.FROM_VM, frames.EVERYTHING),
    ])
    scene.wait_sleepy()
    scene.host.send(frames.udp(True, 10000, 9))
    assert scene.stats().requests == 0 and scene.get().state == abi.SLEEPY
    scene.request()
    assert scene.stats().requests == 1 and scene.get().in_flight == 1
    scene.answer()
    time.sleep(0.05)
    assert scene.stats().responses == 0 and scene.get().in_flight == 1


def test_vms_do_not_wake_each_other(scenes):
    one, other = scenes(linger=2 * MS, max_sleep=60 * abi.SECOND), scenes(linger=2 * MS, max_sleep=60 * abi.SECOND)
    one.wait_sleepy()
    other.wait_sleepy()
    with one.recording(other) as recording:
        one.request()
        other.answer()
        assert one.get().in_flight == 1
        one.answer()
        one.wait_sleepy()
    assert recording.nices(other.tids[0]) == []
    assert recording.nices(one.tids[0]) == [0, 19]
    assert other.stats().requests == 0


@pytest.mark.fast
def test_full_flow_table_is_in_flight(scenes):
    """More flows than it can tell apart: it stays awake, until they are answered and the rest is lost."""
    # Long enough for all packets below, which take their time on a debug kernel.
    timeout = 15 if host.DEBUG else 4
    scene = scenes(linger=2 * MS, request_timeout=timeout * abi.SECOND, max_sleep=60 * abi.SECOND)
    scene.wait_sleepy()
    flows = 150
    for flow in range(flows):
        scene.request(flow)
        scene.vm.drain()
    stats = scene.stats()
    assert stats.overflows > 0
    for flow in range(flows):
        scene.answer(flow)
    assert scene.get().state == abi.AWAKE, "a flow that is not answered, as far as it knows, is in flight"
    scene.wait_sleeps("timeout", seconds=timeout + 5)
    stats = scene.stats()
    assert stats.requests == flows and stats.responses == flows
    assert stats.timeouts >= 1
    scene.request(1)
    assert scene.get().in_flight == 1
