# SPDX-License-Identifier: GPL-2.0-only
"""What is measured: time in each phase, on-CPU time, why vCPUs leave their CPU, and the histograms.

       test: packet socket  ->  st0 (tap)  ->  tiny VM
       test: packet socket  <-  st0        <-  test, through the tiny VM's tap descriptor
"""

import os
import time

import pytest

from lib import abi, actor, host

pytestmark = pytest.mark.core

MS, SECOND = abi.MS, abi.SECOND
LONG = 60 * SECOND


def bounds(bucket):
    """What a bucket counts, from src/uapi.rs's description."""
    if bucket < 4:
        return bucket, bucket + 1
    return (4 + bucket % 4) << (bucket // 4 - 1), (5 + bucket % 4) << (bucket // 4 - 1)


def test_phases_add_up(scenes):
    """Every nanosecond since it was added is in exactly one phase."""
    begin = time.monotonic_ns()
    scene = scenes(linger=100 * MS, max_sleep=LONG)
    added = time.monotonic_ns()
    time.sleep(0.2)
    scene.wait_sleepy()
    time.sleep(0.2)
    asked = time.monotonic_ns()
    scene.request()
    time.sleep(0.3)
    scene.answer()
    answered = time.monotonic_ns()
    before = time.monotonic_ns()
    stats = scene.stats()
    after = time.monotonic_ns()
    assert before - added <= sum(stats.time_) <= after - begin
    assert 300 * MS <= stats.time["in_flight"] <= answered - asked
    assert stats.time["idle"] >= 100 * MS
    assert stats.time["sleepy"] >= 150 * MS


def test_oncpu_of_a_spinning_vm(scenes, aside):
    """A vCPU that never stops, alone on its CPU, is on it nearly all of the time, in whatever phase."""
    scene = scenes(add=False)
    os.sched_setaffinity(scene.tids[0], {1})
    scene.add(linger=50 * MS, max_sleep=LONG)
    scene.attached()
    first = scene.stats()
    time.sleep(1)
    scene.request()
    time.sleep(0.5)
    stats, vcpu = scene.stats(), scene.device.vcpus(scene.id)[0]
    for phase in ("in_flight", "sleepy"):
        spent = stats.time[phase] - first.time[phase]
        on_cpu = stats.oncpu[phase] - first.oncpu[phase]
        assert 0.5 * spent <= on_cpu <= spent, f"{phase}: {on_cpu} of {spent}"
    # The same time, counted by the vCPU and by the VM.
    assert abs(sum(stats.oncpu_) - vcpu.oncpu) < 100 * MS * host.SLOW
    assert vcpu.flags & abi.ON_CPU
    assert vcpu.halted == 0


def test_preempted_is_not_blocked(scenes):
    """Two VMs that spin on one CPU take it from each other; neither ever blocks."""
    both = [scenes(add=False) for _ in range(2)]
    for scene in both:
        os.sched_setaffinity(scene.tids[0], {1})
        scene.add(linger=LONG, max_sleep=LONG)
    for scene in both:
        scene.attached()
    first = [scene.device.vcpus(scene.id)[0] for scene in both]
    time.sleep(0.7)
    for scene, start in zip(both, first):
        vcpu = scene.device.vcpus(scene.id)[0]
        assert vcpu.preempted > start.preempted
        assert vcpu.halted == start.halted == 0
        assert vcpu.blocked == start.blocked
    total = sum(scene.stats().time["idle"] for scene in both)
    assert sum(scene.stats().oncpu["idle"] for scene in both) <= 0.75 * total, "both on one CPU at once"


@pytest.mark.fast
def test_weight_takes_and_gives_cpu(scenes, aside):
    """The lever is real: of two VMs on one CPU, the sleepy one gets a small share, and all of it back."""
    asleep, busy = scenes(add=False), scenes(add=False)
    for scene in (asleep, busy):
        os.sched_setaffinity(scene.tids[0], {1})
    asleep.add(linger=1 * MS, max_sleep=LONG)
    busy.add(lever=abi.OBSERVE, linger=1 * MS, max_sleep=LONG)
    asleep.attached()
    busy.attached()
    asleep.wait_sleepy()
    assert asleep.share_beside(busy) < 0.15  # by weight: 15 / (15 + 1024)
    asleep.request()
    assert asleep.share_beside(busy) > 0.3  # by weight: 1/2


def test_halted(scenes):
    """A guest that halts leaves its CPU as halted, from inside of KVM."""
    scene = scenes(code="halt", irqchip=True, linger=1 * MS, max_sleep=LONG)
    for _ in range(6):
        # A signal lets KVM_RUN return, and the thread come back.
        scene.vmm.kick(scene.tids[0])
        time.sleep(0.02)
    scene.attached()
    first = scene.device.vcpus(scene.id)[0]
    for _ in range(10):
        scene.vmm.kick(scene.tids[0])
        time.sleep(0.02 * host.SLOW)
    vcpu = scene.device.vcpus(scene.id)[0]
    assert vcpu.halted >= first.halted + 5
    assert not vcpu.flags & abi.ON_CPU
    scene.wait_sleepy()


def test_blocked(scenes):
    """A thread that waits in its VMM is neither halted nor preempted."""
    scene = scenes(code="halt", linger=1 * MS, max_sleep=LONG)
    scene.attached()
    first = scene.device.vcpus(scene.id)[0]
    time.sleep(0.5)
    vcpu = scene.device.vcpus(scene.id)[0]
    assert vcpu.blocked >= first.blocked + 10
    assert vcpu.halted == 0


def test_execution_time(scenes):
    """The time from a request to its first answer falls into the right bucket."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    before = list(scene.stats().exec_)
    for turn in range(4):
        begin = time.monotonic_ns()
        scene.request(turn)
        sent = time.monotonic_ns()
        time.sleep(0.02 * (turn + 1))
        answering = time.monotonic_ns()
        scene.answer(turn)
        least, most = answering - sent, time.monotonic_ns() - begin
        after = list(scene.stats().exec_)
        bucket, = (index for index in range(len(after)) if after[index] != before[index])
        assert after[bucket] == before[bucket] + 1
        before = after
        lower, upper = bounds(bucket)
        assert lower <= most and upper >= least, f"{bounds(bucket)} instead of {least} to {most}"


def test_trigger_time_of_a_vm_without_cpu(scenes):
    """The trigger time lasts until a vCPU really has a CPU, not until it may have one."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.attached()
    scene.wait_sleepy()
    with host.stopped(scene.vmm.pid):
        host.wait(lambda: not scene.device.vcpus(scene.id)[0].flags & abi.ON_CPU, "off its CPU")
        begin = time.monotonic_ns()
        scene.request()
        assert sum(scene.stats().trigger) == 0
        time.sleep(0.2)
        continued = time.monotonic_ns()
    host.wait(lambda: sum(scene.stats().trigger) == 1, "it has a CPU")
    bucket = next(bucket for bucket, count in enumerate(scene.stats().trigger) if count)
    lower, upper = bounds(bucket)
    assert upper >= continued - begin - 50 * MS and lower <= time.monotonic_ns() - begin


def test_trigger_time_of_a_running_vm_is_zero(scenes, aside):
    scene = scenes(add=False)
    os.sched_setaffinity(scene.tids[0], {1})
    scene.add(linger=1 * MS, max_sleep=LONG)
    scene.attached()
    scene.wait_sleepy()
    for turn in range(20):
        scene.request(turn)
        scene.answer(turn)
    stats = scene.stats()
    assert stats.trigger[0] >= 10, "alone on its CPU, it was on it most of the time"


EFFECTS = [(abi.NICE, True), (abi.PARK, True), (abi.OBSERVE, False)]


@pytest.mark.parametrize("lever, has", EFFECTS, ids=["nice", "park", "observe"])
def test_effect(scenes, lever, has):
    """Each wake-up is measured once, whatever has woken it, and before the packet is let through."""
    scene = scenes(vcpus=2, lever=lever, linger=20 * MS, max_sleep=LONG)
    scene.attached()
    slowest = 0
    for turn in range(10):
        scene.wait_sleepy()
        begin = time.monotonic_ns()
        scene.request(turn)
        slowest = max(slowest, time.monotonic_ns() - begin)
        assert sum(scene.stats().effect) == (turn + 1 if has else 0)
        scene.answer(turn)
    assert all(count == 0 for bucket, count in enumerate(scene.stats().effect) if bounds(bucket)[0] > slowest)


@pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])
def test_effect_of_an_interrupt(scenes, lever):
    """It is carried out in a hard interrupt of its own."""
    scene = scenes(code="actor", irqchip=True, lever=lever, linger=20 * MS, max_sleep=LONG,
                   wake_on=abi.wake_on("interrupt"))
    scene.attached(1)
    for count in range(1, 6):
        scene.wait_sleepy()
        scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
        scene.wait_wakes("interrupt", count)
        host.wait(lambda: sum(scene.stats().effect) == count, "measured")


def test_last_times(scenes):
    """When the last request, its vCPU and its first answer were seen, by the clock that everybody has."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.attached()
    scene.wait_sleepy()
    last = lambda: scene.stats().last
    assert (last().request, last().ran, last().response) == (0, 0, 0)
    for turn in range(5):
        begin = time.monotonic_ns()
        scene.request(turn)
        sent = time.monotonic_ns()
        host.wait(lambda: last().ran, "it has a CPU")
        seen = last()
        assert begin <= seen.request <= sent and seen.request <= seen.ran <= time.monotonic_ns()
        assert seen.response == 0
        time.sleep(0.01)
        answering = time.monotonic_ns()
        scene.answer(turn)
        answered = last()
        assert (answered.request, answered.ran) == (seen.request, seen.ran)
        assert answering <= answered.response <= time.monotonic_ns() and answered.ran <= answered.response
        scene.answer(turn)
        assert last().response == answered.response, "only its first answer counts"
        scene.wait_sleepy()
    # Another flow's answer is not that of the last request.
    scene.request(1)
    scene.request(2)
    second = last().request
    scene.answer(1)
    assert (last().request, last().response) == (second, 0)
    scene.answer(2)
    assert last().response > second


def test_stats_begin_anew(scenes):
    scene = scenes(linger=1 * MS)
    scene.request()
    scene.answer()
    scene.device.remove(scene.id)
    scene.add(linger=1 * MS)
    stats = scene.stats()
    assert (stats.requests, stats.responses, sum(stats.exec_)) == (0, 0, 0)
    assert sum(stats.time_) < 2 * SECOND * host.SLOW
