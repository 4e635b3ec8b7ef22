# SPDX-License-Identifier: GPL-2.0-only
"""When an answer is over, and calls of the VM itself: segment by segment."""

import time

import pytest

from lib import abi, frames, host

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
PUSHED = frames.PSH | frames.ACK
MTU = 1500
FULL = b"x" * (MTU - 40)

CALL_PORT = 443
CALLS = [
    (abi.CLOSE, abi.TO_VM | abi.FROM_VM, frames.tcp_flag(frames.RST)),
    (abi.REQUEST, abi.TO_VM, frames.ipv4_port(17, True, 7)),
    (abi.RESPONSE, abi.FROM_VM, frames.ipv4_port(17, False, 7)),
    # A call goes to a port of somebody else, which in the frames of this test is the client's.
    (abi.REQUEST, abi.FROM_VM, frames.ipv4_port(6, True, CALL_PORT)),
    (abi.RESPONSE, abi.TO_VM, frames.ipv4_port(6, False, CALL_PORT)),
]


def call(scene, payload=b"call", flags=PUSHED, flow=0, again=False):
    scene.segment_from_vm(CALL_PORT, 30000 + flow, flags, payload, again)


def sleepy_vm(scenes, **how):
    scene = scenes(linger=1 * MS, max_sleep=LONG, request_timeout=LONG // 2, **how)
    scene.wait_sleepy()
    return scene


@pytest.mark.parametrize("flags, payload", [(frames.ACK, b"part"), (PUSHED, FULL)], ids=["not pushed", "full"])
def test_segment_with_more_behind_it(scenes, flags, payload):
    """It is awake until the last one; the answer's time is that of the first."""
    scene = sleepy_vm(scenes)
    scene.tcp_to_vm(PUSHED, b"?")
    for _ in range(10):
        scene.tcp_from_vm(flags, payload)
        time.sleep(0.03)
        vm = scene.get()
        assert vm.state == abi.AWAKE and vm.in_flight == 1
    scene.tcp_from_vm(PUSHED, b"the end")
    scene.wait_sleeps("response")
    stats = scene.stats()
    assert stats.responses == 11 and sum(stats.exec_) == 1


def test_answer_whose_end_is_not_seen(scenes):
    scene = sleepy_vm(scenes)
    scene.tcp_to_vm(PUSHED, b"?")
    scene.tcp_from_vm(PUSHED, FULL)
    scene.wait_sleeps("response")
    stats = scene.stats()
    assert stats.timeouts == 0 and stats.time["in_flight"] >= 200 * MS


def test_answer_that_is_pushed_in_between(scenes):
    """A short segment that is pushed does not end an answer of several."""
    scene = sleepy_vm(scenes)
    scene.tcp_to_vm(PUSHED, b"?")
    for _ in range(10):
        scene.tcp_from_vm(frames.ACK, b"part")
        time.sleep(0.01)
        scene.tcp_from_vm(PUSHED, b"pushed")
        time.sleep(0.005)
    assert scene.stats().sleeps["response"] == 0
    scene.wait_sleeps("response")


def test_two_requests_on_one_connection(scenes):
    """Each by itself, before the first is answered; the second answer takes as long as the first."""
    scene = sleepy_vm(scenes)
    scene.tcp_to_vm(PUSHED, b"1")
    scene.tcp_to_vm(PUSHED, b"2")
    time.sleep(0.3)
    scene.tcp_from_vm(PUSHED, b"1")
    time.sleep(0.2)
    assert scene.get().in_flight == 1
    scene.tcp_from_vm(PUSHED, b"2")
    assert scene.get().in_flight == 0
    scene.wait_sleeps("response")


def test_segments_of_one_request(scenes):
    scene = sleepy_vm(scenes)
    for _ in range(5):
        scene.tcp_to_vm(frames.ACK, b"part")
    scene.tcp_to_vm(PUSHED, b"the end")
    assert scene.get().in_flight == 1
    scene.tcp_from_vm(PUSHED, b"!")
    assert scene.get().in_flight == 0


def test_answer_in_pieces(scenes):
    """The second piece shows that the first was not the end: from then on it is awake between them."""
    scene = sleepy_vm(scenes)
    scene.request()
    scene.answer()
    scene.wait_sleeps("response")
    pause = 0.05
    time.sleep(pause)
    scene.answer()
    assert scene.get().state == abi.AWAKE and scene.nices() == [0]
    late = 0
    for _ in range(10):
        before = time.monotonic()
        time.sleep(pause)
        scene.answer()
        late = max(late, time.monotonic() - before)
    if late < 1.5 * pause:  # nobody held this test up
        assert scene.stats().sleeps["response"] == 1
    assert scene.stats().wakes["answer"] >= 1
    scene.wait_sleepy()


def test_sleeps_while_it_waits_for_an_answer(scenes):
    scene = scenes(add=False)
    scene.add(rules=CALLS, linger=1 * MS, max_sleep=LONG, request_timeout=LONG // 2)
    scene.wait_sleepy()
    for count in 1, 2, 3:
        scene.request()
        assert scene.get().in_flight == 1
        call(scene, flow=count)
        scene.wait_sleeps("call", count)
        vm = scene.get()
        assert (vm.in_flight, vm.calls) == (1, 1) and scene.is_sleepy()
        scene.host.send(frames.tcp(True, CALL_PORT, 30000 + count, PUSHED, b"answer"))
        vm = scene.get()
        assert (vm.in_flight, vm.calls, vm.state) == (1, 0, abi.AWAKE) and scene.nices() == [0]
        scene.answer()
        scene.wait_sleeps("response", count)
    stats = scene.stats()
    assert (stats.calls, stats.answers, stats.wakes["answer"], stats.wakes["request"]) == (3, 3, 3, 3)


@pytest.mark.parametrize("flags, payload", [(frames.ACK, b"part"), (PUSHED, FULL)], ids=["not pushed", "full"])
def test_call_that_is_not_all_said(scenes, flags, payload):
    """It is awake, and does not wait, until its last segment; one that comes from a sleepy VM wakes it."""
    scene = scenes(add=False)
    scene.add(rules=CALLS, linger=1 * MS, max_sleep=LONG, request_timeout=LONG // 2)
    scene.wait_sleepy()
    scene.request()
    for _ in range(5):
        call(scene, payload, flags)
        time.sleep(0.03)
        vm = scene.get()
        assert (vm.state, vm.in_flight, vm.calls) == (abi.AWAKE, 1, 0) and scene.nices() == [0]
    call(scene, b"the end")
    scene.wait_sleeps("call")
    assert scene.get().calls == 1 and scene.is_sleepy()
    call(scene, payload, flags)
    time.sleep(0.03)
    vm = scene.get()
    assert (vm.state, vm.in_flight, vm.calls) == (abi.AWAKE, 1, 0) and scene.nices() == [0]
    scene.answer()
    scene.wait_sleeps("response")
    call(scene, payload, flags)
    assert scene.stats().wakes["answer"] == 2
    scene.wait_sleeps("rest", 2)
    call(scene, b"the end")
    assert scene.stats().wakes["answer"] == 3
    scene.wait_sleeps("call", 2)
    assert scene.stats().calls == 9


def test_call_that_waits_for_room(scenes):
    """A sender may push in the midst of a long call. It is awake for a while then, and when some of the call has come."""
    scene = scenes(add=False)
    # What has no data is no answer.
    scene.add(rules=[*CALLS[:-1], (abi.RESPONSE, abi.TO_VM, frames.tcp_flag(frames.PSH))],
              linger=1 * MS, max_sleep=LONG, request_timeout=LONG // 2)
    scene.wait_sleepy()

    def acknowledge():
        scene.host.send(frames.tcp(True, CALL_PORT, 30000, frames.ACK))

    scene.request()
    call(scene, FULL)
    call(scene, b"pushed")
    for count in 1, 2, 3:
        scene.wait_sleeps("call", count)
        stats = scene.stats()
        assert stats.time["in_flight"] >= count * 200 * MS and scene.get().calls == 1
        acknowledge()
        assert scene.stats().wakes["answer"] == count
    scene.host.send(frames.tcp(True, CALL_PORT, 30000, PUSHED, b"answer"))
    scene.answer()
    scene.wait_sleeps("response")
    before = scene.stats().wakes["answer"]
    acknowledge()
    assert scene.stats().wakes["answer"] == before and scene.is_sleepy()


def test_call_that_is_reset(scenes):
    scene = scenes(add=False)
    scene.add(rules=CALLS, linger=200 * MS * host.SLOW, max_sleep=LONG)
    call(scene)
    scene.wait_sleeps("call")
    scene.host.send(frames.tcp(True, CALL_PORT, 30000, frames.RST))
    assert scene.get().calls == 0 and scene.stats().wakes["answer"] == 1 and scene.stats().closed == 1


@pytest.mark.fast
def test_call_that_is_never_answered(scenes):
    scene = scenes(add=False)
    linger = 200 * MS * host.SLOW
    scene.add(rules=CALLS, linger=linger, max_sleep=LONG, request_timeout=3 * linger)
    call(scene)
    scene.wait_sleeps("call")
    scene.wait_wakes("answer")
    assert scene.get().calls == 0
    scene.wait_sleeps("timeout")


def test_with_two_requests_it_waits_for_nobody(scenes):
    scene = scenes(add=False)
    scene.add(rules=CALLS, linger=1 * MS, max_sleep=LONG, request_timeout=LONG // 2)
    scene.wait_sleepy()
    for count in range(1, 6):
        scene.request(1)
        scene.request(2)
        call(scene)
        time.sleep(0.05 * host.SLOW)
        vm = scene.get()
        assert (vm.state, vm.in_flight, vm.calls) == (abi.AWAKE, 2, 1)
        scene.answer(2)
        scene.wait_sleeps("call", count)
        scene.host.send(frames.tcp(True, CALL_PORT, 30000, PUSHED, b"answer"))
        scene.answer(1)
        scene.wait_sleeps("response", count)


def test_answer_that_is_sent_again(scenes):
    """By a guest that was late to see that it had been acknowledged: it is none to what was asked meanwhile."""
    scene = sleepy_vm(scenes)
    for count in range(1, 4):
        scene.tcp_to_vm(PUSHED, b"?")
        if count > 1:
            scene.tcp_from_vm(PUSHED, b"the answer", again=True)
            time.sleep(0.03 * host.SLOW)
            vm = scene.get()
            assert (vm.state, vm.in_flight) == (abi.AWAKE, 1)
        scene.tcp_from_vm(PUSHED, b"the answer", seq=2**32 - 15)  # it goes past zero
        scene.wait_sleeps("response", count)
    assert scene.stats().responses == 5, "all are counted"


def test_call_that_is_sent_again(scenes):
    """By a guest that was late to see the answer: it does not wait for one any more."""
    scene = scenes(add=False)
    scene.add(rules=CALLS, linger=1 * MS, max_sleep=LONG, request_timeout=LONG // 2)
    scene.wait_sleepy()
    scene.request()
    call(scene)
    scene.wait_sleeps("call")
    scene.host.send(frames.tcp(True, CALL_PORT, 30000, PUSHED, b"the answer"))
    call(scene, again=True)
    time.sleep(0.03 * host.SLOW)
    vm = scene.get()
    assert (vm.state, vm.in_flight, vm.calls) == (abi.AWAKE, 1, 0)
    call(scene)
    scene.wait_sleeps("call", 2)
    scene.host.send(frames.tcp(True, CALL_PORT, 30000, PUSHED, b"the answer"))
    scene.answer()
    scene.wait_sleeps("response")
