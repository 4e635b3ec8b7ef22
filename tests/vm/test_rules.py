# SPDX-License-Identifier: GPL-2.0-only
"""What VM_ADD refuses of links and rules, and the limits of everything."""

import errno
import os
import threading

import pytest

from lib import abi, frames, host, kvm, net, scene
from lib.abi import raises

ACCEPT, REJECT = frames.ACCEPT, frames.REJECT


@pytest.fixture
def here():
    """A descriptor of the test's network namespace."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def refused(box, code, index, rule, link):
    """A VM whose second rule is bad is not added, and its link is free."""
    good = (abi.REQUEST, abi.TO_VM, frames.EVERYTHING)
    with raises(code, abi.FAULT_RULE, index):
        box.device.add("x", box.vmm.pid, rules=[good] * index + [rule], links=[link])
    assert box.device.vms() == []


# Filters

BAD_FILTERS = {
    "no end": [(frames.LDH, 0, 0, 12)],
    "jump back": [(frames.JA, 0, 0, 0xFFFFFFFF), ACCEPT],
    "jump to itself": [(frames.JA, 0, 0, 0xFFFFFFFE), ACCEPT],
    "jump out of the program": [(frames.JA, 0, 0, 1), ACCEPT],
    "true branch out of the program": [(frames.JEQ, 1, 0, 0), ACCEPT],
    "false branch out of the program": [(frames.JEQ, 0, 255, 0), ACCEPT],
    "unknown instruction": [(0xFFFF, 0, 0, 0), ACCEPT],
    "eBPF call": [(0x85, 0, 0, 1), ACCEPT],
    "division by zero": [(0x34, 0, 0, 0), ACCEPT],
    "memory out of range": [(frames.LDW_MEM, 0, 0, 16), ACCEPT],
    "memory never written": [(frames.LDW_MEM, 0, 0, 3), (frames.RET_A, 0, 0, 0)],
    "end only on one path": [(frames.JEQ, 0, 1, 0), ACCEPT, (frames.LDH, 0, 0, 0)],
    "empty": [],
    "too long": [(frames.LDH, 0, 0, 0)] * abi.MAX_INSNS + [ACCEPT],
}


@pytest.mark.parametrize("what, index", [
    pytest.param(what, index, marks=[pytest.mark.core] if index and what in ("no end", "too long") else [])
    for index in (0, 1) for what in BAD_FILTERS])
def test_bad_filter(box, here, what, index):
    link = (here, net.ifindex(box.tap))
    refused(box, errno.EINVAL, index, (abi.REQUEST, abi.TO_VM, BAD_FILTERS[what]), link)


@pytest.mark.parametrize("class_, direction", [(7, abi.TO_VM), (abi.PROGRAM, abi.TO_VM), (0xFFFFFFFF, abi.TO_VM), (abi.REQUEST, 0),
                                               (abi.REQUEST, 4), (abi.REQUEST, 7), (abi.REQUEST, 1 << 31)])
def test_bad_class_or_direction(box, here, class_, direction):
    refused(box, errno.EINVAL, 1, (class_, direction, frames.EVERYTHING), (here, net.ifindex(box.tap)))


@pytest.mark.parametrize("changes, code", [
    ({"prog_fd": 1}, errno.EINVAL), ({"text_len": abi.MAX_TEXT + 1}, errno.E2BIG), ({"text_len": 1}, errno.EFAULT),
    ({"len": 0}, errno.EINVAL), ({"len": abi.MAX_INSNS + 1}, errno.EINVAL),
    ({"len": 0x10001}, errno.EINVAL), ({"len": 0xFFFFFFFF}, errno.EINVAL), ({"insns": 0}, errno.EFAULT),
    ({"insns": 0xFFFF_8000_0000_0000}, errno.EFAULT)], ids=str)
def test_bad_rule_fields(box, changes, code):
    request = box.device.request("x", box.vmm.pid, rules=[(abi.REQUEST, abi.TO_VM, frames.EVERYTHING)] * 3)
    for field, value in changes.items():
        setattr(request.rule_array[2], field, value)
    with raises(code, abi.FAULT_RULE, 2):
        box.device.submit(request)
    assert box.device.vms() == []


@pytest.mark.parametrize("array, count, fault", [
    ("links", "n_links", abi.FAULT_LINK), ("rules", "n_rules", abi.FAULT_RULE)])
def test_bad_array_pointers(box, array, count, fault):
    for address in (0, 8, 0xFFFF_8000_0000_0000, (1 << 64) - 8):
        request = box.device.request("x", box.vmm.pid).but(**{array: address, count: 1})
        with raises(errno.EFAULT, fault):
            box.device.submit(request)
    assert box.device.vms() == []


# Limits


@pytest.mark.core
def test_longest_filter(box, here):
    """4096 instructions are checked, taken and run."""
    program = [(frames.LDH, 0, 0, 12)] * (abi.MAX_INSNS - 1) + [ACCEPT]
    box.add(rules=[(abi.REQUEST, abi.TO_VM, program)], linger=2 * abi.MS)
    box.wait_sleepy()
    box.request()
    assert box.stats().requests == 1


@pytest.mark.parametrize("count", [abi.MAX_RULES + 1, 0x10000, 0xFFFFFFFF])
def test_too_many_rules(box, count):
    rules = [(abi.REQUEST, abi.TO_VM, frames.EVERYTHING)] * (abi.MAX_RULES + 1)
    request = box.device.request("x", box.vmm.pid, rules=rules).but(n_rules=count)
    with raises(errno.E2BIG, abi.FAULT_RULE):
        box.device.submit(request)
    assert box.device.vms() == []


@pytest.mark.core
def test_most_rules(box):
    """64 rules are taken, and the last one counts."""
    rules = [(abi.IGNORE, abi.TO_VM, frames.NOTHING)] * (abi.MAX_RULES - 1)
    box.add(rules=[*rules, (abi.REQUEST, abi.TO_VM, frames.EVERYTHING)], linger=2 * abi.MS)
    assert box.get().n_rules == abi.MAX_RULES
    box.request()
    assert box.stats().requests == 1


@pytest.mark.parametrize("count", [abi.MAX_LINKS + 1, 0x10000, 0xFFFFFFFF])
def test_too_many_links(box, here, count):
    links = [(here, net.ifindex(box.tap))] * (abi.MAX_LINKS + 1)
    request = box.device.request("x", box.vmm.pid, links=links).but(n_links=count)
    with raises(errno.E2BIG, abi.FAULT_LINK):
        box.device.submit(request)
    assert box.device.vms() == []


@pytest.mark.core
def test_most_links(box, here):
    names = [net.tap(f"stl{number}", up=False) for number in range(abi.MAX_LINKS)]
    box.add(links=[(here, net.ifindex(name)) for name in names])
    assert [link.name.decode() for link in box.device.links(box.id)] == names


@pytest.mark.core
def test_no_links_and_no_rules(box):
    vm = box.device.add("x", box.vmm.pid, policy_=abi.policy(linger=0))
    host.wait(lambda: box.device.get(vm).state == abi.SLEEPY, "asleep")
    box.device.remove(vm)


# Links


@pytest.mark.core
def test_no_such_link(box, here):
    """An error at the second link lets go of the first."""
    good = (here, net.ifindex(box.tap))
    for ifindex in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        with raises(errno.ENODEV, abi.FAULT_LINK, 1):
            box.device.add("x", box.vmm.pid, links=[good, (here, ifindex)])
    assert box.device.vms() == []


@pytest.mark.core
def test_no_namespace(box, here):
    with open("/proc/self/ns/uts", "rb") as uts, open("/dev/null", "rb") as null:
        for fd in (-1, 1 << 20, uts.fileno(), null.fileno()):
            with pytest.raises(abi.Refused) as refusal:
                box.device.add("x", box.vmm.pid, links=[(fd, net.ifindex(box.tap))])
            assert refusal.value.fault == abi.FAULT_LINK and refusal.value.fault_index == 0
            assert refusal.value.errno in (errno.EBADF, errno.EINVAL)
    assert box.device.vms() == []


@pytest.mark.core
def test_link_of_another_vm(box, here, vmm):
    box.add()
    other = vmm()
    other.machine()
    with raises(errno.EBUSY, abi.FAULT_LINK, 0):
        box.device.add("x", other.pid, links=[(here, net.ifindex(box.tap))])
    assert len(box.device.vms()) == 1
    box.request()
    assert box.stats().requests == 1


@pytest.mark.core
def test_link_named_twice(box, here):
    link = (here, net.ifindex(box.tap))
    with raises(errno.EBUSY, abi.FAULT_LINK, 1):
        box.device.add("x", box.vmm.pid, links=[link, link])
    assert box.device.vms() == []


@pytest.mark.core
def test_link_that_is_not_ethernet(box, here):
    net.ip("tuntap add stn mode tun")
    with raises(errno.EOPNOTSUPP, abi.FAULT_LINK, 0):
        box.device.add("x", box.vmm.pid, links=[(here, net.ifindex("stn"))])
    assert box.device.vms() == []


# VMs


@pytest.mark.core
def test_many_vms(device):
    """As many VMs as are made in a few seconds; the limit itself takes minutes and gigabytes."""
    count = host.turns(150)
    several = kvm.Vmm()
    try:
        ids = []
        for number in range(count):
            fd = several.vm()
            copy = host.getfd(several.pid, fd)
            ids.append(device.add(f"vm{number}", several.pid, vm_fd=copy, policy_=abi.policy(linger=0)))
            os.close(copy)
        assert device.info().vms == count
        assert [vm.id for vm in device.vms()] == ids
        host.wait(lambda: all(vm.state == abi.SLEEPY for vm in device.vms()), "all asleep")
        for vm in ids[::2]:
            device.remove(vm)
        assert [vm.id for vm in device.vms()] == ids[1::2]
    finally:
        several.stop()
    host.wait(lambda: not device.vms(), "all gone with their VMM")


# Other rules for a VM that runs

QUIET = {"linger": 1 * abi.MS, "max_sleep": 60 * abi.SECOND, "request_timeout": 60 * abi.SECOND}


@pytest.mark.core
def test_set_rules_keeps_what_is_in_flight(scenes):
    one = scenes(**QUIET)
    one.wait_sleepy()
    one.request(1)
    one.device.set_rules(one.id, scene.RULES[:3])
    assert (one.get().n_rules, one.get().in_flight, one.get().state) == (3, 1, abi.AWAKE)
    one.answer(1)
    one.wait_sleepy()
    one.device.set_rules(one.id, [])
    one.request(2)
    assert (one.get().n_rules, one.get().in_flight, one.get().state) == (0, 0, abi.SLEEPY)
    assert one.stats().requests == 1


@pytest.mark.core
def test_set_rules_misses_no_packet(scenes):
    """Every request is one by the old rules and by the new ones, and so it is in between."""
    one = scenes(**QUIET)
    ignore = (abi.IGNORE, abi.TO_VM | abi.FROM_VM, frames.tcp_flag(frames.RST))
    sets = [scene.RULES, [ignore] * 5 + scene.RULES[1:3]]
    done = threading.Event()

    def replace():
        for turn in range(1, 1000):
            one.device.set_rules(one.id, sets[turn % 2])
            if done.is_set():
                return

    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        for turn in range(500):
            one.request(turn)
            one.vm.drain()
    finally:
        done.set()
        replacing.join()
    assert one.stats().requests == 500


@pytest.mark.core
@pytest.mark.parametrize("what", ["no end", "too long"])
def test_set_rules_that_are_bad_changes_nothing(scenes, what):
    one = scenes(**QUIET)
    one.wait_sleepy()
    bad = (abi.RESPONSE, abi.FROM_VM, BAD_FILTERS[what])
    with raises(errno.EINVAL, abi.FAULT_RULE, 1):
        one.device.set_rules(one.id, [scene.RULES[0], bad])
    with raises(errno.E2BIG, abi.FAULT_RULE, 0):
        one.device.set_rules(one.id, [scene.RULES[0]] * (abi.MAX_RULES + 1))
    assert one.get().n_rules == len(scene.RULES)
    one.request()
    assert one.get().in_flight == 1
