# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel says of a Linux guest, now or over a time. Running sleepyctl takes a tenth of a second."""

import threading
import time
from collections import namedtuple
from contextlib import contextmanager

from . import abi, host
from .ctl import ctl

GUESTS = {1: {}, 2: {"vhost": True, "vcpus": 2}}
TIMES = ("--linger", "200us", "--max-sleep", "60s", "--request-timeout", "60s")
PERIOD = 0.005
# The module waits 0.2 s for more of an answer. A record with longer pauses than this shows nothing.
SMOOTH = 0.12 * host.SLOW

Sample = namedtuple("Sample", "time sleepy in_flight calls requests responses slept")


class Watch:
    """One guest, by the name it was added under."""

    def __init__(self, device, guest, name):
        self.device, self.tids = device, guest.tids()
        self.id = next(vm.id for vm in device.vms() if vm.name.decode() == name)

    def vm(self):
        return self.device.get(self.id)

    def stats(self):
        return self.device.stats(self.id)

    def sleepy(self):
        vm = self.vm()
        by_nice = vm.policy.lever == abi.NICE
        return vm.state == abi.SLEEPY and all(host.nice_of(tid) == (19 if by_nice else 0) for tid in self.tids)

    def wait_sleepy(self, seconds=4):
        host.wait(self.sleepy, f"the guest sleeps; {self}", seconds, step=0.002)

    def sample(self):
        # In this order, what is seen asleep was so no later than what it had answered by then.
        vm, stats = self.vm(), self.stats()
        return Sample(time.monotonic(), vm.state == abi.SLEEPY, vm.in_flight, vm.calls, stats.requests,
                      stats.responses, sum(stats.sleeps.values()))

    @contextmanager
    def recording(self):
        """Samples it until the end of the body."""
        record, over = [self.sample()], threading.Event()

        def follow():
            while not over.wait(PERIOD):
                record.append(self.sample())

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield record
        finally:
            over.set()
            thread.join()
            record.append(self.sample())

    def __repr__(self):
        vm, stats = self.vm(), self.stats()
        return (f"state {vm.state}, {vm.in_flight} in flight, {vm.calls} calls; {stats.requests} requests, "
                f"{stats.responses} responses, {stats.closed} closed, {stats.timeouts} timed out, "
                f"wakes {stats.wakes}, sleeps {stats.sleeps}")


@contextmanager
def booting(guests, device):
    """A function that boots a guest, by its number. In the end, all of them have the weight that they had."""
    yield lambda number: guests.get(number, **GUESTS[number])
    device.clear()
    for guest in guests.running.values():
        assert [host.nice_of(tid) for tid in guest.tids()] == [0] * guest.vcpus


def add(device, guest, *rules, times=TIMES):
    """Adds a guest that is plugged in, and waits until it sleeps."""
    name = f"g{guest.number}"
    ctl("vm", "add", "--pid", guest.pid, "--name", name, *rules, *times)
    watch = Watch(device, guest, name)
    watch.wait_sleepy()
    return watch


def check_over(watch):
    """All is answered, and nothing had to be given up."""
    def over():
        vm = watch.vm()
        return vm.in_flight == vm.calls == 0 and watch.sleepy()

    host.wait(over, f"nothing is in flight, and it sleeps; {watch}", 4, step=0.002)
    stats = watch.stats()
    assert (stats.timeouts, stats.overflows) == (0, 0), watch
    return stats


def answer(record, handshake=True):
    """The part of a record from an answer's first segment to the one before its last.

    A handshake has an answer of its own.
    """
    first, last = record[0].responses + handshake, record[-1].responses
    return [sample for sample in record if first < sample.responses < last]


def smooth(part, limit=SMOOTH):
    """Whether this part of a record shows progress all the time: nobody was held up for longer."""
    news = [sample for before, sample in zip([None, *part], part)
            if before is None or before.responses != sample.responses]
    longest = max((b.time - a.time for a, b in zip(news, news[1:])), default=0)
    print(f"{len(news)} steps, the longest took {longest:.3f} s")
    return len(news) > 3 and longest < limit


def learnt(part):
    """The second half of a part of a record.

    Nobody can know how long a stream is going to pause. The module learns it from the pauses so far (flows.rs), so that
    it may sleep in a first long one, and a few times until it has learnt; not again and again.
    """
    sleeps(part)
    half = (part[0].responses + part[-1].responses) // 2
    return [sample for sample in part if sample.responses >= half]


def sleeps(part):
    """When this part of a smooth record has a sleep, be it between two samples; there are not many."""
    part = part[1:]  # the state of the first may be from before its segment
    first, last = part[0], part[-1]
    slept = [f"{sample.time - first.time:.3f} s, segment {sample.responses - first.responses}"
             for before, sample in zip(part, part[1:]) if sample.slept > before.slept]
    print(f"asleep in the midst of {last.responses - first.responses} segments: {slept}")
    assert len(slept) <= 3
    return slept


def unbroken(part):
    """Whether there was no sleep in this part of a smooth record."""
    if sleeps(part):
        return False
    part = part[1:]
    assert not any(sample.sleepy for sample in part), "asleep, and not for the first time"
    assert all(sample.in_flight for sample in part), "not in flight before the last segment"
    return True
