# SPDX-License-Identifier: GPL-2.0-only
"""The lever `park`: the vCPU threads of a sleepy VM wait in place of running."""

import os
import threading
import time

import pytest

from lib import abi, actor, frames, host, machine
from lib.scene import RULES

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
OTHER_PORT = frames.udp(True, 10000, 9)


def test_sleepy_spinner_takes_next_to_nothing(scenes):
    scene = scenes(lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=200 * MS, stir_run=1 * MS)
    scene.wait_parked()
    before = scene.device.vcpus(scene.id)[0].parked
    taken = scene.share(2)
    parks = scene.device.vcpus(scene.id)[0].parked - before
    assert 5 <= parks <= 14
    assert 0.001 < taken < 0.05


def test_request_unparks(scenes):
    scene = scenes(lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=10 * abi.SECOND, stir_run=1 * MS)
    for turn in range(20):
        scene.wait_sleepy()
        time.sleep(0.02)
        before = scene.oncpu()
        scene.request(turn)
        time.sleep(0.03)
        assert scene.oncpu() - before > 15 * MS
        scene.answer(turn)


def test_vm_gone_while_parked(scenes):
    scene = scenes(lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=3600 * abi.SECOND, stir_run=1 * MS)
    scene.wait_parked()
    began = time.monotonic()
    scene.device.remove(scene.id)
    assert time.monotonic() - began < 0.5
    host.wait(lambda: host.nice_of(scene.tids[0]) == 0, "restored")


def test_vmm_killed_while_parked(scenes):
    scene = scenes(lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=3600 * abi.SECOND, stir_run=1 * MS)
    scene.wait_parked()
    scene.vmm.stop()
    host.wait(lambda: scene.device.vms() == [], "gone")


def test_interrupt_ends_a_park(scenes):
    """KVM's own wake-up: the guest handles its interrupt, and stays sleepy."""
    scene = scenes(code="actor", irqchip=True, lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=30 * abi.SECOND,
                   stir_run=1 * MS)
    scene.wait_parked()
    for turn in range(20):
        before = scene.guest.interrupts()
        scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
        host.wait(lambda: scene.guest.interrupts() == before + 1, f"interrupt {turn} is handled; {scene}")
        time.sleep(0.02 * (turn % 3))
        assert scene.is_sleepy()


KNOWN = pytest.mark.parametrize("rules", [[], [(abi.IGNORE, abi.TO_VM, frames.ipv4_port(17, True, 9))]], ids=["unknown", "ignored"])


@pytest.mark.fast
@KNOWN
def test_packet_lets_it_run(scenes, rules):
    """One that is no request: whoever sends it is answered before `park_max`. Many let it run for no more than its share."""
    scene = scenes(add=False)
    scene.add(rules=[*RULES, *rules], lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=30 * abi.SECOND,
              stir_run=1 * MS)
    scene.wait_parked()
    before = scene.oncpu()
    scene.host.send(OTHER_PORT)
    host.wait(lambda: scene.oncpu() - before > 4 * MS, "it runs")
    time.sleep(0.1)
    assert scene.oncpu() - before < 50 * MS
    over = threading.Event()

    def flood():
        while not over.wait(0.001):
            scene.host.send(OTHER_PORT)

    sender = threading.Thread(target=flood)
    sender.start()
    taken = scene.share(3)
    over.set()
    sender.join()
    print(f"{taken:.3f} of a CPU")
    assert 0.02 < taken < 0.1
    assert scene.is_sleepy()


@pytest.mark.fast
@pytest.mark.parametrize("sends", ["nothing", "acknowledgement", "something"])
@KNOWN
def test_packet_of_which_a_guest_makes_nothing(scenes, rules, sends):
    """Perhaps it has not seen it: until the guest sends something, it runs for it again, each time after twice as long; at least once,
    unless a rule ignores it. To acknowledge it is not to answer."""
    scene = scenes(add=False)
    scene.add(rules=[*RULES, *rules], lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=1500 * MS, stir_run=1 * MS)
    scene.wait_parked()

    def parks():
        return scene.device.vcpus(scene.id)[0].parked

    # What it sends it has to send while it runs for the packet, for 10 ms; a test host without a CPU is later.
    for _ in range(10):
        before, ran, began = parks(), scene.oncpu(), time.monotonic()
        scene.host.send(OTHER_PORT)
        host.wait(lambda: scene.oncpu() > ran + 1 * MS, "it runs", step=0.001)
        if sends == "something":
            scene.answer()
        elif sends == "acknowledgement":
            scene.tcp_from_vm(frames.ACK)
        in_time = parks() == before
        time.sleep(max(0, began + 1.2 - time.monotonic()))
        if in_time or sends != "something":
            break
    # At once, after 100 ms, 300 ms and 700 ms.
    assert parks() - before == (4 if sends != "something" else 1 if rules else 2)


def test_acknowledgement_does_not(scenes):
    """What TCP sends for all that it gets, and to end a connection: nobody waits for what the guest makes of it. It runs for data."""
    scene = scenes(lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=30 * abi.SECOND, stir_run=1 * MS)
    scene.wait_parked()
    before = scene.oncpu()
    for flags in (frames.ACK, frames.FIN | frames.ACK, frames.RST):
        scene.host.send(frames.tcp(True, 10000, 9, flags))
    time.sleep(0.3)
    assert scene.oncpu() == before
    scene.host.send(frames.tcp(True, 10000, 9, frames.ACK, b"x"))
    host.wait(lambda: scene.oncpu() - before > 2 * MS, "it runs")


TOLD_TO = {"multicast": "01005e000001", "broadcast": "ffffffffffff", "ipv6": "333300000001"}
ASKED = {"arp": ("ffffffffffff", 0x0806), "ipv6": ("3333ff000002", 0x86DD), "vlan": ("ffffffffffff", 0x8100)}


@pytest.mark.parametrize("ignored", [True, False], ids=["ignored", "unknown"])
def test_packet_to_many(scenes, ignored):
    """Nobody waits for what the guest makes of it, if a rule ignores it, unless it asks one of them for an address."""
    scene = scenes(add=False)
    rules = [(abi.IGNORE, abi.TO_VM, frames.EVERYTHING)] if ignored else []
    scene.add(rules=rules, lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=30 * abi.SECOND, stir_run=1 * MS)
    scene.wait_parked()

    def send(target, kind):
        scene.host.send(bytes.fromhex(target) + frames.ethernet(True, kind, bytes(46))[6:])

    for target in TOLD_TO.values():
        before = scene.oncpu()
        send(target, 0x0800)
        time.sleep(0.3)
        assert (scene.oncpu() > before) != ignored
    for target, kind in ASKED.values():
        scene.wait_parked()
        before = scene.oncpu()
        send(target, kind)
        host.wait(lambda: scene.oncpu() - before > 4 * MS, f"it runs for {kind:#x}")
        scene.answer()


@pytest.mark.flavour("base", "previous")  # elsewhere it takes longer than that to park it
def test_interrupt_that_nobody_waits_for(scenes):
    """One for an acknowledgement, or for what the guest has sent, is worth less than one that may be of something else."""
    scene = scenes(code="actor", irqchip=True, lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=30 * abi.SECOND,
                   stir_run=1 * MS)
    scene.wait_parked()
    ran = {"acknowledged": [], "sent": [], "unknown": []}
    for kind in list(ran) * 5:
        before = scene.oncpu()
        if kind == "acknowledged":
            scene.host.send(frames.tcp(True, 10000, 9, frames.ACK))
        elif kind == "sent":
            scene.answer()
        scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
        host.wait(lambda: scene.oncpu() > before, f"it runs; {scene}")
        host.wait(lambda: not scene.device.vcpus(scene.id)[0].flags & abi.ON_CPU, "it is parked again")
        ran[kind].append(scene.oncpu() - before)
    # The host may be late to park it, now and then; and on a busy host an interrupt may come just as it runs once more for the last one.
    long = sorted(ran["unknown"])[-2]
    assert 2 * max(min(ran["acknowledged"]), min(ran["sent"])) < long and long > 8 * MS, ran


def test_interrupts_in_a_row(scenes):
    """However many, and also one that comes when the guest is just about to be parked: each is handled long before `park_max`."""
    scene = scenes(code="actor", irqchip=True, lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=3600 * abi.SECOND,
                   stir_run=1 * MS)
    scene.wait_parked()
    for turn in range(host.turns(200)):
        before = scene.guest.interrupts()
        scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
        host.wait(lambda: scene.guest.interrupts() == before + 1, f"interrupt {turn} is handled; {scene}")
    assert scene.is_sleepy()


def test_guest_that_halts_is_let_do_so(scenes):
    """When its VM falls asleep, one that gives its CPU away by itself is not parked at once; one that does not, is."""
    scene = scenes(code="actor", irqchip=True, lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=60 * abi.SECOND,
                   stir_run=20 * MS)
    scene.wait_parked()
    ran = {True: [], False: []}
    for turn, halts in enumerate([True, False] * 3):
        scene.request(turn)
        if halts:
            halted = scene.device.vcpus(scene.id)[0].halted
            scene.guest.do(actor.HLT)
            host.wait(lambda: scene.device.vcpus(scene.id)[0].halted > halted, "it has halted")
            scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
        host.wait(lambda: scene.device.vcpus(scene.id)[0].flags & abi.ON_CPU, "it runs")
        vcpu, = scene.device.vcpus(scene.id)
        scene.answer(turn)
        host.wait(lambda: scene.device.vcpus(scene.id)[0].parked > vcpu.parked, "it is parked")
        ran[halts].append(scene.oncpu() - vcpu.oncpu)
    assert 75 * MS < min(ran[True]) and sorted(ran[False])[1] < 40 * MS, ran


def test_all_vcpus_run_together(scenes):
    """After each park; and for as long."""
    scene = scenes(vcpus=4, lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=100 * MS, stir_run=2 * MS)
    scene.wait_parked()
    before = scene.device.vcpus(scene.id)
    time.sleep(3)
    after = scene.device.vcpus(scene.id)
    parks = [one.parked - other.parked for one, other in zip(after, before)]
    ran = [one.oncpu - other.oncpu for one, other in zip(after, before)]
    assert min(parks) > 5 and max(parks) - min(parks) <= 2 + max(parks) // 10, parks
    assert max(ran) < 2 * min(ran), ran


def test_cpu_goes_while_it_is_parked(scenes):
    """The one that a thread was on, and the only one that it may be on. Asked, it runs, on whichever there is."""
    scene = scenes(vcpus=2, lever=abi.PARK, linger=1 * MS, max_sleep=LONG, park_max=3600 * abi.SECOND, stir_run=1 * MS)

    def ask(turn):
        scene.request(turn)
        scene.wait_runs()
        scene.answer(turn)

    try:
        for turn in range(4):
            for tid in scene.tids:
                os.sched_setaffinity(tid, {1})
            scene.wait_parked()
            machine.CPU1.write_text("0")
            ask(turn)
            scene.wait_parked()
            machine.CPU1.write_text("1")
            ask(turn)
    finally:
        machine.CPU1.write_text("1")
