# SPDX-License-Identifier: GPL-2.0-only
"""What protocols do to a flow, by real servers in real guests (tests/guest) and real clients: curl, h2load, gRPC.

Pauses of an emulated host make a rule about time untestable for a moment: such an exchange is repeated.
"""

import time

import pytest

from lib import abi, client, plug, web
from lib.ctl import ctl
from lib.watch import Watch, add, answer, booting, check_over, learnt, smooth, unbroken

TRIES = 6
MIB = 1 << 20
RULES = {"http": ("--request", "tcp dst port 8090", "--response", "tcp src port 8090"),
         "grpc": ("--request", "tcp dst port 8091", "--response", "tcp src port 8091")}

pytestmark = pytest.mark.usefixtures("sleepy")


@pytest.fixture
def boot(guests, device):
    with booting(guests, device) as boot:
        yield boot


BACKENDS = pytest.mark.parametrize("served", [1, 2], ids=["qemu", "vhost"], indirect=True)


@pytest.fixture
def served(request, boot):
    """A guest in a bridge, which has been heard of: (guest, namespace of its clients)."""
    guest = boot(getattr(request, "param", 1))
    with plug.plug(guest, "bridged") as netns:
        client.get(netns, guest.ip4)
        yield guest, netns


def repeat(exchange, what):
    """Repeats an exchange until nobody was held up in it; `exchange` says so."""
    assert any(exchange() for _ in range(TRIES)), f"held up in each of {TRIES} tries: {what}"


# HTTP/1.1


def test_kept_connection(device, served):
    """Of eight pages on one connection, each wakes the guest at most once."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    pages = ["/ping", "/work?n=2000"] * 4
    results = web.curl(netns, guest, *pages, options=("--rate", "4/s"))
    assert results == [("200", "1.1", str(int(first))) for first in [True] + [False] * 7]
    stats = check_over(watch)
    assert stats.requests >= 8 and stats.responses >= 8
    assert 2 <= stats.wakes["request"] <= stats.requests
    assert stats.sleeps["response"] >= 2


@BACKENDS
@pytest.mark.parametrize("path, rate", [
    pytest.param(f"/data?bytes={4 * MIB}", 4 * MIB / 3, id="slow reader"),
    pytest.param(f"/stream?chunks=4&bytes={MIB}&ms=0", 4 * MIB / 3, id="slow reader, chunked"),
    pytest.param(f"/data?bytes={8 * MIB}", None, id="fast reader"),
])
def test_long_answer(device, served, path, rate):
    """Seconds of segments: asleep before the first, asleep after the last, and in between not once its pauses are known."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])

    def exchange():
        watch.wait_sleepy()
        with watch.recording() as record:
            assert web.read(netns, guest, path, rate) >= 4 * MIB
        part = answer(record)
        return smooth(part) and unbroken(learnt(part))

    repeat(exchange, f"the long answer {path}")
    stats = check_over(watch)
    assert sum(stats.exec_) <= stats.requests < stats.responses


def test_long_request(device, served):
    """An upload asks with every segment; the guest is awake until it has answered the last."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    with web.Connection(netns, guest) as connection:
        watch.wait_sleepy()
        connection.head("POST /sink", "Content-Length: 100000")
        for _ in range(10):
            connection.send(b"x" * 10000)
            time.sleep(0.03)
            vm = watch.vm()
            assert (vm.state, vm.in_flight) == (abi.AWAKE, 1)
        assert connection.receive() == (200, b'{"bytes":100000}\n')
    check_over(watch)


def test_pieces(device, served):
    """A stream of short pieces: once it is clear that it goes on, its pauses are not the end of it."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    gap, pieces = 0.09, 12

    def exchange():
        watch.wait_sleepy()
        with watch.recording() as record:
            web.curl(netns, guest, f"/stream?chunks={pieces}&bytes=100&ms={gap * 1000:.0f}")
        part = answer(record)
        if not smooth(part, limit=1.5 * gap) or part[-1].responses - part[0].responses < pieces // 2:
            return False
        assert unbroken([sample for sample in part if sample.responses >= part[0].responses + 2])
        return True

    repeat(exchange, "an answer in pieces")
    check_over(watch)


def test_pipelined_requests(device, served):
    """The first of two answers is not the last: the guest stays awake for the second."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])

    def exchange():
        with web.Connection(netns, guest) as connection:
            watch.wait_sleepy()
            before = watch.stats()
            began = time.monotonic()
            connection.get("/sleep?ms=150")
            connection.get("/sleep?ms=151")
            assert connection.receive() == (200, b'{"ms":150}\n')
            first, between = time.monotonic() - began, watch.sample()
            assert connection.receive() == (200, b'{"ms":151}\n')
            second, after = time.monotonic() - began - first, watch.stats()
        if second > 1.5 * first:
            return False
        assert not between.sleepy and between.in_flight == 1
        # Perhaps it sleeps already again; but not for a second time.
        assert sum(after.sleeps.values()) <= sum(before.sleeps.values()) + 1
        assert after.wakes["request"] == before.wakes["request"] + 1
        return True

    repeat(exchange, "two pipelined requests")
    check_over(watch)


def test_pipelined_in_one_segment(device, served):
    """Requests that come in one segment count as one, and all of them are answered."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    with web.Connection(netns, guest) as connection:
        connection.get("/ping", "/work?n=20000", "/ping")
        assert [connection.receive()[0] for _ in range(3)] == [200] * 3
    check_over(watch)


# Clients that give up


def test_reset_in_mid_request(device, served):
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    connection = web.Connection(netns, guest)
    connection.head("POST /sink", "Content-Length: 1000000")
    connection.send(b"x" * 50000)
    assert watch.vm().in_flight == 1
    connection.abort()
    stats = check_over(watch)
    assert stats.closed == 1 and stats.sleeps["close"] == 1


def test_reset_in_mid_answer(device, served):
    """What is left of the answer then is not waited for."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    connection = web.Connection(netns, guest)
    connection.get(f"/stream?chunks=1000&bytes={MIB}&ms=0")
    connection.receive_some(200000)
    assert watch.vm().in_flight == 1
    connection.abort()
    assert check_over(watch).closed >= 1


def test_client_that_loses_patience(device, served):
    """curl closes with a FIN; the server drops the request, and closes too."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    web.curl(netns, guest, "/sleep?ms=30000", options=("--max-time", "0.5"), code=28)
    stats = check_over(watch)
    assert stats.closed == 1 and stats.sleeps["close"] == 1


# HTTP/2 and gRPC


def test_http2(device, served):
    """Pages one after the other on one connection."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    results = web.curl(netns, guest, *["/ping", "/work?n=2000"] * 3, options=("--http2-prior-knowledge",))
    assert results == [("200", "2", str(int(first))) for first in [True] + [False] * 5]
    stats = check_over(watch)
    assert 1 <= stats.wakes["request"] <= stats.requests


@pytest.mark.parametrize("path", ["/ping", "/sleep?ms=20", "/data?bytes=100000"])
def test_http2_streams(device, served, path):
    """Ten requests at a time, answered in any order."""
    guest, netns = served
    watch = add(device, guest, *RULES["http"])
    report = web.h2load(netns, guest, path, "-c1", "-m10", "-n50")
    assert report["status codes"].startswith("50 2xx"), report
    stats = check_over(watch)
    assert 1 <= stats.wakes["request"] <= stats.requests


@pytest.fixture
def called(device, served, tmp_path):
    """A gRPC server and its client, by the profile: (watch, client)."""
    guest, netns = served
    manifest = tmp_path / "grpc.toml"
    manifest.write_text(f"""
        schema_version = 1

        [[vm]]
        name = "g"
        pid = {guest.pid}
        profile = "grpc"
        ports = [{web.GRPC}]
        max_sleep = "60s"
        request_timeout = "60s"
    """)
    ctl("apply", manifest)
    watch = Watch(device, guest, "g")
    with web.GrpcClient(netns, guest) as channel:
        channel.ask("unary_unary", "/ping")
        yield watch, channel
    check_over(watch)


def test_grpc_unary(called):
    """Each call wakes it once; what HTTP/2 says besides does not."""
    watch, channel = called
    for _ in range(4):
        check_over(watch)
        before = watch.stats()
        assert channel.ask("unary_unary", "/work?n=2000")
        after = check_over(watch)
        assert after.wakes["request"] == before.wakes["request"] + 1
        assert after.requests > before.requests and after.responses > before.responses


def test_grpc_streams(called):
    watch, channel = called
    before = check_over(watch)
    assert channel.ask("unary_stream", "/stream?chunks=16&bytes=65536&ms=0") == [65536] * 16
    assert channel.ask("unary_stream", "/stream?chunks=5&bytes=100&ms=20") == [100] * 5
    assert channel.ask("stream_stream", "/ping", "/sleep?ms=50", "/ping") == [5, len('{"ms":50}\n'), 5]
    after = check_over(watch)
    assert after.requests - before.requests >= 3
    assert after.wakes["request"] > before.wakes["request"]


def test_grpc_calls_at_once(called):
    """Two calls on one flow: the answer to one is not the answer to the other."""
    watch, channel = called

    def exchange():
        check_over(watch)
        before = watch.stats()
        began = time.monotonic()
        channel.send("unary_unary", "/sleep?ms=120")
        channel.send("unary_unary", "/sleep?ms=220")
        assert channel.receive()[:2] == ["/sleep?ms=120", "OK"]
        first, between = time.monotonic() - began, watch.sample()
        assert channel.receive()[:2] == ["/sleep?ms=220", "OK"]
        second, after = time.monotonic() - began - first, watch.stats()
        if second > 1.5 * first:
            return False
        assert not between.sleepy and between.in_flight == 1
        assert sum(after.sleeps.values()) <= sum(before.sleeps.values()) + 1
        return True

    repeat(exchange, "two gRPC calls")


def test_grpc_by_port(device, served):
    """Nothing of HTTP/2 is known to the rules; a long stream is one answer."""
    guest, netns = served
    with web.GrpcClient(netns, guest) as channel:
        channel.ask("unary_unary", "/ping")
        watch = add(device, guest, *RULES["grpc"])

        def exchange():
            watch.wait_sleepy()
            with watch.recording() as record:
                assert channel.ask("unary_stream", "/stream?chunks=16&bytes=65536&ms=0") == [65536] * 16
            part = answer(record, handshake=False)
            assert record[-1].responses > record[0].responses
            return len(part) > 1 and smooth(part) and unbroken(part)

        repeat(exchange, "a gRPC stream")
    check_over(watch)


# UDP


@BACKENDS
def test_udp(device, served):
    """A datagram there and one back, time after time on one flow."""
    guest, netns = served
    watch = add(device, guest, "--request", "udp dst port 8081", "--response", "udp src port 8081")
    with web.Datagrams(netns, guest) as flow:
        for turn in range(1, 6):
            watch.wait_sleepy()
            flow.echo()
            watch.wait_sleepy()
            stats = watch.stats()
            assert (stats.requests, stats.responses, stats.timeouts) == (turn, turn, 0)
            assert (stats.wakes["request"], stats.sleeps["response"]) == (turn, turn)


def test_udp_one_way(device, served):
    """A datagram that wakes and is not answered, as far as the rules know: `linger`, and back to sleep."""
    guest, netns = served
    watch = add(device, guest, "--wake", "udp dst port 8081")
    before = watch.stats()
    with web.Datagrams(netns, guest) as flow:
        for turn in range(1, 4):
            flow.echo()
            watch.wait_sleepy()
            stats = watch.stats()
            assert stats.wakes["rule"] == turn
            assert stats.sleeps["rest"] == before.sleeps["rest"] + turn
    assert (stats.requests, stats.responses, stats.timeouts) == (0, 0, 0)


def test_udp_request_without_response(device, served):
    """One that is taken for a request, and has no answer: `request_timeout`, and back to sleep."""
    guest, netns = served
    times = ("--linger", "200us", "--max-sleep", "60s", "--request-timeout", "300ms")
    watch = add(device, guest, "--request", "udp dst port 8081", times=times)
    with web.Datagrams(netns, guest) as flow:
        for turn in range(1, 4):
            flow.echo()
            assert watch.vm().in_flight == 1
            watch.wait_sleepy()
            stats = watch.stats()
            assert (stats.requests, stats.timeouts, stats.sleeps["timeout"]) == (turn, turn, turn)
