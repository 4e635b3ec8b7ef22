# SPDX-License-Identifier: GPL-2.0-only
"""Each allocation of each call fails once: the caller is told so, and all is as it was before."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from lib import abi, ebpf, frames, host, net
from lib.scene import RULES, UDP, UDP_PORT
from lib.tuned import LEVERS

pytestmark = [pytest.mark.core, pytest.mark.flavour("memory")]

FAILSLAB, FAIL_PAGES = Path("/sys/kernel/debug/failslab"), Path("/sys/kernel/debug/fail_page_alloc")
KPROBES = Path("/sys/kernel/debug/kprobes/list")
# Of an event that a VM may wait for.
PROBE = "kvm_inject_pending_timer_irqs"
# Where there are many and each takes a second, a full run has each of them fail, and any other one in so many.
FEW = 1 if host.FULL else 4
OTHER = [(abi.REQUEST, abi.TO_VM, frames.ipv4_port(UDP, True, UDP_PORT + 1), b"another text")] * 3


class Injector:
    """Has the n-th allocation that this thread makes fail (Documentation/fault-injection in the kernel's source)."""

    def __init__(self):
        self.fd = os.open("/proc/thread-self/fail-nth", os.O_RDWR)

    def injected(self, number, call):
        """Calls with that: (whether there was such an allocation, the error or None)."""
        error = None
        os.write(self.fd, b"%d" % number)
        try:
            call()
        except OSError as raised:
            error = raised.errno
        left = int(os.pread(self.fd, 16, 0).rstrip(b"\0\n"))
        os.write(self.fd, b"0")
        return left == 0, error

    def all(self, call, check, undo=lambda: None, step=1):
        """Every allocation in turn, or one in `step`. `check` is called when the call has failed, `undo` when it has not; returns
        how many allocations there are, give or take `step`."""
        for number in range(1, 2000, step):
            failed, error = self.injected(number, call)
            if not failed:
                assert error is None, f"without a failure: {os.strerror(error)}"
                undo()
                return number - 1
            # Some can be done without: then the call is as if nothing had been.
            assert error in (None, errno.ENOMEM), f"allocation {number}: {os.strerror(error)}"
            (undo if error is None else check)()
        raise AssertionError("there is no end")


class Anywhere:
    """Has one allocation of the module's fail, in whatever thread: the first for which so many bytes are not enough."""

    def __init__(self):
        symbols = (line.split() for line in Path("/proc/kallsyms").read_text().splitlines() if line.endswith("[sleepy]"))
        code = [int(address, 16) for address, kind, *_ in symbols if kind in "tT"]
        self.set("require-start", min(code))
        self.set("require-end", max(code) + 1)
        self.set("task-filter", "N")

    def set(self, name, value):
        (FAILSLAB / name).write_text(str(value))

    def arm(self, space):
        for name, value in (("space", space), ("times", 1), ("probability", 100)):
            self.set(name, value)

    def disarm(self):
        """Whether one has failed."""
        self.set("probability", 0)
        return int((FAILSLAB / "times").read_text()) == 0


@pytest.fixture
def injector(log):
    """It is done with the log: where memory is short, vmalloc() tells all about it. On this kernel a warning is a panic."""
    for name, value in (("verbose", "0"), ("ignore-gfp-wait", "N"), ("cache-filter", "N")):
        (FAILSLAB / name).write_text(value)
    for name, value in (("verbose", "0"), ("ignore-gfp-wait", "N"), ("ignore-gfp-highmem", "N"), ("min-order", "0")):
        (FAIL_PAGES / name).write_text(value)
    injector = Injector()
    yield injector
    os.close(injector.fd)
    found = "\n".join(log.read())
    assert not re.search("BUG|WARNING|KASAN|Oops|ODEBUG", found), found


@pytest.mark.fast  # it takes minutes
def test_load(injector, tmp_path):
    """Without the memory for it the module is not loaded, and nothing of it is left."""
    if host.loaded():
        host.unload()
    probes = KPROBES.read_text()
    # In memory: the test host's file system does not survive as many failures.
    module = shutil.copy(host.KO, tmp_path)

    def not_there():
        assert not host.loaded() and not os.path.exists(abi.DEVICE) and KPROBES.read_text() == probes

    count = injector.all(lambda: host.load(module), not_there, host.unload)
    print(f"{count} allocations")
    assert count > 20


def test_open(injector, sleepy):
    opened = []
    count = injector.all(lambda: opened.append(os.open(abi.DEVICE, os.O_RDWR)), lambda: None, lambda: os.close(opened.pop()))
    print(f"{count} allocations")
    assert count and not opened


def test_add(injector, box):
    """The fixture adds the VM once more in the end, and counts the module's references."""
    device = box.device
    with open("/proc/self/ns/net", "rb") as netns:
        policy = abi.policy(wake_on=abi.wake_on("request", "interrupt"))
        request = device.request(box.tap, box.vmm.pid, links=[(netns.fileno(), net.ifindex(box.tap))], rules=RULES, policy_=policy)
        references = host.refcount()

        def nothing():
            assert device.vms() == []
            host.wait(lambda: host.refcount() == references, "no reference is left")

        def gone():
            device.clear()
            nothing()

        count = injector.all(lambda: device.submit(request), nothing, gone, FEW)
    print(f"about {count} allocations")
    assert count > len(RULES)


@pytest.mark.fast  # it takes minutes
@LEVERS
def test_add_with_everything(injector, tuned, lever):
    """Each event that there is, a boost, an eBPF program, two links, the lever's group: it is refused, and nothing is attached, moved
    or kept; or it is all there."""
    scene, device, second = tuned.scene, tuned.scene.device, net.tap(f"{net.PREFIX}second")
    boost = {} if lever == abi.IDLE else {"flags": abi.BOOST, "boost_nice": -5}
    policy = abi.policy(lever=lever, linger=abi.MS, max_sleep=60 * abi.SECOND, wake_on=abi.wake_on(*abi.WAKE_EVENTS),
                        sleep_on=abi.sleep_on(*abi.SLEEP_EVENTS), **boost)
    program = ebpf.load(ebpf.constant(0))
    number = ebpf.id_of(program)
    with open("/proc/self/ns/net", "rb") as netns, tuned.group.fd() as group:
        request = device.request(
            scene.tap, scene.vmm.pid, policy_=policy, rules=[*RULES, (abi.PROGRAM, abi.TO_VM, program)],
            links=[(netns.fileno(), net.ifindex(tap)) for tap in (scene.tap, second)],
            group_fd=group if lever == abi.GROUP else -1)
        probes, references = KPROBES.read_text(), host.refcount()

        def nothing():
            assert device.vms() == [] and tuned.is_restored()
            host.wait(lambda: KPROBES.read_text() == probes, "nothing is attached any more")
            host.wait(lambda: host.refcount() == references, "no reference is left")

        def gone():
            vm, = device.vms()
            # A thread that there was no memory for is found by the next look round.
            host.wait(lambda: len(device.vcpus(vm.id)) == 2, "both vCPUs", 5)
            assert len(device.links(vm.id)) == 2
            assert device.rules(vm.id)[-1].prog_id == number and KPROBES.read_text() != probes
            device.clear()
            nothing()

        count = injector.all(lambda: device.submit(request), nothing, gone)
    os.close(program)
    host.wait(lambda: not ebpf.exists(number), "no reference to the program is left")
    print(f"{count} allocations")
    assert count > 2 * len(RULES)


def test_set(injector, scenes):
    scene = scenes(linger=abi.MS)

    def rules():
        return [(rule.direction, rule.text_len, rule.prog_id) for rule in scene.device.rules(scene.id)]

    before = rules(), scene.get().policy.linger
    policy = scene.policy.but(linger=2 * abi.MS)

    def as_before():
        assert (rules(), scene.get().policy.linger) == before

    def back():
        assert len(rules()) == len(OTHER) and scene.get().policy.linger == 2 * abi.MS
        scene.device.set_rules(scene.id, RULES, scene.policy)
        assert (rules(), scene.get().policy.linger) == before

    count = injector.all(lambda: scene.device.set_rules(scene.id, OTHER, policy), as_before, back)
    print(f"{count} allocations")
    assert count > len(OTHER)


def test_questions(injector, scenes):
    """Nothing of what only asks changes anything."""
    scene = scenes()
    device = scene.device
    for ask in (device.info, device.vms, lambda: device.stats(scene.id), lambda: device.vcpus(scene.id),
                lambda: device.links(scene.id), lambda: device.rules(scene.id)):
        injector.all(ask, lambda: None)
    assert [vm.id for vm in device.vms()] == [scene.id]


def test_set_lever(injector, tuned):
    """To the lever that takes most, and to events that somebody has to look out for."""
    scene, device = tuned.scene, tuned.scene.device
    tuned.add(abi.NICE)
    tuned.wait_lowered(abi.NICE)
    old = scene.policy
    new = old.but(lever=abi.GROUP, sleepy_nice=12, wake_on=abi.wake_on("timer", "hint"))

    def as_before():
        assert bytes(scene.get().policy) == bytes(old)
        assert PROBE not in KPROBES.read_text()

    def back():
        assert bytes(scene.get().policy) == bytes(new)
        assert PROBE in KPROBES.read_text()
        device.set(scene.id, old)
        as_before()

    with tuned.group.fd() as fd:
        count = injector.all(lambda: device.set(scene.id, new, fd), as_before, back, FEW)
    print(f"about {count} allocations")
    assert count > 4
    tuned.wait_lowered(abi.NICE)
    scene.request()
    assert tuned.is_restored()


@LEVERS
def test_remove(injector, tuned, lever):
    """Whoever gives back needs nothing for that, or tries again: it is never refused, and never done by halves."""
    device = tuned.scene.device

    def add():
        tuned.add(lever)
        tuned.wait_lowered(lever)

    def refused():
        raise AssertionError("it was not removed")

    def removed():
        assert device.vms() == [] and tuned.is_restored()
        add()

    add()
    count = injector.all(lambda: device.remove(tuned.scene.id), refused, removed)
    print(f"{count} allocations")
    device.clear()
    assert tuned.is_restored()


def test_thread_that_is_found(injector, scenes):
    """The look round that finds a vCPU's new thread has no memory for it: the next one has, and all is as if nothing had been."""
    scene = scenes(add=False, code="halt")
    vcpu = scene.vcpu_fd()
    scene.add(linger=1 * abi.MS, max_sleep=60 * abi.SECOND)
    scene.attached()
    scene.wait_sleepy()
    anywhere, failed = Anywhere(), 0
    for space in range(1, 1 << 14, 32 if host.FULL else 128):
        scene.vmm.halt(vcpu)
        anywhere.arm(space)
        scene.tids[:] = [scene.vmm.run(vcpu)]
        # To ask the module takes memory, too.
        host.wait(lambda: host.nice_of(scene.tids[0]) == 19, "its new thread is known", 5)
        if not anywhere.disarm():
            break
        failed += 1
        scene.attached()
        scene.request()
        assert scene.nices() == [0]
        scene.answer()
        scene.wait_sleepy()
    print(f"{failed} failures")
    assert failed > 4
