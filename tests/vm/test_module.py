# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading: sleepy's own module and KVM's, in every order."""

import errno
import itertools
import os
from pathlib import Path

import pytest

from lib import abi, actor, frames, host, kvm, net
from lib.abi import raises
from lib.traffic import Traffic

pytestmark = pytest.mark.core

MS = abi.MS
LOADS = host.turns(50)


@pytest.fixture
def without_kvm(free_kvm):
    """Nobody uses KVM's own modules; they are back when the test is over."""
    yield
    host.load_kvm()


def a_wake(device, vmm, name="a"):
    """Adds a VM, wakes it by a packet, removes it."""
    net.tap("st0")
    try:
        fd = vmm.tap("st0")
        _, (tid,) = vmm.machine()
        with open("/proc/self/ns/net", "rb") as netns:
            vm = device.add(name, vmm.pid, links=[(netns.fileno(), net.ifindex("st0"))],
                            rules=[(abi.REQUEST, abi.TO_VM, frames.EVERYTHING)])
        host.wait(lambda: host.nice_of(tid) == 19, "asleep")
        sender = net.HostSide("st0")
        sender.send(frames.udp(True, 1, 2))
        sender.close()
        assert host.nice_of(tid) == 0
        device.remove(vm)
        vmm.close(fd)
    finally:
        net.delete_tap("st0")


def test_loaded_twice(sleepy):
    with raises(errno.EEXIST):
        host.load()


def test_unload_with_an_open_device(device):
    assert host.refused_unload() in (errno.EBUSY, errno.EAGAIN)
    assert device.info().version == abi.VERSION


def test_unload_with_a_vm(scenes):
    scene = scenes(linger=1 * MS)
    scene.wait_sleepy()
    scene.device.close()
    assert host.refused_unload() in (errno.EBUSY, errno.EAGAIN)
    with abi.Device() as device:
        scene.device = device
        scene.request()
        assert scene.nices() == [0], "it still works"
        device.remove(scene.id)
        assert scene.nices() == [0]
    host.unload()
    assert not os.path.exists(abi.DEVICE)
    assert scene.nices() == [0]
    host.load()


def test_unload_when_a_vmm_has_died(scenes):
    scene = scenes(linger=1 * MS)
    scene.device.close()
    scene.vm.close()
    scene.vmm.stop()
    host.unload(seconds=5)
    host.load()


def test_load_and_unload_under_traffic(sleepy, vmm):
    """The VM spins and its packets flow all the while; each time it is added, woken and let go."""
    host.unload()
    one = vmm()
    net.tap("st0")
    one.tap("st0")
    _, tids = one.machine()
    side = net.VmSide(one.pid, "st0")
    traffic = Traffic("st0", side)
    rules = [(abi.REQUEST, abi.TO_VM, frames.ipv4_port(17, True, 7)),
             (abi.RESPONSE, abi.FROM_VM, frames.ipv4_port(17, False, 7))]
    requests = 0
    try:
        for turn in range(LOADS):
            host.load()
            with abi.Device() as device, open("/proc/self/ns/net", "rb") as netns:
                vm = device.add("x", one.pid, links=[(netns.fileno(), net.ifindex("st0"))], rules=rules,
                                policy_=abi.policy(linger=0, max_sleep=1 * MS, request_timeout=2 * MS))
                if turn % 4 == 0:
                    host.wait(lambda: device.stats(vm).requests, "a request")
                requests += device.stats(vm).requests
                device.remove(vm)
            assert host.nice_of(tids[0]) == 0
            host.unload()
    finally:
        fine = traffic.stop()
        side.close()
    assert fine and requests >= LOADS // 4


def test_load_and_unload_alone(sleepy):
    for _ in range(5):
        host.unload()
        assert not os.path.exists(abi.DEVICE)
        host.load()
        assert os.path.exists(abi.DEVICE)


@pytest.mark.kvm_goes
def test_kvm_loaded_after_sleepy(sleepy, without_kvm, vmm):
    host.unload()
    host.unload_kvm()
    assert not os.path.exists("/dev/kvm")
    host.load()
    with abi.Device() as device:
        with raises(errno.ENODEV, abi.FAULT_HANDLE):
            device.add("x", os.getpid())
        host.load_kvm()
        a_wake(device, vmm())


@pytest.mark.kvm_goes
def test_kvm_reloaded_under_sleepy(sleepy, without_kvm, vmm):
    """KVM's module can go although sleepy has worked with it, and what comes then is as good."""
    with abi.Device() as device:
        for _ in range(2):
            one = vmm()
            a_wake(device, one)
            one.stop()
            host.unload_kvm()
            host.load_kvm()


@pytest.mark.kvm_goes
@pytest.mark.parametrize("loaded", list(itertools.permutations(("kvm", "sleepy"))), ids="-".join)
@pytest.mark.parametrize("unloaded", list(itertools.permutations(("kvm", "sleepy"))), ids="-".join)
def test_both_go_and_come(sleepy, without_kvm, vmm, unloaded, loaded):
    """In each order, after they have worked together."""
    def work():
        with abi.Device() as device:
            one = vmm()
            a_wake(device, one)
            one.stop()

    work()
    for name in unloaded:
        {"kvm": host.unload_kvm, "sleepy": host.unload}[name]()
    for name in loaded:
        {"kvm": host.load_kvm, "sleepy": host.load}[name]()
    work()


@pytest.mark.kvm_goes
def test_kvm_unloaded_while_a_dead_vm_is_known(sleepy, without_kvm, vmm):
    """A VM that died, which sleepy has not noticed yet, holds nothing of KVM's."""
    one = vmm()
    one.machine()
    with abi.Device() as device:
        device.add("x", one.pid)
        one.stop()
        host.unload_kvm(seconds=2)
        host.wait(lambda: not device.vms(), "the VM is gone", 3)


@pytest.mark.kvm_goes
def test_events_of_kvm_loaded_after_sleepy(device, without_kvm, scenes):
    """And loaded anew: whatever sleepy attaches to is found when it is wanted, and let go of when the VM is gone."""
    device.close()
    host.unload()
    host.unload_kvm()
    host.load()
    for _ in range(2):
        host.load_kvm()
        with abi.Device() as device:
            scene = scenes(vcpus=2, code="actor", irqchip=True, add=False)
            scene.device = device
            scene.add(linger=1 * MS, max_sleep=60 * abi.SECOND, wake_on=abi.wake_on("interrupt", "ipi", "timer", "hint"),
                      sleep_on=abi.sleep_on(*abi.SLEEP_EVENTS))
            scene.attached(1)
            scene.wait_sleepy()
            scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
            scene.wait_wakes("interrupt")
            scene.wait_sleepy()
            scene.guest.do(actor.IPI)
            scene.wait_wakes("ipi")
            scene.vmm.stop()
            host.unload_kvm()
            host.wait(lambda: not device.vms(), "the VM is gone", 3)


@pytest.mark.kvm_goes
def test_kvm_stays_while_its_events_are_wanted(without_kvm, scenes):
    """For a moment after the VM has died: what is attached must not be left behind."""
    scene = scenes(code="actor", irqchip=True, wake_on=abi.wake_on("interrupt", "hint"))
    scene.vmm.stop()
    host.unload_kvm()
    assert "kvm" not in Path("/sys/kernel/debug/kprobes/list").read_text()


def test_sleepy_unloaded_before_the_machine_ends(sleepy, vmm):
    """Threads that had notifiers run on for a while when no code of sleepy is there any more."""
    one = vmm()
    _, tids = one.machine(vcpus=2)
    with abi.Device() as device:
        vm = device.add("x", one.pid, policy_=abi.policy(linger=0))
        host.wait(lambda: all(v.flags & abi.ATTACHED for v in device.vcpus(vm)), "attached")
        device.remove(vm)
    host.unload()
    for turn in range(20):
        for tid in tids:
            os.sched_setaffinity(tid, {turn % 2})
    later = kvm.Vmm()
    later.machine(vcpus=2)
    later.stop()
    one.stop()
    host.load()
