# SPDX-License-Identifier: GPL-2.0-only
"""Who may call: CAP_SYS_NICE and CAP_NET_ADMIN in the initial user namespace, at open and in every call."""

import os
import signal
import socket

import pytest

from lib import abi, caller, kvm
from lib.caller import CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SYS_NICE

pytestmark = pytest.mark.core

OTHERS = {
    "nobody": caller.become_nobody,
    "nobody with CAP_SYS_NICE": lambda: caller.become_nobody(CAP_SYS_NICE),
    "nobody with CAP_NET_ADMIN": lambda: caller.become_nobody(CAP_NET_ADMIN),
    "root without CAP_SYS_NICE": lambda: caller.without(CAP_SYS_NICE),
    "root without CAP_NET_ADMIN": lambda: caller.without(CAP_NET_ADMIN),
    "root of its own user namespace": caller.root_of_a_namespace,
}


@pytest.fixture
def unchanged(box):
    """A VM that nobody but the test itself may do anything to."""
    scene = box
    scene.add(linger=abi.MAX_TIME)
    before = bytes(scene.get())
    yield scene
    assert bytes(scene.get()) == before
    assert [vm.id for vm in scene.device.vms()] == [scene.id]
    assert scene.nices() == [0]


@pytest.mark.parametrize("who", ["nobody", "nobody with CAP_SYS_NICE", "nobody with CAP_NET_ADMIN"])
def test_node_keeps_others_out(sleepy, who):
    def body():
        OTHERS[who]()
        return caller.outcome(abi.Device)
    assert caller.in_child(body) == "EACCES"


@pytest.mark.parametrize("who", OTHERS)
def test_open_needs_both_capabilities(sleepy, who):
    """Even where the node's mode would let everybody in."""
    def body():
        OTHERS[who]()
        return caller.outcome(abi.Device)
    os.chmod(abi.DEVICE, 0o666)
    try:
        assert caller.in_child(body) == "EPERM"
    finally:
        os.chmod(abi.DEVICE, 0o600)


@pytest.mark.parametrize("how", ["inherited", "passed on"])
@pytest.mark.parametrize("who", OTHERS)
def test_descriptor_of_somebody_else(unchanged, who, how):
    """A descriptor that root opened is of no use to others: each call asks again, before all else."""
    scene, device = unchanged, unchanged.device
    add = device.request("evil", scene.vmm.pid)
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"."], [device.fd])

    def body():
        device = scene.device
        if how == "passed on":
            device.close()
            _, (fd,), *_ = socket.recv_fds(theirs, 1, 1)
            device = abi.Device(fd)
        OTHERS[who]()
        arguments = {
            "INFO": abi.Info(), "VM_ADD": add, "VM_REMOVE": abi.VmRemove(id=scene.id),
            "VM_SET": abi.VmSet(id=scene.id, flags=abi.SET_POLICY, policy=abi.policy(linger=0)),
            "VM_GET": abi.VmGet(id=scene.id), "VM_STATS": abi.VmStats(id=scene.id), "VM_VCPUS": abi.VmArray(id=scene.id),
            "VM_LINKS": abi.VmArray(id=scene.id), "VM_RULES": abi.VmArray(id=scene.id),
        }
        found = {call: caller.outcome(lambda call=call: device.call(abi.CALLS[call][0], arguments[call]))
                 for call in abi.CALLS}
        found["unknown"] = caller.outcome(lambda: device.raw(abi.number(abi.R, 99, 8), 0))
        return found

    found = caller.in_child(body)
    ours.close()
    theirs.close()
    assert found == dict.fromkeys([*abi.CALLS, "unknown"], "EPERM")


def test_both_capabilities_are_enough(sleepy):
    """No uid is asked for. (This also shows that the refusals above come from what was taken away.)"""
    def body():
        caller.become_nobody(CAP_SYS_NICE, CAP_NET_ADMIN, CAP_DAC_OVERRIDE)
        with abi.Device() as device:
            caller.set_capabilities(1 << CAP_SYS_NICE | 1 << CAP_NET_ADMIN)
            return device.info().version
    assert caller.in_child(body) == abi.VERSION


def test_pids_are_those_of_the_callers_namespace(device):
    """Adds a VM from inside of a PID namespace, where its VMM has another number."""
    def body():
        os.unshare(os.CLONE_NEWPID)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            one = kvm.Vmm()
            one.run(one.vcpu(one.vm()))
            start = abi.start_time(outer(one.pid))
            vm = device.add("inner", one.pid, start=start)
            os.write(writer, f"{one.pid} {device.get(vm).pid} {outer(one.pid)} {vm}\n".encode())
            signal.pause()
        os.close(writer)
        with os.fdopen(reader) as file:
            numbers = [int(word) for word in file.readline().split()]
        inner, told_inside, outside, vm = numbers
        told_outside = device.get(vm).pid
        device.remove(vm)
        os.kill(pid, signal.SIGKILL)  # the namespace's init: the VMM dies with it
        os.waitpid(pid, 0)
        return [inner == told_inside, told_outside == outside, inner != outside]

    assert caller.in_child(body) == [True, True, True]


def outer(inner):
    """The number that a process of the deepest PID namespace has in /proc."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/status", encoding="ascii", errors="replace") as file:
                numbers = next(line.split()[1:] for line in file if line.startswith("NSpid:"))
        except (FileNotFoundError, ProcessLookupError):  # a worker of the kernel's, which has ended since
            continue
        if len(numbers) > 1 and int(numbers[-1]) == inner:
            return int(entry)
    raise AssertionError(f"no process {inner} in a PID namespace")
