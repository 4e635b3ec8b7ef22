# SPDX-License-Identifier: GPL-2.0-only
"""What wakes a VM and what lets it sleep besides requests and answers; each caused by a real guest."""

import errno
import threading
import time
from pathlib import Path

import pytest

from lib import abi, actor, frames, host

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND
OTHER_PORT = frames.udp(True, 10000, 9)


@pytest.fixture
def acting(scenes):
    """A guest that acts; it sleeps by itself at first, if `response` lets it. vCPUs but the first wait for it to
    start them, as those do that a guest has taken offline."""
    def make(vcpus=1, **policy):
        policy = {"linger": 1 * MS, "max_sleep": LONG} | policy
        scene = scenes(vcpus=vcpus, code="actor", irqchip=True, **policy)
        scene.attached(1)
        return scene
    return make


def kprobes():
    return Path("/sys/kernel/debug/kprobes/list").read_text()


def doorbell(scene, scenes):
    other = scenes(code="actor", irqchip=True, add=False)
    fd = scene.vmm.irqfd(scene.kvm_fd, actor.VECTOR)
    other.vmm.doorbell(other.kvm_fd, actor.PORT, scene.vmm.pid, fd)
    other.guest.do(actor.OUT)


WAKES = {
    "interrupt": lambda scene, _: scene.vmm.msi(scene.kvm_fd, actor.VECTOR),
    "timer": lambda scene, _: scene.guest.do(actor.TIMER, 5 * MS),
    "ipi": lambda scene, _: scene.guest.do(actor.IPI),
    "doorbell": doorbell,
    "hint": lambda scene, _: scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_WAKE),
    "packet": lambda scene, _: scene.host.send(OTHER_PORT),
}


@pytest.mark.parametrize("cause", WAKES)
def test_wakes_who_wants_it(acting, scenes, cause):
    scene = acting(vcpus=2, wake_on=abi.wake_on(cause))
    scene.wait_sleepy()
    WAKES[cause](scene, scenes)
    scene.wait_wakes(cause)
    scene.wait_sleeps("rest", 2)
    assert {name: count for name, count in scene.stats().wakes.items() if count} == {cause: 1}


@pytest.mark.parametrize("cause", WAKES)
def test_wakes_nobody_else(acting, scenes, cause):
    """Another event that the VM wants, and another VM that wants this event, change nothing."""
    scene = acting(vcpus=2, wake_on=abi.wake_on(*set(WAKES) - {cause}))
    other = acting(wake_on=abi.wake_on(cause))
    scene.wait_sleepy()
    other.wait_sleepy()
    WAKES[cause](scene, scenes)
    time.sleep(0.3 * host.SLOW)
    assert sum(scene.stats().wakes.values()) == 0 and sum(other.stats().wakes.values()) == 0
    assert scene.is_sleepy() and other.is_sleepy()


def test_interrupt_by_an_irqfd_of_the_vmm(acting):
    scene = acting(wake_on=abi.wake_on("interrupt"))
    scene.wait_sleepy()
    fd = scene.vmm.irqfd(scene.kvm_fd, actor.VECTOR)
    scene.vmm.signal(fd)
    scene.wait_wakes("interrupt")
    host.wait(lambda: scene.guest.interrupts() >= 1, "the guest has its interrupt")


def test_interrupt_by_a_line(acting):
    """A line that goes up is an interrupt, one that goes down is none."""
    scene = acting(wake_on=abi.wake_on("interrupt"))
    scene.wait_sleepy()
    scene.vmm.irq_line(scene.kvm_fd, 10, 0)
    time.sleep(0.1)
    assert scene.stats().wakes["interrupt"] == 0
    scene.vmm.irq_line(scene.kvm_fd, 10, 1)
    scene.wait_wakes("interrupt")


def test_doorbell_is_not_an_interrupt_of_the_vmm(acting, scenes):
    scene = acting(wake_on=abi.wake_on("interrupt"))
    scene.wait_sleepy()
    doorbell(scene, scenes)
    host.wait(lambda: scene.guest.interrupts() == 1, "the guest has its interrupt")
    assert scene.stats().wakes["interrupt"] == 0 and scene.is_sleepy()


def test_timer_waits_for_its_slack(acting):
    slack = 200 * MS
    scene = acting(wake_on=abi.wake_on("timer"), timer_slack=slack)
    scene.wait_sleepy()
    began = time.monotonic_ns()
    scene.guest.do(actor.TIMER, 1 * MS)
    host.wait(lambda: scene.guest.interrupts() == 1, "the timer has fired")
    scene.wait_wakes("timer")
    assert time.monotonic_ns() - began >= slack


def test_slack_shorter_than_linger(acting):
    scene = acting(wake_on=abi.wake_on("timer"), timer_slack=1 * MS)
    scene.wait_sleepy()
    scene.set(linger=20 * abi.SECOND, sleep_on=abi.sleep_on("hint"))
    scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_SLEEP)
    scene.wait_sleeps("hint")
    scene.guest.do(actor.TIMER, 1 * MS)
    scene.wait_wakes("timer")


@pytest.mark.fast
def test_timer_whose_work_is_done_wakes_nobody(acting):
    slack = 500 * MS * host.SLOW  # for the guest to halt in
    scene = acting(wake_on=abi.wake_on("timer"), timer_slack=slack)
    scene.wait_sleepy()
    scene.guest.do(actor.TIMER, 20 * MS)
    scene.guest.do(actor.HLT)  # until the timer; then it spins
    host.wait(lambda: scene.guest.interrupts() == 1, "the timer has fired")
    scene.guest.do(actor.HLT)
    time.sleep(2 * slack / 1e9)
    assert scene.stats().wakes["timer"] == 0 and scene.is_sleepy()


@pytest.mark.fast
def test_linger_begins_anew_with_each_event(acting):
    linger = 150 * MS * host.SLOW
    scene = acting(wake_on=abi.wake_on("interrupt"), linger=linger)
    scene.wait_sleepy()
    began = time.monotonic_ns()
    for _ in range(20):
        scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
        time.sleep(linger / 5e9)
    if time.monotonic_ns() - began < 8 * linger:  # nobody held this test up
        assert scene.stats().wakes["interrupt"] == 1
    scene.wait_sleeps("rest", 2)


def test_events_while_in_flight_change_nothing(acting):
    scene = acting(wake_on=abi.wake_on(*abi.WAKE_EVENTS), sleep_on=abi.sleep_on(*abi.SLEEP_EVENTS), quiet=5 * MS,
                   spin=5 * MS)
    scene.wait_sleepy()
    scene.request()
    scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_SLEEP)
    time.sleep(0.2)
    vm = scene.get()
    assert vm.state == abi.AWAKE and vm.in_flight == 1
    scene.answer()
    scene.wait_sleepy()


# Sleep


def test_sleeps_when_every_vcpu_has_halted(acting):
    scene = acting(sleep_on=abi.sleep_on("idle"), wake_on=abi.wake_on("interrupt"))
    time.sleep(0.2)
    assert scene.get().state == abi.AWAKE, "it spins"
    scene.guest.do(actor.HLT)
    scene.wait_sleeps("idle")
    scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
    scene.wait_wakes("interrupt")
    time.sleep(0.1)
    assert scene.get().state == abi.AWAKE, "it spins again"


def test_one_vcpu_that_runs_is_not_idle(acting):
    """And one that the guest has not started does not run."""
    scene = acting(vcpus=2, sleep_on=abi.sleep_on("idle"))
    time.sleep(0.3)
    assert scene.get().state == abi.AWAKE
    scene.guest.do(actor.HLT)
    scene.wait_sleeps("idle")


def test_sleeps_when_it_burns_cpu_time(acting):
    scene = acting(sleep_on=abi.sleep_on("spin"), spin=20 * MS)
    scene.wait_sleeps("spin")
    assert scene.stats().oncpu["idle"] >= 20 * MS
    scene.wait_sleepy()


def halts():
    """Exits of all guests because they have halted."""
    return int(Path("/sys/kernel/debug/kvm/halt_exits").read_text())


def test_sleeps_in_a_storm_of_halts(acting):
    """It halts again and again with an interrupt pending, and never blocks: all of its CPU's time goes into exits."""
    scene = acting(sleep_on=0)
    scene.guest.do(actor.STORM)
    before = halts()
    host.wait(lambda: halts() > before + 1000, "it halts without end")
    blocked = scene.device.vcpus(scene.id)[0].halted
    before = halts()
    scene.set(sleep_on=abi.sleep_on("spin"), spin=50 * MS)
    scene.wait_sleeps("spin")
    assert scene.device.vcpus(scene.id)[0].halted - blocked < (halts() - before) / 10


@pytest.mark.fast
def test_device_io_is_no_spin(acting):
    scene = acting(sleep_on=abi.sleep_on("spin"), spin=500 * MS * host.SLOW)
    began = time.monotonic_ns()
    gap = 0
    while time.monotonic_ns() - began < 1500 * MS * host.SLOW:
        before = time.monotonic_ns()
        scene.guest.do(actor.OUT)
        time.sleep(0.02)
        gap = max(gap, time.monotonic_ns() - before)
    if gap < 100 * MS * host.SLOW:  # nobody held this test up
        assert scene.stats().sleeps["spin"] == 0
    scene.wait_sleeps("spin")


@pytest.mark.fast
def test_sleeps_when_it_is_quiet(acting):
    scene = acting(sleep_on=abi.sleep_on("quiet"), quiet=300 * MS * host.SLOW, wake_on=abi.wake_on("packet"))
    for send in scene.guest.do, lambda _: scene.host.send(OTHER_PORT), lambda _: scene.answer():
        for _ in range(10):
            send(actor.OUT)
            time.sleep(0.05)
    assert scene.stats().sleeps["quiet"] == 0
    scene.wait_sleeps("quiet")
    scene.host.send(OTHER_PORT)
    scene.wait_wakes("packet")


def test_sleeps_when_the_guest_says_so(acting):
    scene = acting(sleep_on=abi.sleep_on("hint"), wake_on=abi.wake_on("hint"))
    for count in 1, 2, 3:
        assert scene.get().state == abi.AWAKE
        scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_SLEEP)
        scene.wait_sleeps("hint", count)
        scene.wait_sleepy()
        scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_WAKE)
        scene.wait_wakes("hint", count)
        host.wait(lambda: scene.nices() == [0], "it has its weight")


@pytest.mark.parametrize("number, argument", [(abi.HINT_HYPERCALL + 1, 0), (abi.HINT_HYPERCALL, 2),
                                              (abi.HINT_HYPERCALL, 0xFFFFFFFF), (1, 0)])
def test_other_hypercalls_are_no_hints(acting, number, argument):
    scene = acting(sleep_on=abi.sleep_on("hint"), wake_on=abi.wake_on("hint"))
    scene.guest.hypercall(number, argument, many=True)
    time.sleep(0.2)
    stats = scene.stats()
    assert sum(stats.sleeps.values()) == 0 and sum(stats.wakes.values()) == 0 and stats.hints_refused == 0


def test_hints_are_limited(acting):
    scene = acting(sleep_on=abi.sleep_on("hint"), wake_on=abi.wake_on("hint"))
    began = time.monotonic_ns()
    scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_SLEEP, many=True)
    scene.wait_sleeps("hint")

    def done():
        scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_WAKE)
        return scene.stats().wakes["hint"]

    host.wait(done, "the guest is through with its hints", 20)
    seconds = (time.monotonic_ns() - began) // abi.SECOND + 2
    refused = scene.stats().hints_refused
    print(f"{refused} of {actor.MANY} refused, in up to {seconds} seconds of the clock")
    assert refused >= max(1, actor.MANY - seconds * abi.HINT_RATE)


def test_a_guest_cannot_lower_another(acting):
    quiet, loud = acting(sleep_on=abi.sleep_on("hint")), acting(sleep_on=abi.sleep_on("hint"))
    loud.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_SLEEP, many=True)
    loud.wait_sleeps("hint")
    assert quiet.get().state == abi.AWAKE and sum(quiet.stats().sleeps.values()) == 0


def test_stirred_it_goes_back_to_sleep(acting):
    """Though the guest does not say so again."""
    scene = acting(sleep_on=abi.sleep_on("hint"), max_sleep=50 * MS)
    scene.guest.hypercall(abi.HINT_HYPERCALL, abi.HINT_SLEEP)
    scene.wait_sleeps("rest", 3)
    assert scene.stats().wakes["stir"] >= 3


@pytest.mark.parametrize("direction", [abi.TO_VM, abi.FROM_VM])
def test_rules_without_a_flow(scenes, direction):
    """Class wake and class sleep, in either direction; they need no subscription."""
    to_vm = direction == abi.TO_VM
    rules = [(abi.WAKE, direction, frames.ipv4_port(17, to_vm, 1)), (abi.SLEEP, direction, frames.ipv4_port(17, to_vm, 2))]
    scene = scenes(add=False)
    scene.add(rules=rules, linger=1 * MS, max_sleep=LONG, sleep_on=0, wake_on=0)
    side = scene.host if to_vm else scene.vm
    for count in 1, 2, 3:
        side.send(frames.udp(to_vm, 10000, 2))
        scene.wait_sleeps("rule", count)
        assert scene.is_sleepy()
        side.send(frames.udp(to_vm, 10000, 1))
        scene.wait_wakes("rule", count)
        assert scene.nices() == [0]
    stats = scene.stats()
    assert stats.requests == 0 and scene.get().in_flight == 0


def test_requests_are_packets(scenes):
    """With `packet` and without `request`, one wakes like any other packet, and comes into no flight."""
    scene = scenes(linger=1 * MS, max_sleep=LONG, wake_on=abi.wake_on("packet"))
    scene.wait_sleepy()
    scene.request()
    vm, stats = scene.get(), scene.stats()
    assert vm.in_flight == 0 and stats.wakes["packet"] == 1 and stats.wakes["request"] == 0
    scene.wait_sleeps("rest", 2)


def test_without_request_requests_do_not_wake(scenes):
    scene = scenes(linger=1 * MS, max_sleep=LONG, wake_on=0)
    scene.wait_sleepy()
    scene.request()
    vm, stats = scene.get(), scene.stats()
    assert vm.state == abi.SLEEPY and vm.in_flight == 0
    assert stats.requests == 1 and sum(stats.wakes.values()) == 0


def test_ignored_packets_neither_wake_nor_count(scenes):
    scene = scenes(code="actor", irqchip=True, add=False)
    ignore = [(abi.IGNORE, abi.TO_VM | abi.FROM_VM, frames.EVERYTHING)]
    scene.add(rules=ignore, linger=1 * MS, max_sleep=LONG, sleep_on=abi.sleep_on("quiet"), quiet=50 * MS,
              wake_on=abi.wake_on("packet"))
    for _ in range(20):
        scene.request()
        time.sleep(0.01)
    scene.wait_sleeps("quiet")
    scene.request()
    time.sleep(0.05)
    assert sum(scene.stats().wakes.values()) == 0


# What is attached, and when


def test_attached_only_while_somebody_wants_it(acting):
    assert "kvm_set_irq" not in kprobes()
    scene = acting()
    assert "kvm_set_irq" not in kprobes()
    scene.set(wake_on=abi.wake_on("request", "interrupt"))
    assert "kvm_set_irq" in kprobes() and "irqfd_wakeup" in kprobes()
    assert "kvm_inject_pending_timer_irqs" not in kprobes()
    other = acting(wake_on=abi.wake_on("doorbell", "timer"))
    assert "kvm_inject_pending_timer_irqs" in kprobes()
    other.device.remove(other.id)
    assert "kvm_set_irq" in kprobes() and "kvm_inject_pending_timer_irqs" not in kprobes()
    scene.set(wake_on=abi.wake_on("request"))
    assert "kvm_set_irq" not in kprobes()


def test_detached_when_the_vm_is_gone(acting):
    scene = acting(wake_on=abi.wake_on(*abi.WAKE_EVENTS), sleep_on=abi.sleep_on(*abi.SLEEP_EVENTS))
    assert "kvm_set_irq" in kprobes()
    scene.vmm.stop()
    host.wait(lambda: "kvm_set_irq" not in kprobes(), "nothing is attached any more")
    assert scene.device.vms() == []


def test_subscribed_and_not_while_events_come(acting):
    """All of them, all the time, while what the VM wants changes under them."""
    scene = acting(vcpus=2)
    fd = scene.vmm.irqfd(scene.kvm_fd, actor.VECTOR)
    for turn in range(host.turns(30)):
        everything = turn % 2 == 0
        scene.set(wake_on=abi.wake_on(*abi.WAKE_EVENTS) if everything else 0,
                  sleep_on=abi.sleep_on(*abi.SLEEP_EVENTS) if everything else 0)
        scene.vmm.signal(fd)
        scene.guest.do(actor.IPI)
        scene.host.send(OTHER_PORT)
        scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
        scene.guest.hypercall(abi.HINT_HYPERCALL, turn % 2, many=True)
    scene.set(wake_on=abi.wake_on("interrupt"), sleep_on=abi.sleep_on("response"))
    scene.wait_sleepy()
    count = scene.stats().wakes["interrupt"]
    scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
    scene.wait_wakes("interrupt", count + 1)


def test_removed_while_somebody_subscribes_it(acting):
    """Of a VM that comes and goes under a second caller, the last one that came hears of its interrupts."""
    scene = acting(wake_on=abi.wake_on("request"))
    wanting, over = scene.policy.but(wake_on=abi.wake_on("request", "interrupt")), threading.Event()

    def subscribe():
        while not over.is_set():
            try:
                scene.device.set(scene.id, wanting)
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ESRCH)

    subscribing = threading.Thread(target=subscribe)
    subscribing.start()
    try:
        for _ in range(host.turns(100)):
            scene.device.remove(scene.id)
            scene.add(linger=1 * MS, max_sleep=LONG, wake_on=abi.wake_on("request", "interrupt"))
    finally:
        over.set()
        subscribing.join()
    scene.wait_sleepy()
    scene.vmm.msi(scene.kvm_fd, actor.VECTOR)
    scene.wait_wakes("interrupt")
    scene.device.remove(scene.id)
    host.wait(lambda: "kvm_set_irq" not in kprobes(), "nothing is attached any more")


@pytest.mark.parametrize("changes", [
    {"sleep_on": 1 << 1}, {"sleep_on": 1 << 8}, {"sleep_on": 1 << 31}, {"wake_on": 1 << 1}, {"wake_on": 1 << 2},
    {"wake_on": 1 << 11}, {"wake_on": 1 << 31}, {"quiet": 0}, {"quiet": MS - 1}, {"quiet": abi.MAX_TIME + 1},
    {"spin": 0}, {"spin": abi.MAX_TIME + 1}, {"timer_slack": abi.MAX_TIME + 1}], ids=str)
def test_policy_out_of_range(box, changes):
    with abi.raises(errno.EINVAL, abi.FAULT_POLICY):
        box.add(**changes)
    box.add()
    with abi.raises(errno.EINVAL, abi.FAULT_POLICY):
        box.device.set(box.id, abi.policy(**changes))
