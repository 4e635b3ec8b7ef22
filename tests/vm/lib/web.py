# SPDX-License-Identifier: GPL-2.0-only
"""Real clients of a guest's HTTP and gRPC servers, and a server for a guest that calls one."""

import http.server
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from . import client, host, net

HTTP, GRPC = 8090, 8091
GRPC_CLIENT = Path(__file__).with_name("grpc_client.py")


def url(guest, path):
    return f"http://{guest.ip4}:{HTTP}{path}"


def start(netns, *command, **how):
    """Starts a program inside of a network namespace."""
    with net.inside(netns):
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, **how)


def run(netns, *command, code=0):
    """Runs one to its end and returns what it prints."""
    process = start(netns, *command, text=True, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate(timeout=60 * host.SLOW)
    finally:
        host.kill(process)
    assert process.returncode == code, f"{' '.join(map(str, command))}: exit {process.returncode}\n{output}"
    return output


def curl(netns, guest, *paths, options=(), code=0):
    """Fetches these pages on one connection, if the server lets it: [(status, HTTP version, new connections)]."""
    form = "%{http_code} %{http_version} %{num_connects}\n"
    each = [word for path in paths for word in (url(guest, path), "-o", "/dev/null")]
    lines = run(netns, "curl", "-sS", "-w", form, *options, *each, code=code).splitlines()
    return [tuple(line.split()) for line in lines]


def read(netns, guest, path, bytes_per_second=None):
    """curl, whose reader takes little at a time, and steadily: returns how many bytes it got.

    (--limit-rate lets a second's worth through, and then nothing for a second.)
    """
    step, got = 32768, 0
    if bytes_per_second:
        # Otherwise the kernel takes all of it for the reader.
        with net.inside(netns):
            net.sysctl("net/ipv4/tcp_rmem", f"4096 {2 * step} {2 * step}")
    with start(netns, "curl", "-sS", url(guest, path), stdin=subprocess.DEVNULL) as process:
        began = time.monotonic()
        while data := os.read(process.stdout.fileno(), step):
            got += len(data)
            if bytes_per_second:
                time.sleep(max(0, began + got / bytes_per_second - time.monotonic()))
    assert process.returncode == 0
    return got


def h2load(netns, guest, path, *options):
    """HTTP/2 requests, many at a time on one connection; the lines of h2load's report by their first word."""
    output = run(netns, "h2load", *options, url(guest, path))
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in output.splitlines()}


class Connection:
    """By hand, where a test decides what is in which segment."""

    def __init__(self, netns, guest):
        with net.inside(netns):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(20 * host.SLOW)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect((guest.ip4, HTTP))
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def head(self, what, *headers):
        self.send("\r\n".join((f"{what} HTTP/1.1", "Host: guest", *headers, "", "")).encode())

    def get(self, *paths):
        """Asks for pages, all of them in one segment."""
        self.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n".encode() for path in paths))

    def receive(self):
        """The next answer: (status, body)."""
        status = self.file.readline()
        assert status, "the guest has closed the connection"
        length = 0
        while (line := self.file.readline().strip()):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return int(status.split()[1]), self.file.read(length)

    def receive_some(self, length):
        """Some of an answer."""
        assert len(self.file.read(length)) == length

    def close(self):
        self.file.close()
        self.socket.close()

    def abort(self):
        """Closes it with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Datagrams:
    """A UDP flow to the guest's echo server."""

    def __init__(self, netns, guest):
        with net.inside(netns):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(10 * host.SLOW)
        self.socket.connect((guest.ip4, client.ECHO))

    def echo(self, payload=b"hello"):
        """A datagram there and back."""
        self.socket.send(payload)
        assert self.socket.recv(65536) == payload

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class GrpcClient:
    """A gRPC channel, in a process of its own."""

    def __init__(self, netns, guest):
        self.process = start(netns, sys.executable, "-P", GRPC_CLIENT, f"{guest.ip4}:{GRPC}", stdin=subprocess.PIPE)

    def send(self, kind, *messages):
        """Begins a call: unary_unary, unary_stream or stream_stream. Returns its number."""
        self.process.stdin.write(json.dumps([kind, messages]).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self, seconds=20):
        """The end of whichever call ends next: (its first message, its status, lengths of the answers)."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds * host.SLOW)
        assert ready, f"no gRPC call ended within {seconds * host.SLOW} s"
        return json.loads(self.process.stdout.readline())

    def ask(self, kind, *messages):
        self.send(kind, *messages)
        asked, status, lengths = self.receive()
        assert (asked, status) == (messages[0], "OK")
        return lengths

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10 * host.SLOW)
        finally:
            host.kill(self.process)
            self.process.stdout.close()


class Held:
    """An HTTP server beside the guest that answers when it is told to."""

    def __init__(self):
        self.asked, self.released = threading.Semaphore(0), threading.Semaphore(0)

    def wait_asked(self, seconds=10):
        assert self.asked.acquire(timeout=seconds * host.SLOW), "the guest has not called"

    def release(self):
        self.released.release()


@contextmanager
def held(netns, address, port):
    """Serves there."""
    one = Held()

    class Handler(http.server.BaseHTTPRequestHandler):
        """One answer: what was asked for."""

        def do_GET(self):
            one.asked.release()
            one.released.acquire(timeout=60 * host.SLOW)
            body = self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with net.inside(netns):
        server = http.server.ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def beside(guest, netns):
    """A second guest's tap in the namespace where the first one's is (plug.py: netns), which routes between them."""
    tap = guest.tap
    net.ip(f"link set {tap} down", f"link set {tap} address {guest.gateway_mac} netns {netns}")
    try:
        net.ip(f"link set {tap} up", f"address add {guest.host4}/24 dev {tap}", netns=netns)
        with net.inside(netns):
            net.sysctl("net/ipv4/ip_forward", 1)
        yield
    finally:
        net.ip(f"link set {tap} netns 1", check=False, netns=netns)
        net.ip(f"link set {tap} up", check=False)
