# SPDX-License-Identifier: GPL-2.0-only
"""Guests that call somebody else while they serve a request: nothing to do until the answer."""

import socket
import time
from contextlib import contextmanager

import pytest

from lib import abi, client, host, net, plug, web
from lib.watch import TIMES, add, booting, check_over

HTTP = ("--request", "tcp dst port 8090", "--response", "tcp src port 8090")
CALL = 9000
CALLS = (*HTTP, "--call", f"tcp dst port {CALL}", "--answer", f"tcp src port {CALL}")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
CHAIN = (*HTTP, "--call", "tcp dst port 8090", "--answer", "tcp src port 8090")

pytestmark = pytest.mark.usefixtures("sleepy")


@pytest.fixture
def boot(guests, device):
    with booting(guests, device) as boot:
        yield boot


@pytest.fixture
def calling(device, boot):
    """A guest, its client, and a server that it calls: (watch, guest, namespace, server)."""
    guest = boot(1)
    with plug.plug(guest, "bridged") as netns, web.held(netns, guest.host4, CALL) as server:
        client.get(netns, guest.ip4)
        yield add(device, guest, *CALLS), guest, netns, server


def call_path(guest):
    return f"/call?to={guest.host4}:{CALL}&path=/stage?of=two"


def test_sleeps_until_its_call_is_answered(calling):
    """It sleeps with a request in flight, and is awake for the rest of its work."""
    watch, guest, netns, server = calling
    with web.Connection(netns, guest) as connection:
        for turn in range(1, 4):
            connection.get(call_path(guest))
            server.wait_asked()
            watch.wait_sleepy()
            vm, before = watch.vm(), watch.stats()
            assert (vm.in_flight, vm.calls) == (1, 1)
            assert before.sleeps["call"] >= turn
            server.release()
            assert connection.receive() == (200, b"/stage?of=two")
            after = check_over(watch)
            assert after.wakes["answer"] > before.wakes["answer"]
            assert after.calls > turn and after.answers > turn


def test_no_sleep_for_a_call_with_more_to_do(calling):
    """Another request is in flight: the guest may be busy with that one."""
    watch, guest, netns, server = calling
    with web.Connection(netns, guest) as one, web.Connection(netns, guest) as other:
        one.get(call_path(guest))
        server.wait_asked()
        watch.wait_sleepy()
        other.get("/sleep?ms=1000")
        host.wait(lambda: watch.vm().in_flight == 2, "both in flight")
        slept = watch.sample().slept
        for _ in range(10):
            sample = watch.sample()
            assert (sample.sleepy, sample.in_flight, sample.calls, sample.slept) == (False, 2, 1, slept)
            time.sleep(0.05)
        assert other.receive() == (200, b'{"ms":1000}\n')
        watch.wait_sleepy()
        vm = watch.vm()
        assert (vm.in_flight, vm.calls) == (1, 1)
        server.release()
        assert one.receive() == (200, b"/stage?of=two")
    check_over(watch)


def test_call_that_is_never_answered(calling):
    """Its client gives up; the guest's own call goes with its connection."""
    watch, guest, netns, server = calling
    connection = web.Connection(netns, guest)
    connection.get(call_path(guest))
    server.wait_asked()
    watch.wait_sleepy()
    connection.abort()
    watch.wait_sleepy()
    assert watch.vm().in_flight == 0
    server.release()
    check_over(watch)


@contextmanager
def listener(netns, address, port, room=None):
    """A socket; with little `room`, it takes a few segments at once, and no more before they are read."""
    with net.inside(netns):
        server = socket.socket()
    with server:
        if room:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        server.settimeout(20 * host.SLOW)
        server.bind((address, port))
        server.listen()
        yield server


@contextmanager
def called(connection, guest, server, length):
    """Has the guest call the server with so long a body, and answers when that is read: its connection."""
    connection.get(f"/call?to={guest.host4}:{CALL}&bytes={length}&path=/")
    peer, _ = server.accept()
    with peer:
        peer.settimeout(20 * host.SLOW)
        yield peer
        peer.sendall(OK)
    assert connection.receive() == (200, b"ok")


def parts(peer, length, most):
    """Reads a request with so long a body, no more than `most` at once: what there is after each part."""
    said = b""
    while len(said.partition(b"\r\n\r\n")[2]) < length:
        part = peer.recv(most)
        assert part, "the guest has hung up"
        said += part
        yield said


def test_call_that_takes_long_to_say(device, boot):
    """Whom it calls takes little at a time: the guest is not parked with more of it to send."""
    guest, length = boot(1), 400_000
    with plug.plug(guest, "bridged") as netns, listener(netns, guest.host4, CALL, 4096) as server:
        client.get(netns, guest.ip4)
        watch = add(device, guest, *CALLS, "--lever", "park")
        with web.Connection(netns, guest) as connection, called(connection, guest, server, length) as peer:
            for said in parts(peer, length, 8192):
                vm = watch.vm()
                # What is left towards the end may be on its way already.
                assert len(said) > length / 2 or (vm.state, vm.in_flight, vm.calls) == (abi.AWAKE, 1, 0)
                time.sleep(0.01)
            watch.wait_sleepy()
            assert (watch.vm().in_flight, watch.vm().calls) == (1, 1)
        check_over(watch)


def test_long_calls_of_a_guest_that_polls(device, guests):
    """It pushes in the midst of a call, and waits for room: it goes on when there is some, and is not parked until then."""
    guest, length = guests.get(31, busy=True), 400_000
    with plug.plug(guest, "bridged") as netns, listener(netns, guest.host4, CALL) as server:
        client.get(netns, guest.ip4)
        watch = add(device, guest, *CALLS, "--lever", "park", times=(*TIMES, "--park-max", "60s"))
        with web.Connection(netns, guest) as connection:
            for _ in range(10):
                with called(connection, guest, server, length) as peer:
                    for _ in parts(peer, length, 1 << 16):
                        pass
        check_over(watch)


def test_chain(device, boot):
    """One guest calls the next: each is awake while it has something to do itself."""
    first, second = boot(1), boot(2)
    with plug.plug(first, "netns") as netns, web.beside(second, netns):
        path = f"/call?to={second.ip4}:{web.HTTP}&path=/sleep?ms=500"
        web.curl(netns, first, path)
        one, two = add(device, first, *CHAIN), add(device, second, *HTTP)
        with web.Connection(netns, first) as connection:
            for turn in range(1, 4):
                one.wait_sleepy()
                two.wait_sleepy()
                connection.get(path)
                host.wait(lambda: two.vm().in_flight == 1 and one.sleepy(), f"the first waits; {one}; {two}")
                assert connection.receive() == (200, b'{"ms":500}\n')
                stats, stats2 = check_over(one), check_over(two)
                assert stats.sleeps["call"] >= turn and stats.wakes["answer"] >= turn
                assert stats2.wakes["request"] >= turn
                assert stats2.sleeps["response"] + stats2.sleeps["close"] >= turn
                assert stats2.calls == 0
