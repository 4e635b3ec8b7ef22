# SPDX-License-Identifier: GPL-2.0-only
"""What VM_ADD and VM_SET refuse: each with its own error, and nothing has changed."""

import ctypes
import errno
import os
import signal
import time

import pytest

from lib import abi, frames, host, kvm, net
from lib.abi import raises


def add(scene, **changes):
    """VM_ADD of the scene's VM, with fields changed after all else was filled in."""
    with open("/proc/self/ns/net", "rb") as netns:
        request = scene.device.request("x", scene.vmm.pid, rules=[(abi.REQUEST, abi.TO_VM, frames.EVERYTHING)],
                                       links=[(netns.fileno(), net.ifindex(scene.tap))])
        for field, value in changes.items():
            setattr(request, field, value)
        return scene.device.submit(request)


# Names


@pytest.mark.parametrize("name", [
    b"", b"x" * 32, b"a b", b"a/b", b"a\tb", b"a\nb", b"\x7f", "ü".encode(), b"\x80", b"a\0b"])
def test_bad_name(box, name):
    # By hand: to ctypes, an array of characters ends at its first NUL.
    request = box.device.request("x", box.vmm.pid)
    ctypes.memmove(ctypes.addressof(request), name.ljust(32, b"\0"), 32)
    with raises(errno.EINVAL, abi.FAULT_NAME):
        box.device.submit(request)
    assert box.device.vms() == []


@pytest.mark.parametrize("name", [b"x" * 31, b"!\"#$%&'()*+,-.", b"0123456789:;<=>?@[\\]^_`{|}~"])
def test_good_name(box, name):
    vm = box.device.add(name, box.vmm.pid)
    assert box.device.get(vm).name == name
    box.device.remove(vm)


@pytest.mark.core
def test_name_taken(box, vmm):
    box.add(name="taken")
    other = vmm()
    other.machine()
    with raises(errno.EEXIST, abi.FAULT_NAME):
        box.device.add("taken", other.pid)
    assert len(box.device.vms()) == 1
    box.device.remove(box.id)
    vm = box.device.add("taken", other.pid)
    assert vm > box.id


# Processes and virtual machines


@pytest.mark.parametrize("pid", [0, 0x3FFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_no_such_process(box, pid):
    with raises(errno.ESRCH, abi.FAULT_HANDLE):
        box.device.add("x", pid, start=1)


def test_thread_is_no_process(box):
    with raises(errno.ESRCH, abi.FAULT_HANDLE):
        box.device.add("x", box.tids[0])


@pytest.mark.core
def test_process_that_has_exited(box):
    """A zombie has a number and a start time, but no virtual machine."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    host.wait(lambda: host.state_of(pid) == "Z", "zombie")
    with raises(errno.ESRCH, abi.FAULT_HANDLE):
        box.device.add("x", pid)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("offset", [-1, 1, 1 << 40])
def test_wrong_start_time(box, offset):
    with raises(errno.ESTALE, abi.FAULT_HANDLE):
        box.device.add("x", box.vmm.pid, start=(abi.start_time(box.vmm.pid) + offset) & (1 << 64) - 1)


def test_process_without_kvm(box):
    for pid in (os.getpid(), 2):  # ourselves, and a kernel thread
        with raises(errno.ENODEV, abi.FAULT_HANDLE):
            box.device.add("x", pid)


@pytest.mark.core
def test_several_machines(box, vmm):
    """Two VMs in a process: neither is meant without its descriptor; with it, each is."""
    several = vmm()
    descriptors = [several.machine()[0] for _ in range(2)]
    with raises(errno.ENOTUNIQ, abi.FAULT_HANDLE):
        box.device.add("x", several.pid)
    ours = [host.getfd(several.pid, fd) for fd in descriptors]
    ids = [box.device.add(name, several.pid, vm_fd=fd) for name, fd in zip("ab", ours)]
    for fd in ours:
        os.close(fd)
    tids = {box.device.vcpus(vm)[0].tid for vm in ids}
    assert len(tids) == 2
    for vm in ids:
        box.device.remove(vm)


@pytest.mark.core
def test_two_descriptors_of_one_machine(box):
    """A copy of the descriptor is no second VM."""
    copy = host.getfd(box.vmm.pid, box.kvm_fd)
    vm = box.device.add("x", box.vmm.pid, vm_fd=copy)
    with raises(errno.EALREADY, abi.FAULT_HANDLE):
        box.device.add("y", box.vmm.pid)
    with raises(errno.EALREADY, abi.FAULT_HANDLE):
        box.device.add("y", box.vmm.pid, vm_fd=copy)
    os.close(copy)
    assert [one.id for one in box.device.vms()] == [vm]
    box.device.remove(vm)


@pytest.mark.core
def test_machine_of_another_process(box, vmm):
    other = vmm()
    fd, _ = other.machine()
    copy = host.getfd(other.pid, fd)
    with raises(errno.EXDEV, abi.FAULT_HANDLE):
        box.device.add("x", box.vmm.pid, vm_fd=copy)
    with raises(errno.EXDEV, abi.FAULT_HANDLE):
        box.device.add("x", os.getpid(), vm_fd=copy)
    os.close(copy)


@pytest.mark.core
def test_inherited_descriptor(box):
    """A child that inherited a VM's descriptor cannot run it, and so is not its VMM."""
    machine = kvm.Machine()
    fd = machine.vm()
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        with raises(errno.ENODEV, abi.FAULT_HANDLE):
            box.device.add("x", pid)
        with raises(errno.EXDEV, abi.FAULT_HANDLE):
            box.device.add("x", pid, vm_fd=fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)
        os.close(machine.kvm)


@pytest.mark.core
def test_no_machine_descriptor(box):
    kvm_fd, event = os.open("/dev/kvm", os.O_RDWR), os.eventfd(0)
    reader, writer = os.pipe()
    for fd in (-2, -0x80000000, 1 << 20, kvm_fd, event, reader, box.device.fd):
        with raises(errno.EBADF, abi.FAULT_HANDLE):
            box.device.add("x", box.vmm.pid, vm_fd=fd)
    for fd in (kvm_fd, event, reader, writer):
        os.close(fd)


@pytest.mark.core
def test_pid_used_again(box, vmm):
    """Another VMM under the number of one that died is not taken for it, with whatever was known of that."""
    device = box.device
    old = vmm()
    fd, _ = old.machine()
    copy = host.getfd(old.pid, fd)
    pid, start = old.pid, abi.start_time(old.pid)
    first = device.add("old", pid)
    old.stop()
    time.sleep(0.05)  # a start time is counted in hundredths of a second
    new = vmm(pid)
    assert new.pid == pid and abi.start_time(pid) != start
    new.machine()
    with raises(errno.ESTALE, abi.FAULT_HANDLE):
        device.add("x", pid, start=start)
    with raises(errno.ESTALE, abi.FAULT_HANDLE):
        device.add("x", pid, start=start, vm_fd=copy)
    with raises(errno.EXDEV, abi.FAULT_HANDLE):
        device.add("x", pid, vm_fd=copy)
    os.close(copy)
    host.wait(lambda: not device.vms(), "the old one is gone")
    second = device.add("old", pid)
    assert second != first
    device.remove(second)


# Policy

BAD_POLICIES = [
    {"linger": abi.MAX_TIME + 1}, {"linger": (1 << 64) - 1}, {"request_timeout": 0},
    {"request_timeout": abi.MIN_TIMEOUT - 1}, {"request_timeout": abi.MAX_TIME + 1},
    {"max_sleep": 0}, {"max_sleep": abi.MIN_TIMEOUT - 1}, {"max_sleep": abi.MAX_TIME + 1},
    {"lever": 5}, {"lever": 0xFFFFFFFF}, {"sleepy_nice": 20}, {"sleepy_nice": -21},
    {"sleepy_nice": 0x7FFFFFFF}, {"flags": abi.BOOST, "boost_nice": -21},
    {"flags": abi.BOOST, "boost_nice": 20}, {"flags": 4}, {"flags": 1 << 31},
    {"park_max": abi.MIN_TIMEOUT - 1}, {"park_max": abi.MAX_TIME + 1}, {"stir_run": 49_999},
    {"park_max": abi.MS, "stir_run": abi.MS + 1}, {"sleepy_weight": 10001}, {"reserved": 1},
    {"boost_period": abi.SECOND}, {"boost_budget": 1}, {"flags": abi.BOOST, "lever": abi.IDLE},
    {"flags": abi.BOOST, "boost_period": abi.SECOND, "boost_budget": abi.SECOND + 1},
    {"flags": abi.BOOST, "boost_period": abi.SECOND, "boost_budget": abi.SECOND >> 11},
]


@pytest.mark.parametrize("changes", BAD_POLICIES, ids=str)
def test_bad_policy(box, changes):
    with raises(errno.EINVAL, abi.FAULT_POLICY):
        add(box, policy=abi.policy(**changes))
    assert box.device.vms() == []
    box.add()
    before = bytes(box.get().policy)
    with raises(errno.EINVAL):
        box.device.set(box.id, abi.policy(**changes))
    assert bytes(box.get().policy) == before
    assert box.stats().wakes["admin"] == 0


@pytest.mark.parametrize("changes", [
    {"linger": 0}, {"linger": abi.MAX_TIME, "request_timeout": abi.MAX_TIME, "max_sleep": abi.MAX_TIME},
    {"request_timeout": abi.MIN_TIMEOUT, "max_sleep": abi.MIN_TIMEOUT}, {"sleepy_nice": -20},
    {"flags": abi.BOOST, "boost_nice": 19}], ids=str)
def test_policy_at_its_limits(box, changes):
    vm = add(box, policy=abi.policy(**changes))
    box.device.set(vm, abi.policy(**changes))
    box.device.remove(vm)
