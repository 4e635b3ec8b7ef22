# SPDX-License-Identifier: GPL-2.0-only
"""Guests, peers and VMMs that mean harm: what each can do is said in Documentation/threats.md."""

import collections
import errno
import itertools
import os
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lib import abi, actor, cgroup, frames, host, net
from lib.scene import RULES

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
FLOWS = 1_000_000 if host.FULL and not host.DEBUG else 20_000
# The module tells so many flows apart, and counts one more for all others.
TABLE = 64
# More packets than a tap's queue holds.
QUEUE = 2000
# Where a frame has its source address; and 10.0.0.0.
SOURCE, TEN = 26, 10 << 24


@pytest.mark.fast
def test_many_flows(scenes):
    """A peer that opens a flow with each packet, and a guest that answers none: awake for that, and not for longer."""
    timeout = 1000 * MS * host.SLOW
    scene = scenes(linger=1 * MS, max_sleep=LONG, request_timeout=timeout)
    scene.wait_sleepy()
    most, begun, grown = 0, 0, 0
    frame = bytearray(frames.udp(True, 10000, 7))
    for flow in range(FLOWS):
        struct.pack_into("!I", frame, SOURCE, TEN + flow)
        scene.host.send(frame)
        if flow % 100 == 0:
            vm = scene.get()
            assert vm.state == abi.AWAKE
            most = max(most, vm.in_flight)
        # The tap's queue is full after these.
        if flow == QUEUE:
            begun = host.kept()
        if flow > QUEUE and flow % 1000 == 0:
            grown = max(grown, host.kept() - begun)
    print(f"{grown} bytes more at most, with {FLOWS} flows")
    assert TABLE // 2 < most <= TABLE + 1
    # KASAN keeps what was freed, for a while.
    assert host.DEBUG or grown < (FLOWS - QUEUE) * 32, f"{grown} bytes for {FLOWS} flows: some for each"
    scene.wait_sleepy(seconds=5 + timeout / abi.SECOND)
    assert scene.get().in_flight == 0 and scene.stats().overflows > 0


def test_answers_in_the_name_of_another(scenes):
    """What a guest sends counts for that guest alone, whatever addresses it has."""
    victim, liar = scenes(add=False), scenes(add=False)
    for scene in victim, liar:
        scene.add(linger=1 * MS, max_sleep=LONG, request_timeout=LONG // 2)
        scene.wait_sleepy()
    victim.request()
    victim.tcp_to_vm(frames.PSH | frames.ACK, b"?")
    assert victim.get().in_flight == 2
    # The frames of both have the same addresses and ports: these are the victim's answers, but for where they come from.
    liar.answer()
    liar.tcp_from_vm(frames.PSH | frames.ACK, b"!")
    liar.tcp_from_vm(frames.RST)
    time.sleep(0.03 * host.SLOW)
    vm = victim.get()
    assert (vm.state, vm.in_flight) == (abi.AWAKE, 2)
    assert liar.get().state == abi.SLEEPY and liar.stats().wakes["request"] == 0
    victim.answer()
    victim.tcp_from_vm(frames.PSH | frames.ACK, b"!")
    victim.wait_sleeps("response")


@pytest.mark.fast
def test_sequence_numbers_of_a_liar(scenes):
    """A guest that sends nothing but what it has sent before says nothing: it is awake until its request is lost."""
    timeout = 500 * MS * host.SLOW
    scene = scenes(linger=1 * MS, max_sleep=LONG, request_timeout=timeout)
    scene.wait_sleepy()
    scene.tcp_to_vm(frames.PSH | frames.ACK, b"?")
    scene.tcp_from_vm(frames.PSH | frames.ACK, b"!")
    scene.wait_sleeps("response")
    scene.tcp_to_vm(frames.PSH | frames.ACK, b"?")
    for _ in range(1000):
        scene.tcp_from_vm(frames.PSH | frames.ACK, b"!", again=True)
    assert scene.stats().responses == 1001, "all are counted"
    scene.wait_sleeps("timeout", seconds=5 + timeout / abi.SECOND)


def test_added_while_its_vmm_exits(scenes, device, vmm):
    """Whoever comes first: it is refused, or it goes with its VMM, and neither leaves anything behind."""
    tap = scenes(add=False).tap
    with open("/proc/self/ns/net", "rb") as netns:
        links = [(netns.fileno(), net.ifindex(tap))]

        def add(pid):
            began = time.monotonic()
            device.add("racer", pid, links=links, rules=RULES)
            return time.monotonic() - began

        one = vmm()
        one.machine("halt", 2)
        references = host.refcount()
        takes = add(one.pid)
        device.clear()
        outcomes = collections.Counter()
        turns = host.turns(60)
        for turn in itertools.count():
            if turn >= turns and outcomes["added"] and len(outcomes) > 1:
                break
            assert turn < 10 * turns, f"always the same: {outcomes}"
            one = vmm()
            one.machine("halt", 2)
            pid, killer = one.pid, threading.Timer(4 * takes * turn / turns, one.stop)
            killer.start()
            try:
                add(pid)
                outcomes["added"] += 1
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ESTALE), error
                outcomes[error.errno] += 1
            killer.join()
            host.wait(lambda: not device.vms(), "it went with its VMM")
            assert net.exists(tap)
    print(f"{dict(outcomes)}")
    host.wait(lambda: host.refcount() == references, "no reference is left")


@pytest.mark.parametrize("what", ["machine", "vCPU"])
def test_descriptor_that_only_names_a_file(scenes, what):
    """By O_PATH. It has the file's name, and nothing behind it."""
    scene = scenes(add=False, code="halt")
    scene.vmm.point(scene.kvm_fd if what == "machine" else scene.vcpu_fd())
    scene.add()
    scanned = scene.get().n_vcpus
    number = scene.vmm.vcpu(scene.kvm_fd, 7, "halt")
    scene.vmm.run(number)
    host.wait(lambda: scene.get().n_vcpus == scanned + 1, "its new vCPU is found", 5)
    scene.device.remove(scene.id)


def test_descriptors_before_its_own(scenes):
    """They are looked at a part at a time: what the VM makes is found later, and so is that it is gone."""
    scene = scenes(add=False, code="halt")
    vcpus = [scene.vcpu_fd(), *(scene.vmm.vcpu(scene.kvm_fd, number, "halt") for number in (1, 2))]
    scene.vmm.halt(vcpus[0])
    scene.tids.clear()
    scene.add(linger=1 * MS, max_sleep=LONG)
    _, *vcpus = scene.vmm.crowd(10_000, scene.kvm_fd, *vcpus)
    for number, vcpu in enumerate(vcpus, 1):
        scene.tids.append(scene.vmm.run(vcpu))
        host.wait(lambda number=number: scene.get().n_vcpus == number, "its new thread is found", 8)
        scene.wait_sleepy()
    for vcpu in vcpus:
        scene.vmm.halt(vcpu)
    scene.vmm.stop()
    host.wait(lambda: not scene.device.vms(), "the VM is gone", 3)


def requests(scene):
    """Requests without end, of which none is answered, so that each is lost soon."""
    for flow in range(200):
        scene.request(flow)


FLOODS = {
    "requests": requests,
    "hints": lambda scene: scene.guest.tell(actor.HYPERCALLS, abi.HINT_HYPERCALL, abi.HINT_WAKE),
    "interrupts": lambda scene: scene.guest.tell(actor.STORM),
}


def worker():
    """The thread that moves VMs by `idle` and `cgroup`, in /proc."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended
            if path.read_text() == "sleepy\n":
                return path.parent
    raise AssertionError("there is no worker")


def oncpu(thread):
    """For how long it has had a CPU, in seconds."""
    return int((thread / "schedstat").read_text().split()[0]) / abi.SECOND


@pytest.mark.flavour("base", "previous")
@pytest.mark.parametrize("lever", [abi.IDLE, abi.GROUP], ids=["idle", "cgroup"])
def test_worker_of_one_that_floods(scenes, lever):
    """Everybody waits for the worker: a guest that is never the same for long has a small part of its time."""
    liar = scenes(add=False, code="actor", irqchip=True)
    with cgroup.group("vm") as group:
        group.take(liar.vmm.pid)
        with group.fd() as fd:
            liar.add(lever=lever, group_fd=fd if lever == abi.GROUP else -1, linger=0, max_sleep=LONG,
                     wake_on=abi.wake_on("request", "interrupt", "ipi"))
        liar.guest.tell(actor.STORM)
        time.sleep(2)  # until it has used what it has to begin with
        thread = worker()

        def is_small():
            woken, worked, began = sum(liar.stats().wakes.values()), oncpu(thread), time.monotonic()
            time.sleep(5)
            seconds, woken = time.monotonic() - began, sum(liar.stats().wakes.values()) - woken
            share = (oncpu(thread) - worked) / seconds
            print(f"awake {woken / seconds:.0f} times a second, {share:.1%} of the worker")
            return woken > 500 and share < 1 / 16

        # If an emulated host pauses while the worker has a CPU, that counts too.
        small = any(is_small() for _ in range(5))
        liar.vmm.stop()  # and so leaves the group
    assert small


@pytest.mark.flavour("base", "previous")  # on a debug kernel, what the host does for both is most of it
@pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_neighbour_of_one_that_floods(scenes, aside, flood, lever):
    """It has of their CPU what it has if sleepy knows only itself: a half. And it gets as much done, but for what the emulator
    may be late with."""
    liar = scenes(add=False, code="actor", irqchip=True)
    neighbour = scenes(add=False)
    for scene in liar, neighbour:
        os.sched_setaffinity(scene.tids[0], {1})
    everything = {"wake_on": abi.wake_on(*abi.WAKE_EVENTS), "sleep_on": abi.sleep_on("response", "hint")}
    liar.add(lever=lever, linger=1 * MS, max_sleep=LONG, request_timeout=5 * MS, stir_run=1 * MS, **everything)
    neighbour.add(lever=abi.OBSERVE)

    def floods():
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if liar.guest.ready() or flood is requests:
                flood(liar)
                time.sleep(0.001)

    def measured():
        threads = [Path(f"/proc/{scene.tids[0]}") for scene in (neighbour, liar)]
        before, progress = [oncpu(thread) for thread in threads], neighbour.progress()
        floods()
        mine, others = (oncpu(thread) - old for thread, old in zip(threads, before))
        return mine / (mine + others), neighbour.progress() - progress

    taken, done = measured()
    liar.device.remove(liar.id)
    without, could = measured()
    print(f"{taken:.2f} of their CPU, {without:.2f} without sleepy; {done} loops, {could} without")
    assert taken > without - 0.1 and taken > 0.35
    assert done > 0.6 * could
