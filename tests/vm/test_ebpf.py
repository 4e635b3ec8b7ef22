# SPDX-License-Identifier: GPL-2.0-only
"""Rules that are eBPF programs, and rules that are read back."""

import errno
import os

import pytest

from lib import abi, ebpf, frames, host, scene as scenery

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
BOTH = abi.TO_VM | abi.FROM_VM
# The server's port in an IPv4 datagram to the VM, and in one from it.
TO_PORT, FROM_PORT = 36, 34


@pytest.fixture
def by_port(scenes):
    """A VM whose programs take the server's port for their verdict."""
    scene = scenes(add=False)
    fds = [ebpf.load(ebpf.half_at(offset)) for offset in (TO_PORT, FROM_PORT)]
    scene.add(rules=[(abi.PROGRAM, abi.TO_VM, fds[0]), (abi.PROGRAM, abi.FROM_VM, fds[1])], linger=1 * MS,
              max_sleep=LONG, sleep_on=0)
    for fd in fds:
        os.close(fd)
    return scene


def verdict(class_):
    return class_ + 1


def test_verdicts_are_classes(by_port):
    """One after the other; the programs' descriptors have been closed long ago."""
    to_vm = lambda class_: by_port.host.send(frames.udp(True, 10000, verdict(class_)))  # noqa: E731
    from_vm = lambda class_: by_port.vm.send(frames.udp(False, 10000, verdict(class_)))  # noqa: E731
    from_vm(abi.SLEEP)
    by_port.wait_sleeps("rule")
    to_vm(abi.WAKE)
    by_port.wait_wakes("rule")
    to_vm(abi.SLEEP)
    by_port.wait_sleeps("rule", 2)
    to_vm(abi.IGNORE)
    assert by_port.get().state == abi.SLEEPY
    to_vm(abi.REQUEST)
    vm = by_port.get()
    assert vm.state == abi.AWAKE and vm.in_flight == 1 and by_port.nices() == [0]
    by_port.vm.send(frames.udp(False, 10000, verdict(abi.CLOSE)))
    assert by_port.get().in_flight == 1, "another flow: its port is another"
    stats = by_port.stats()
    assert stats.requests == 1 and stats.wakes["request"] == 1


@pytest.mark.parametrize("port", [0, verdict(abi.PROGRAM), 99, 0xFFFF])
def test_other_verdicts_mean_nothing(by_port, port):
    """The rules after it are asked."""
    by_port.vm.send(frames.udp(False, 10000, verdict(abi.SLEEP)))
    by_port.wait_sleeps("rule")
    by_port.host.send(frames.udp(True, 10000, port))
    stats = by_port.stats()
    assert by_port.get().state == abi.SLEEPY and stats.requests == 0 and sum(stats.wakes.values()) == 0


def test_rules_after_a_program_are_asked(scenes):
    scene = scenes(add=False)
    fd = ebpf.load(ebpf.constant(0))
    scene.add(rules=[(abi.PROGRAM, BOTH, fd), *scenery.RULES], linger=1 * MS, max_sleep=LONG)
    os.close(fd)
    scene.wait_sleepy()
    scene.request()
    assert scene.get().in_flight == 1
    scene.answer()
    scene.wait_sleeps("response")


def refused(box, code, fd):
    """As the second rule, by VM_ADD and by VM_SET."""
    rules = [scenery.RULES[0], (abi.PROGRAM, BOTH, fd)]
    with abi.raises(code, abi.FAULT_RULE, 1):
        box.add(rules=rules)
    box.add()
    with abi.raises(code, abi.FAULT_RULE, 1):
        box.device.set_rules(box.id, rules)
    assert box.device.get(box.id).n_rules == len(scenery.RULES)


def test_program_of_another_type(box):
    fd = ebpf.load(ebpf.constant(2), ebpf.XDP)
    refused(box, errno.EINVAL, fd)
    os.close(fd)


def test_descriptor_of_something_else(box):
    with open("/dev/null", "rb") as file:
        refused(box, errno.EINVAL, file.fileno())


@pytest.mark.parametrize("fd", [-1, 9999, -(1 << 31), (1 << 31) - 1])
def test_descriptor_that_is_not_open(box, fd):
    refused(box, errno.EBADF, fd)


@pytest.mark.parametrize("changes", [{"len": 1}, {"insns": 4096}], ids=str)
def test_program_with_instructions(box, changes):
    fd = ebpf.load(ebpf.constant(0))
    request = box.device.request("x", box.vmm.pid, rules=[(abi.PROGRAM, BOTH, fd)])
    for field, value in changes.items():
        setattr(request.rule_array[0], field, value)
    with abi.raises(errno.EINVAL, abi.FAULT_RULE, 0):
        box.device.submit(request)
    os.close(fd)


def test_program_lives_as_long_as_its_rule(box):
    fd = ebpf.load(ebpf.constant(0))
    number = ebpf.id_of(fd)
    box.add(rules=[(abi.PROGRAM, BOTH, fd)])
    os.close(fd)
    assert ebpf.exists(number) and box.device.rules(box.id)[0].prog_id == number
    box.device.set_rules(box.id, [])
    host.wait(lambda: not ebpf.exists(number), "the program is gone")
    fd = ebpf.load(ebpf.constant(0))
    number = ebpf.id_of(fd)
    box.device.set_rules(box.id, [(abi.PROGRAM, BOTH, fd)])
    os.close(fd)
    box.device.remove(box.id)
    host.wait(lambda: not ebpf.exists(number), "the program is gone")


# Read back


def test_rules_are_read_back(box):
    texts = [b"", b"udp", b"x" * abi.MAX_TEXT, b"\0\xff any bytes"]
    rules = [(abi.REQUEST, abi.TO_VM, frames.EVERYTHING, text, tag) for tag, text in enumerate(texts)]
    box.add(rules=rules)
    found = box.device.rules(box.id)
    assert [(rule.class_, rule.direction, rule.tag, rule.prog_id, rule.text_len) for rule in found] == [
        (abi.REQUEST, abi.TO_VM, tag, 0, len(text)) for tag, text in enumerate(texts)]
    for rule, text in zip(found, texts):
        start = bytes(rule)[-abi.MAX_TEXT:]
        assert start == text.ljust(abi.MAX_TEXT, b"\0")


def test_read_back_with_less_room(box):
    box.add()
    assert len(box.device.rules(box.id, room=2)) == 2
    array = box.device.call(abi.VM_RULES, abi.VmArray(id=box.id))
    assert array.count == len(scenery.RULES)


def test_policy_and_rules_in_one_step(box):
    box.add()
    box.device.set_rules(box.id, scenery.RULES[:2], abi.policy(linger=7 * MS))
    vm = box.device.get(box.id)
    assert vm.n_rules == 2 and vm.policy.linger == 7 * MS


@pytest.mark.parametrize("bad", ["rules", "policy"])
def test_policy_and_rules_all_or_nothing(box, bad):
    box.add()
    rules = [(abi.REQUEST, abi.TO_VM, [(frames.RET, 0, 0, 1)] if bad == "policy" else [])]
    policy = abi.policy(linger=7 * MS) if bad == "rules" else abi.policy(max_sleep=0)
    with abi.raises(errno.EINVAL, abi.FAULT_RULE if bad == "rules" else abi.FAULT_POLICY):
        box.device.set_rules(box.id, rules, policy)
    vm = box.device.get(box.id)
    assert vm.n_rules == len(scenery.RULES) and vm.policy.linger == abi.policy().linger
