# SPDX-License-Identifier: GPL-2.0-only
"""Guests, peers and VMMs that mean harm: what each can do is said in Documentation/threats.md."""

import threading
import time
from pathlib import Path

import pytest

from lib import abi, frames, host

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
FLOWS = 20_000
# The module tells so many flows apart, and counts one more for all others.
TABLE = 64


def slab():
    """Bytes of the kernel's objects that it cannot take back by itself."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SUnreclaim:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no SUnreclaim in /proc/meminfo")


def test_many_flows(scenes):
    """A peer that opens a flow with each packet, and a guest that answers none: awake for that, and not for longer."""
    timeout = 1000 * MS * host.SLOW
    scene = scenes(linger=1 * MS, max_sleep=LONG, request_timeout=timeout)
    scene.wait_sleepy()
    before, most = slab(), 0
    for flow in range(FLOWS):
        scene.request(flow)
        if flow % 100 == 0:
            vm = scene.get()
            assert vm.state == abi.AWAKE
            most = max(most, vm.in_flight)
    grown = slab() - before
    assert TABLE // 2 < most <= TABLE + 1
    # KASAN keeps what was freed, for a while.
    assert host.DEBUG or grown < 100 * FLOWS, f"{grown} bytes for {FLOWS} flows: some for each"
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


@pytest.mark.flavour("base", "previous")  # where it takes so long to add one, the VMM comes first each time
def test_added_while_its_vmm_exits(device, vmm):
    """Whoever comes first: it is refused, or it goes with its VMM."""
    outcomes = set()
    for turn in range(60):
        one = vmm()
        one.machine("halt")
        killer = threading.Timer(0.0005 * (turn % 10), one.stop)
        killer.start()
        time.sleep(0.002)
        try:
            device.add(f"r{turn}", one.pid)
            outcomes.add("added")
        except OSError:
            outcomes.add("refused")
        killer.join()
        host.wait(lambda: not device.vms(), "it went with its VMM")
    print(f"it was {' and '.join(sorted(outcomes))}")
    assert "added" in outcomes
