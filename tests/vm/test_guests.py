# SPDX-License-Identifier: GPL-2.0-only
"""Real Linux guests, real TCP, sleepyctl: each kind of backend in each kind of place (drawn in lib/plug.py).

    guest 1   QEMU without vhost-net, 1 vCPU
    guest 2   QEMU with vhost-net, 2 vCPUs
    guest 3   QEMU without vhost-net, 1 vCPU, its addresses on a VLAN
"""

import os
import time

import pytest

from lib import abi, client, host, net, plug
from lib.ctl import ctl, show, stats
from lib.watch import Watch

GUESTS = {1: {}, 2: {"vhost": True, "vcpus": 2}, 3: {"vlan": plug.VLAN}}
TIMES = ("--linger", "2ms", "--max-sleep", "60s")
HTTP = ("--request", "tcp dst port 8080", "--response", "tcp src port 8080")


@pytest.fixture
def boot(guests, sleepy):
    """Gives a guest that runs, with all weight on its threads."""
    def get(number):
        guest = guests.get(number, **GUESTS[number])
        assert [host.nice_of(tid) for tid in guest.tids()] == [0] * guest.vcpus
        return guest

    yield get
    if host.loaded():
        ctl("vm", "remove", "--all")
    for guest in guests.running.values():
        if guest.process.poll() is None:
            assert [host.nice_of(tid) for tid in guest.tids()] == [0] * guest.vcpus


def add(guest, *options, rules=HTTP, times=TIMES):
    return ctl("vm", "add", "--pid", guest.pid, "--name", "g", *rules, *times, *options)["added"]


def asleep(guest, nice=19):
    return (show("g")["state"] == "sleepy"
            and [host.nice_of(tid) for tid in guest.tids()] == [nice] * guest.vcpus)


def check_deliveries(recording, guest, least):
    """Whatever carries a request (it is the longest by far) meets threads that have their weight."""
    found = [(nices, event) for nices, event in
             recording.deliveries(guest.tap, dict.fromkeys(guest.tids(), 19)) if int(event.args["len"]) > 250]
    assert len(found) >= least, f"{len(found)} requests seen"
    late = [(event.time, nices) for nices, event in found if set(nices.values()) != {0}]
    assert not late, f"delivered to a guest without its weight: {late}"


@pytest.mark.parametrize("family", ["ip4", "ip6"])
@pytest.mark.parametrize("kind", plug.KINDS)
@pytest.mark.parametrize("number", [1, 2], ids=["qemu", "vhost"])
def test_matrix(boot, device, tracer, number, kind, family):
    """New connections and kept ones; the tap is found without being named; no timeout has to help."""
    guest = boot(number)
    address = getattr(guest, family)
    with plug.plug(guest, kind) as netns:
        client.get(netns, address)  # neighbours know each other from now on
        tasks = tracer.learn(guest.tids())
        assert add(guest, "--request-timeout", "30s")["links"] == [guest.tap]
        watch = Watch(device, guest, "g")
        link, = device.links(watch.id)
        where = f"/run/netns/{netns}" if kind == "netns" else "/proc/self/ns/net"
        assert (link.name.decode(), link.netns) == (guest.tap, os.stat(where).st_ino)
        watch.wait_sleepy()
        with tracer.recording(tasks, [guest.tap]) as recording:
            for _ in range(2):
                assert client.get(netns, address) == (200, b"pong\n")
                watch.wait_sleepy()
            with client.Connection(netns, address) as connection:
                for _ in range(3):
                    watch.wait_sleepy()
                    assert connection.ask("/ping") == (200, b"pong\n")
                watch.wait_sleepy()
            watch.wait_sleepy()
        check_deliveries(recording, guest, 5)
        for tid in guest.tids():
            nices = recording.nices(tid)
            assert nices == [0, 19] * (len(nices) // 2) and len(nices) >= 10
        numbers = watch.stats()
        assert numbers.requests >= 5 and numbers.responses >= 5
        assert numbers.wakes["request"] >= 5 and numbers.wakes["stir"] == 0
        assert numbers.timeouts == 0 and numbers.overflows == 0


@pytest.mark.parametrize("kind", ["vlan", "vlan-bridged"])
def test_vlan(boot, device, tracer, kind):
    """The tag is in the packet's metadata, not in the packet; the expression names it."""
    guest = boot(3)
    rules = ("--request", "vlan 100 and tcp dst port 8080", "--response", "vlan 100 and tcp src port 8080")
    with plug.plug(guest, kind) as netns:
        client.get(netns, guest.ip4)
        tasks = tracer.learn(guest.tids())
        add(guest, "--request-timeout", "30s", rules=rules)
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        with tracer.recording(tasks, [guest.tap]) as recording:
            for address in (guest.ip4, guest.ip6, guest.ip4):
                assert client.get(netns, address) == (200, b"pong\n")
                watch.wait_sleepy()
        check_deliveries(recording, guest, 3)
        numbers = watch.stats()
        assert numbers.requests >= 3 and numbers.timeouts == 0


def test_wrong_vlan_is_another_vlan(boot, device):
    guest = boot(3)
    with plug.plug(guest, "vlan") as netns:
        add(guest, rules=("--request", "vlan 101 and tcp dst port 8080"))
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        assert client.get(netns, guest.ip4)[0] == 200  # slowly, but it answers
        assert watch.stats().requests == 0 and watch.sleepy()


@pytest.mark.parametrize("number", [1, 2], ids=["qemu", "vhost"])
def test_udp(boot, device, number):
    guest = boot(number)
    with plug.plug(guest, "bridged") as netns:
        client.echo(netns, guest.ip4)
        add(guest, rules=("--request", "udp dst port 8081", "--response", "udp src port 8081"))
        watch = Watch(device, guest, "g")
        for address in (guest.ip4, guest.ip6):
            watch.wait_sleepy()
            client.echo(netns, address)
        watch.wait_sleepy()
        numbers = watch.stats()
        assert (numbers.requests, numbers.responses, numbers.timeouts) == (2, 2, 0)
        assert (numbers.wakes["request"], numbers.sleeps["response"]) == (2, 2)


def test_overlapping_requests(boot, device):
    """It is awake until the last of three has its answer."""
    guest = boot(2)
    with plug.plug(guest, "bridged") as netns:
        connections = [client.Connection(netns, guest.ip4) for _ in range(3)]
        add(guest, "--request-timeout", "60s")
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        for connection, ms in zip(connections, (1500, 700, 1)):
            connection.send(f"/sleep?ms={ms * host.SLOW}")
        host.wait(lambda: watch.vm().in_flight in (2, 3), "in flight")
        for left, connection in zip((2, 1, 0), reversed(connections)):
            assert connection.receive()[0] == 200
            host.wait(lambda left=left: watch.vm().in_flight <= left, "answered", 1)
            if left:
                assert not watch.sleepy(), "asleep with a request in flight"
        watch.wait_sleepy()
        for connection in connections:
            connection.close()
        watch.wait_sleepy()
        assert watch.stats().timeouts == 0


def test_client_that_aborts(boot, device):
    guest = boot(1)
    with plug.plug(guest, "bridged") as netns:
        client.get(netns, guest.ip4)
        add(guest, "--request-timeout", "60s")
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        connection = client.Connection(netns, guest.ip4)
        watch.wait_sleepy()
        connection.send("/sleep?ms=60000")
        assert watch.vm().in_flight == 1
        connection.abort()
        watch.wait_sleepy()
        numbers = watch.stats()
        assert numbers.closed >= 1 and numbers.sleeps["close"] >= 1 and numbers.timeouts == 0


def test_guest_that_does_not_answer(boot, device):
    guest = boot(1)
    with plug.plug(guest, "bridged") as netns, client.Connection(netns, guest.ip4) as connection:
        add(guest, "--request-timeout", "400ms")
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        connection.send("/sleep?ms=3000")
        assert watch.vm().in_flight == 1
        watch.wait_sleepy()
        assert watch.stats().timeouts == 1
        assert connection.receive()[0] == 200  # it may well come later


def test_client_closes_first(boot, device):
    """Its FIN asks for nothing, and the guest's own ends the flow: no timeout has to."""
    guest = boot(2)
    with plug.plug(guest, "bridged") as netns:
        client.get(netns, guest.ip4)
        add(guest, "--request-timeout", "60s")
        watch = Watch(device, guest, "g")
        for _ in range(3):
            watch.wait_sleepy()
            with client.Connection(netns, guest.ip4) as connection:
                connection.ask("/ping")
            watch.wait_sleepy()
        assert watch.vm().in_flight == 0 and watch.stats().timeouts == 0


def test_sleepy_guest_still_runs(boot, device):
    """What no rule asks for is served too, by a guest that stays sleepy: slower, never stalled."""
    guest = boot(1)
    with plug.plug(guest, "bridged") as netns:
        client.get(netns, guest.ip4)
        add(guest, rules=("--request", "tcp dst port 9"))
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        for _ in range(3):
            assert client.get(netns, guest.ip4) == (200, b"pong\n")
        assert watch.sleepy() and watch.stats().requests == 0


def test_observe(boot, device, tracer):
    guest = boot(2)
    with plug.plug(guest, "bridged") as netns:
        client.get(netns, guest.ip4)
        tasks = tracer.learn(guest.tids())
        with tracer.recording(tasks) as recording:
            add(guest, "--lever", "observe")
            watch = Watch(device, guest, "g")
            for _ in range(3):
                host.wait(lambda: device.get(watch.id).state == abi.SLEEPY, "asleep")
                client.get(netns, guest.ip4)
            numbers = stats("g")
            ctl("vm", "remove", "g")
        assert recording.renices() == []
        assert numbers["requests"] >= 3 and numbers["wakes"]["request"] >= 3
        assert numbers["exec_ns"]["count"] >= 3 and numbers["exec_ns"]["p50"] > 0
        assert 0 <= numbers["idle_share"] <= 1


def test_tap_deleted_under_a_guest(boot, device, guests):
    """QEMU holds a tap that is gone: the guest stays awake, the host stays well."""
    guest = boot(3)
    with plug.plug(guest, "vlan-bridged") as netns:
        add(guest)
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        with client.Connection(netns, guest.ip4) as connection:
            connection.send("/sleep?ms=60000")
            net.ip(f"link del {guest.tap}")
            connection.abort()
        assert device.get(watch.id).lost_links == 1
        time.sleep(0.2)
        assert not watch.sleepy() and [host.nice_of(tid) for tid in guest.tids()] == [0]
    guests.drop(3)


@pytest.mark.parametrize("number", [1, 2], ids=["qemu", "vhost"])
def test_killed_in_mid_request(boot, device, guests, number):
    guest = boot(number)
    with plug.plug(guest, "bridged") as netns:
        add(guest)
        watch = Watch(device, guest, "g")
        watch.wait_sleepy()
        connection = client.Connection(netns, guest.ip4)
        connection.send("/work?n=1000000")
        assert watch.vm().in_flight == 1
        guest.process.kill()
        connection.abort()
        guest.process.wait(timeout=20)
        host.wait(lambda: not device.vms(), "the VM is gone", 3)
    guests.drop(number)
