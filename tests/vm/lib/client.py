# SPDX-License-Identifier: GPL-2.0-only
"""A client of a guest: HTTP by hand on a plain TCP socket, so that a test decides what is sent and when."""

import socket
import struct

from . import host, net

HTTP, ECHO = 8080, 8081


class Connection:
    """A TCP connection to a guest's HTTP server, from inside of a network namespace."""

    def __init__(self, netns, address, timeout=20):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with net.inside(netns):
            self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout * host.SLOW)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect((address, HTTP))

    def send(self, path, body=b"", close=False):
        """Sends a request. The head alone is longer than any bare segment."""
        method = "POST" if body else "GET"
        head = (f"{method} {path} HTTP/1.1\r\nHost: guest\r\nX-Fill: {'x' * 200}\r\n"
                f"Content-Length: {len(body)}\r\n" + ("Connection: close\r\n" if close else "") + "\r\n")
        self.socket.sendall(head.encode() + body)

    def receive(self):
        """The answer: (status, body)."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n")
                      if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += self._more()
        return int(head.split()[1]), body

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the guest has closed the connection")
        return data

    def ask(self, path, body=b"", close=False):
        self.send(path, body, close)
        return self.receive()

    def abort(self):
        """Closes it with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def get(netns, address, path="/ping"):
    """One request on a connection of its own, which the guest closes."""
    with Connection(netns, address) as connection:
        return connection.ask(path, close=True)


def echo(netns, address, payload=b"hello"):
    """A datagram there and back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with net.inside(netns):
        side = socket.socket(family, socket.SOCK_DGRAM)
    with side:
        side.settimeout(10 * host.SLOW)
        side.sendto(payload, (address, ECHO))
        assert side.recv(65536) == payload
