# SPDX-License-Identifier: GPL-2.0-only
"""What a thread and a control group had before, they get back exactly; and nobody else is touched."""

import os
import re
import threading
import time
from pathlib import Path

import pytest

from lib import abi, caller, cgroup, host, net, plug, sched
from lib.tuned import LEVERS, Tuned

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND


@LEVERS
def test_wake_restores(tuned, lever):
    tuned.add(lever)
    for turn in range(5):
        tuned.wait_lowered(lever)
        tuned.scene.request(turn)
        if lever in (abi.NICE, abi.PARK):
            assert tuned.is_restored(), "before the packet hook returns"
        tuned.wait_restored()
        tuned.scene.answer(turn)


@LEVERS
def test_removal_restores(tuned, lever):
    tuned.add(lever)
    tuned.wait_lowered(lever)
    tuned.scene.device.remove(tuned.scene.id)
    assert tuned.is_restored()


@LEVERS
def test_change_of_lever_restores(tuned, lever):
    tuned.add(lever)
    tuned.wait_lowered(lever)
    tuned.scene.set(lever=abi.OBSERVE)
    assert tuned.is_restored()


@LEVERS
def test_link_that_is_lost_restores(tuned, lever):
    tuned.add(lever)
    tuned.wait_lowered(lever)
    net.ip(f"link del {tuned.scene.tap}")
    tuned.wait_restored()


@LEVERS
@pytest.mark.parametrize("awake", [False, True], ids=["sleepy", "awake"])
def test_vmm_killed(tuned, lever, awake):
    """Its group is left as it was found."""
    tuned.add(lever)
    tuned.wait_lowered(lever)
    if awake:
        tuned.scene.request()
    tuned.scene.vmm.stop()
    host.wait(lambda: tuned.scene.device.vms() == [], "the VM is gone")
    host.wait(lambda: tuned.weights() == Tuned.WEIGHT, "the group is as it was")


def test_group_is_removed_after_its_vmm(scenes):
    """Before sleepy has seen that: there is nothing to restore."""
    for _ in range(10):
        with cgroup.group("vm") as group:
            tuned = Tuned(scenes(vcpus=2, add=False), group)
            tuned.add(abi.GROUP)
            tuned.wait_lowered(abi.GROUP)
            tuned.scene.vmm.stop()
        host.wait(lambda: tuned.scene.device.vms() == [], "the VM is gone")


def test_group_is_removed_while_its_vm_lives(scenes):
    """The VM goes on in the group that it is in now, and nobody takes a new group of that name for the old one."""
    path = cgroup.ROOT / "vm"
    with cgroup.group("other") as other, cgroup.group("vm") as group:
        tuned = Tuned(scenes(vcpus=2, add=False), group)
        tuned.add(abi.GROUP)
        tuned.wait_lowered(abi.GROUP)
        other.take(tuned.scene.vmm.pid)
        path.rmdir()
        path.mkdir()
        for turn in range(5):
            tuned.scene.request(turn)
            host.wait(lambda: tuned.scene.get().state == abi.AWAKE, "awake")
            tuned.scene.answer(turn)
            host.wait(lambda: tuned.scene.get().state == abi.SLEEPY, "asleep")
            assert tuned.scene.get().flags_out & abi.VM_GROUP_LEFT
            assert (group.read("cpu.weight"), group.read("cpu.idle")) == ("100", "0")
        tuned.scene.device.remove(tuned.scene.id)
        assert tuned.attrs() == tuned.threads
        assert (other.read("cpu.weight"), other.read("cpu.idle")) == ("100", "0")
        tuned.scene.vmm.stop()


def test_group_is_delegated(tuned):
    """Whoever it was given to says what its weight is: that stays, and sleepy keeps its hands off."""
    path = tuned.group.path

    def user():
        caller.become_nobody()
        (path / "inner").mkdir()
        tuned.group.write("cpu.idle", 0)
        tuned.group.write("cpu.weight", 77)
        (path / "inner").rmdir()
        return "done"

    tuned.add(abi.GROUP)
    tuned.wait_lowered(abi.GROUP)
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cpu.weight", "cpu.idle"):
        os.chown(path / name, caller.NOBODY, caller.NOBODY)
    assert caller.in_child(user) == "done"
    tuned.scene.request()
    host.wait(lambda: tuned.scene.get().flags_out & abi.VM_GROUP_FOREIGN, "it is seen")
    tuned.scene.answer()
    host.wait(lambda: tuned.scene.get().state == abi.SLEEPY, "asleep")
    time.sleep(0.05)
    assert tuned.weights() == {"cpu.weight": "77", "cpu.idle": "0"}
    tuned.scene.device.remove(tuned.scene.id)
    assert tuned.weights() == {"cpu.weight": "77", "cpu.idle": "0"}


@LEVERS
def test_stopped_vmm_is_restored(tuned, lever):
    """A VMM that does not run holds nothing up."""
    tuned.add(lever)
    tuned.wait_lowered(lever)
    with host.stopped(tuned.scene.vmm.pid):
        tuned.scene.device.remove(tuned.scene.id)
        assert tuned.is_restored()


@LEVERS
def test_cpu_goes_and_comes(tuned, lever):
    tuned.add(lever, max_sleep=20 * MS)
    online = Path("/sys/devices/system/cpu/cpu1/online")
    for turn in range(4):
        online.write_text("0")
        tuned.scene.request(turn)
        tuned.wait_restored()
        tuned.scene.answer(turn)
        tuned.wait_lowered(lever)
        online.write_text("1")
        tuned.scene.request(turn)
        tuned.scene.answer(turn)
        tuned.wait_lowered(lever)
    tuned.scene.device.remove(tuned.scene.id)
    assert tuned.is_restored()


@LEVERS
def test_moved_to_other_cpus(tuned, lever):
    """An administrator's affinity and cpuset stay."""
    tuned.add(lever)
    tuned.wait_lowered(lever)
    os.sched_setaffinity(tuned.scene.tids[0], {1})
    tuned.group.write("cpuset.cpus", "1")
    tuned.scene.request()
    tuned.wait_restored()
    tuned.scene.answer()
    tuned.wait_lowered(lever)
    tuned.scene.device.remove(tuned.scene.id)
    assert tuned.is_restored()
    assert [os.sched_getaffinity(tid) for tid in tuned.scene.tids] == [{1}, {1}]
    assert tuned.group.read("cpuset.cpus") == "1"


@LEVERS
def test_moved_to_another_group(tuned, lever):
    """The group that it has come to is not touched, nor does it keep what the old one had."""
    tuned.add(lever)
    tuned.wait_lowered(lever)
    with cgroup.group("other") as other:
        other.write("cpu.weight", 33)
        other.take(tuned.scene.vmm.pid)
        assert (tuned.scene.get().flags_out == abi.VM_GROUP_LEFT) == (lever == abi.GROUP)
        tuned.scene.request()
        tuned.wait_restored()
        tuned.scene.answer()
        tuned.wait_lowered(lever)
        assert other.read("cpu.weight") == "33"
        tuned.scene.device.remove(tuned.scene.id)
        assert tuned.is_restored() and other.read("cpu.weight") == "33"


@LEVERS
def test_two_callers_at_once(tuned, lever):
    """Each change is whole: what is left is the lever that was set last."""
    tuned.add(lever)
    over, errors = threading.Event(), []

    def change(wanted):
        policy = tuned.scene.policy.but(lever=wanted)
        with abi.Device() as device, tuned.group.fd() as fd:
            while not over.is_set():
                try:
                    device.set(tuned.scene.id, policy, fd if wanted == abi.GROUP else -1)
                except OSError as error:
                    errors.append(error)

    callers = [threading.Thread(target=change, args=(wanted,)) for wanted in (lever, abi.NICE, abi.GROUP)]
    for caller in callers:
        caller.start()
    for turn in range(30):
        tuned.scene.request(turn)
        time.sleep(0.01)
        tuned.scene.answer(turn)
    over.set()
    for caller in callers:
        caller.join()
    assert not errors
    tuned.wait_lowered(tuned.scene.get().policy.lever)
    tuned.scene.device.remove(tuned.scene.id)
    assert tuned.is_restored()


# Others


def helpers(pid, vcpus):
    """The VMM's other threads, and KVM's and vhost's for it: {name and id: place}."""
    found = {tid: Path(f"/proc/{pid}/task/{tid}/comm").read_text().strip() for tid in host.threads(pid)
             if tid not in vcpus}
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if re.fullmatch(rf"(vhost-|kvm-pit/|kvm-nx-lpage-re).*", name):
            found[int(path.parent.name)] = name
    return {f"{name} {tid}": sched.get(tid) for tid, name in found.items()}


@pytest.mark.parametrize("lever", [abi.NICE, abi.IDLE, abi.PARK], ids=["nice", "idle", "park"])
def test_helper_threads_are_not_lowered(device, guests, lever):
    """They carry the wake-up."""
    guest = guests.get(33, vhost=True)
    vcpus = guest.tids()
    before, vcpus_before = helpers(guest.pid, vcpus), [sched.get(tid) for tid in vcpus]
    assert any("vhost-" in name for name in before) and len(before) >= 2, before
    with plug.plug(guest, "netns"):
        vm = device.add("helped", guest.pid, policy_=abi.policy(lever=lever, linger=1, max_sleep=LONG))
        host.wait(lambda: device.get(vm).state == abi.SLEEPY, "sleepy")
        if lever == abi.PARK:
            host.wait(lambda: all(vcpu.parked for vcpu in device.vcpus(vm)), "parked")
        else:
            host.wait(lambda: all(sched.get(tid) != own for tid, own in zip(vcpus, vcpus_before)), "lowered")
        assert helpers(guest.pid, vcpus) == before
        device.remove(vm)
    assert helpers(guest.pid, vcpus) == before


def test_pit_is_not_lowered(scenes):
    scene = scenes(code="actor", irqchip=True, add=False)
    pit, = (name for name in helpers(scene.vmm.pid, scene.tids) if name.startswith("kvm-pit"))
    before = helpers(scene.vmm.pid, scene.tids)
    for lever in abi.NICE, abi.IDLE, abi.PARK:
        scene.add(lever=lever, linger=1 * MS, max_sleep=LONG)
        host.wait(lambda: scene.get().state == abi.SLEEPY, "sleepy")
        time.sleep(0.05)
        assert helpers(scene.vmm.pid, scene.tids) == before, pit
        scene.device.remove(scene.id)


# A boost has its budget


@pytest.mark.fast
@pytest.mark.parametrize("limited", [False, True])
def test_neighbour_of_a_boosted_vm(scenes, limited):
    """A VM that always has a request in flight takes what its boost gives it, and no more than its budget."""
    chatty, neighbour = scenes(add=False), scenes(add=False)
    for scene in chatty, neighbour:
        os.sched_setaffinity(scene.tids[0], {1})
    budget = {"boost_budget": 10 * MS, "boost_period": 100 * MS} if limited else {}
    chatty.add(linger=1 * MS, max_sleep=LONG, request_timeout=LONG, flags=abi.BOOST, boost_nice=-20, **budget)
    neighbour.add(lever=abi.OBSERVE)
    chatty.request()
    time.sleep(0.5)

    share = neighbour.share_beside(chatty, lambda: time.sleep(3))
    # Beside nice -20, one of nice 0 has 1/88; beside its like, a half, for nine tenths of the time.
    assert (0.35 < share < 0.55) if limited else share < 0.1, share
