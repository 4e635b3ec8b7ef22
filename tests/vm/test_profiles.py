# SPDX-License-Identifier: GPL-2.0-only
"""Profiles that need no rules, with Linux guests that are served all the same.

    guest 1   QEMU without vhost-net, 1 vCPU, halts when it has nothing to do
    guest 2   QEMU with vhost-net, 2 vCPUs, the same
    guest 4   QEMU with vhost-net, 1 vCPU, asks for requests without end
"""

import pytest

from lib import client, host, plug
from lib.ctl import ctl
from lib.watch import Watch

GUESTS = {1: {}, 2: {"vhost": True, "vcpus": 2}, 4: {"vhost": True, "busy": True}}
HALTS = [1, 2]
BUSY = 4


@pytest.fixture
def profiled(guests, device, tmp_path):
    """A guest that is plugged in, and looked after with a profile: (watch, guest, namespace)."""
    plugs = []

    def make(number, profile, more=""):
        guest = guests.get(number, **GUESTS[number])
        plugs.append(plug.plug(guest, "bridged"))
        netns = plugs[-1].__enter__()
        client.get(netns, guest.ip4)
        manifest = tmp_path / "m.toml"
        manifest.write_text(f'schema_version = 1\n[[vm]]\nname = "g"\npid = {guest.pid}\nprofile = "{profile}"\n{more}')
        ctl("apply", manifest)
        return Watch(device, guest, "g"), guest, netns

    yield make
    device.clear()
    for one in reversed(plugs):
        one.__exit__(None, None, None)


@pytest.fixture(scope="module", autouse=True)
def no_busy_guest_after(guests):
    yield
    if BUSY in guests.running:
        guests.drop(BUSY)


def slept(watch, causes, count=1):
    def often():
        sleeps = watch.stats().sleeps
        return sum(sleeps[cause] for cause in causes.split()) >= count
    host.wait(often, f"{count} x asleep by {causes}; at first {watch}", 10)


def woke(watch, causes, count=1):
    def often():
        wakes = watch.stats().wakes
        return sum(wakes[cause] for cause in causes.split()) >= count
    host.wait(often, f"{count} x awake by {causes}; at first {watch}", 10)


@pytest.mark.parametrize("number", HALTS)
def test_passthrough(profiled, number):
    """Without a link: what happens on the way of a packet is seen by its interrupt, the end by the halt."""
    watch, guest, netns = profiled(number, "passthrough", "auto_link = false\n")
    assert watch.vm().n_links == 0
    for count in 1, 2, 3:
        slept(watch, "idle", count)
        watch.wait_sleepy()
        assert client.get(netns, guest.ip4)[0] == 200
        woke(watch, "interrupt", count)
    assert watch.stats().requests == 0


def test_passthrough_of_a_guest_that_never_halts(profiled):
    watch, guest, netns = profiled(BUSY, "passthrough", "auto_link = false\n")
    for count in 1, 2, 3:
        slept(watch, "spin", count)
        watch.wait_sleepy()
        assert client.get(netns, guest.ip4)[0] == 200
        woke(watch, "interrupt", count)
    assert watch.stats().sleeps["idle"] == 0


@pytest.mark.parametrize("number, causes", [(1, "idle quiet"), (2, "idle quiet"), (BUSY, "spin quiet")])
def test_opaque(profiled, number, causes):
    """No rule says what a packet means; each wakes, before the guest sees it."""
    watch, guest, netns = profiled(number, "opaque")
    for count in 1, 2, 3:
        slept(watch, causes, count)
        watch.wait_sleepy()
        assert client.get(netns, guest.ip4)[0] == 200
        woke(watch, "packet interrupt", count)  # it may have something else to do just before
    stats = watch.stats()
    assert stats.wakes["packet"] >= 1 and stats.requests == 0 and stats.time["in_flight"] == 0


def test_batch(profiled):
    """A guest that computes on and on sleeps, and is stirred; a request wakes it, if a rule knows it."""
    rules = "".join(f'[[vm.rule]]\nclass = "{c}"\nfilter = "tcp {d} port 8080"\n'
                    for c, d in (("request", "dst"), ("response", "src")))
    watch, guest, netns = profiled(BUSY, "batch", 'max_sleep = "500ms"\n' + rules)
    watch.wait_sleepy()
    woke(watch, "stir", 2)
    assert client.get(netns, guest.ip4)[0] == 200
    woke(watch, "request")
    slept(watch, "response")
    assert watch.stats().responses >= 1


def test_timer_of_a_linux_guest(profiled):
    watch, guest, netns = profiled(1, "passthrough", 'auto_link = false\nwake_on = ["timer"]\n')
    slept(watch, "idle")
    woke(watch, "timer", 3)
    stats = watch.stats()
    assert stats.wakes["interrupt"] == 0 and stats.sleeps["idle"] >= 3
