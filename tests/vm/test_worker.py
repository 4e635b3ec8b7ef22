# SPDX-License-Identifier: GPL-2.0-only
"""The levers `idle` and `cgroup`, which a worker moves."""

import errno
import os

import pytest

from lib import abi, cgroup, frames, host, knobs, net
from lib.traffic import Traffic

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND


def policy_of(scene):
    return [os.sched_getscheduler(tid) for tid in scene.tids]


def test_idle(scenes):
    scene = scenes(vcpus=2, lever=abi.IDLE, linger=2 * MS, max_sleep=LONG)
    for turn in range(10):
        host.wait(lambda: policy_of(scene) == [os.SCHED_IDLE] * 2, "idle")
        assert scene.device.vcpus(scene.id)[0].flags & abi.MOVED
        scene.request(turn)
        host.wait(lambda: policy_of(scene) == [os.SCHED_OTHER] * 2, "back", step=0.0005)
        scene.answer(turn)
    assert sum(scene.stats().effect) == 10, "each wake-up was measured"
    host.wait(lambda: policy_of(scene) == [os.SCHED_IDLE] * 2, "idle")
    scene.device.remove(scene.id)
    assert policy_of(scene) == [os.SCHED_OTHER] * 2


def test_group(scenes):
    with cgroup.group("vm") as group:
        group.write("cpu.weight", 250)
        scene = scenes(add=False)
        group.take(scene.vmm.pid)
        for weight, sleepy in [(7, ("7", "0")), (0, ("1", "1"))]:
            with group.fd() as fd:
                scene.add(lever=abi.GROUP, group_fd=fd, sleepy_weight=weight, linger=2 * MS, max_sleep=LONG)
            now = lambda: (group.read("cpu.weight"), group.read("cpu.idle"))
            host.wait(lambda: now() == sleepy, f"sleepy {now()}")
            scene.request()
            host.wait(lambda: now() == ("250", "0"), "back", step=0.0005)
            scene.answer()
            host.wait(lambda: now() == sleepy, "sleepy")
            assert scene.get().group == group.path.stat().st_ino
            scene.device.remove(scene.id)
            assert now() == ("250", "0")
        scene.vmm.stop()


# An administrator's own change


def test_chrt_wins(scenes):
    scene = scenes(vcpus=2, lever=abi.IDLE, linger=2 * MS, max_sleep=LONG)
    host.wait(lambda: policy_of(scene) == [os.SCHED_IDLE] * 2, "idle")
    os.sched_setscheduler(scene.tids[0], os.SCHED_BATCH, os.sched_param(0))
    assert scene.device.vcpus(scene.id)[0].flags & abi.FOREIGN
    for turn in range(3):
        scene.request(turn)
        host.wait(lambda: policy_of(scene) == [os.SCHED_BATCH, os.SCHED_OTHER], "back")
        scene.answer(turn)
        host.wait(lambda: policy_of(scene) == [os.SCHED_BATCH, os.SCHED_IDLE], "idle")
    scene.device.remove(scene.id)
    assert policy_of(scene) == [os.SCHED_BATCH, os.SCHED_OTHER]


def test_renice_wins(scenes):
    scene = scenes(lever=abi.IDLE, linger=2 * MS, max_sleep=LONG)
    host.wait(lambda: policy_of(scene) == [os.SCHED_IDLE], "idle")
    os.setpriority(os.PRIO_PROCESS, scene.tids[0], 7)
    scene.device.remove(scene.id)
    assert (policy_of(scene), scene.nices()) == ([os.SCHED_OTHER], [7])


@pytest.mark.flavour("base", "previous", "lock", "memory", "race")  # on rt one that spins starves the kernel's own
@pytest.mark.parametrize("lever", [abi.NICE, abi.IDLE, abi.PARK])
def test_realtime_threads_are_not_touched(scenes, lever):
    scene = scenes(vcpus=2, add=False)
    os.sched_setscheduler(scene.tids[1], os.SCHED_FIFO, os.sched_param(1))
    scene.add(lever=lever, linger=2 * MS, max_sleep=LONG)
    host.wait(lambda: scene.get().state == abi.SLEEPY, "sleepy")

    def lowered():
        return {abi.NICE: scene.nices()[0] == 19, abi.IDLE: policy_of(scene)[0] == os.SCHED_IDLE,
                abi.PARK: scene.device.vcpus(scene.id)[0].parked > 0}[lever]

    host.wait(lowered, "the other one is")
    vcpus = scene.device.vcpus(scene.id)
    assert policy_of(scene)[1] == os.SCHED_FIFO == vcpus[1].policy
    assert vcpus[1].parked == 0 and not vcpus[1].flags & abi.MOVED
    scene.device.remove(scene.id)
    assert policy_of(scene) == [os.SCHED_OTHER, os.SCHED_FIFO]


def test_weight_written_meanwhile_wins(scenes):
    with cgroup.group("vm") as group:
        scene = scenes(add=False)
        group.take(scene.vmm.pid)
        with group.fd() as fd:
            scene.add(lever=abi.GROUP, group_fd=fd, sleepy_weight=3, linger=2 * MS, max_sleep=LONG)
        host.wait(lambda: group.read("cpu.weight") == "3", "sleepy")
        group.write("cpu.weight", 77)
        assert scene.get().flags_out == abi.VM_GROUP_FOREIGN
        scene.request()
        scene.answer()
        host.wait(lambda: scene.stats().sleeps["response"], "sleepy again")
        scene.device.remove(scene.id)
        assert group.read("cpu.weight") == "77"
        scene.vmm.stop()


def test_group_of_threads_that_have_left(scenes):
    with cgroup.group("vm") as group:
        scene = scenes(add=False)
        with group.fd() as fd:
            scene.add(lever=abi.GROUP, group_fd=fd, sleepy_weight=3, linger=2 * MS, max_sleep=LONG)
        assert scene.get().flags_out == abi.VM_GROUP_LEFT
        group.take(scene.vmm.pid)
        assert scene.get().flags_out == 0
        scene.vmm.stop()


# Live changes


def test_lever_changes_pass_through_the_baseline(scenes):
    with cgroup.group("vm") as group:
        scene = scenes(add=False)
        group.take(scene.vmm.pid)
        baseline = ([os.SCHED_OTHER], [0], "100", "0")

        def now():
            return policy_of(scene), scene.nices(), group.read("cpu.weight"), group.read("cpu.idle")

        expected = {
            abi.OBSERVE: baseline,
            abi.NICE: ([os.SCHED_OTHER], [19], "100", "0"),
            abi.IDLE: ([os.SCHED_IDLE], [0], "100", "0"),
            abi.GROUP: ([os.SCHED_OTHER], [0], "1", "1"),
            abi.PARK: baseline,
        }
        scene.add(lever=abi.OBSERVE, linger=2 * MS, max_sleep=LONG)
        for before in expected:
            for after in expected:
                for lever in (before, after):
                    with group.fd() as fd:
                        scene.set(fd if lever == abi.GROUP else -1, lever=lever)
                    host.wait(lambda: now() == expected[lever], f"{lever} after {before}: {now()}")
        scene.device.remove(scene.id)
        assert now() == baseline
        scene.vmm.stop()


def test_bad_groups(box):
    with open("/dev/null") as null, abi.raises(errno.EBADF, abi.FAULT_GROUP):
        box.add(lever=abi.GROUP, group_fd=null.fileno())
    with abi.raises(errno.EBADF, abi.FAULT_GROUP):
        box.add(lever=abi.GROUP, group_fd=999)
    with abi.raises(errno.EINVAL, abi.FAULT_GROUP):
        box.add(lever=abi.GROUP)
    with cgroup.group("vm") as group:
        with group.fd() as fd, abi.raises(errno.EINVAL, abi.FAULT_GROUP):
            box.add(lever=abi.NICE, group_fd=fd)
        fd = os.open(cgroup.ROOT, os.O_RDONLY | os.O_DIRECTORY)
        with abi.raises(errno.EOPNOTSUPP, abi.FAULT_GROUP):
            box.add(lever=abi.GROUP, group_fd=fd)
        os.close(fd)


def test_group_of_another_vm(scenes):
    """Of two that change its weight, none would know what to restore."""
    one, two = scenes(add=False), scenes(add=False)
    with cgroup.group("vm") as group, group.fd() as fd:
        one.add(lever=abi.GROUP, group_fd=fd)
        with abi.raises(errno.EBUSY, abi.FAULT_GROUP):
            two.add(lever=abi.GROUP, group_fd=fd)
        two.add(lever=abi.NICE)
        with abi.raises(errno.EBUSY, abi.FAULT_GROUP):
            two.set(fd, lever=abi.GROUP)
        one.set(fd, lever=abi.GROUP)
        one.set(lever=abi.NICE)
        two.set(fd, lever=abi.GROUP)
        two.device.remove(two.id)
        one.set(fd, lever=abi.GROUP)


def test_group_of_a_vm_that_cannot_be_added(scenes):
    """Packets come to its first link before the second one fails."""
    other, scene = scenes(), scenes(add=False)
    with cgroup.group("vm") as group, group.fd() as fd:
        group.write("cpu.weight", 250)
        packets = Traffic(scene.tap)
        with open("/proc/self/ns/net", "rb") as netns:
            links = [(netns.fileno(), net.ifindex(tap)) for tap in (scene.tap, other.tap)]
            sleep = [(abi.SLEEP, abi.TO_VM, [frames.ACCEPT])]
            for _ in range(50):
                with abi.raises(errno.EBUSY, abi.FAULT_LINK):
                    scene.add(lever=abi.GROUP, group_fd=fd, links=links, rules=sleep, linger=0)
                assert (group.read("cpu.weight"), group.read("cpu.idle")) == ("250", "0")
        packets.stop()


def test_idle_is_not_boosted(box):
    with abi.raises(errno.EINVAL, abi.FAULT_POLICY):
        box.add(lever=abi.IDLE, flags=abi.BOOST, boost_nice=-5)


# Version 1


def test_shares(scenes):
    with knobs.legacy() as root, knobs.legacy_group(root, "vm") as group:
        scene = scenes(add=False)
        group.take(scene.vmm.pid)
        group.write("cpu.shares", 777)
        with group.fd() as fd:
            scene.add(lever=abi.GROUP, group_fd=fd, sleepy_weight=5, linger=2 * MS, max_sleep=LONG)
        for turn in range(3):
            host.wait(lambda: group.read("cpu.shares") == "5", "sleepy")
            scene.request(turn)
            host.wait(lambda: group.read("cpu.shares") == "777", "back")
            scene.answer(turn)
        host.wait(lambda: group.read("cpu.shares") == "5", "sleepy")
        scene.device.remove(scene.id)
        assert group.read("cpu.shares") == "777"
        scene.vmm.stop()
