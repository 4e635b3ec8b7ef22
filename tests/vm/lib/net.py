# SPDX-License-Identifier: GPL-2.0-only
"""Taps, bridges, namespaces and VLANs, and raw access to a tap from both sides."""

import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from . import host

TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
PREFIX = "st"  # of every device and namespace that the tests make


def ip(*lines, check=True, netns=None):
    """Runs `ip` commands, one per line, in one process."""
    text = "\n".join(line for block in lines for line in block.strip().splitlines())
    command = ["ip", *(["-n", netns] if netns else []), "-batch", "-"]
    done = subprocess.run(command, input=text + "\n", text=True, capture_output=True,
                          timeout=30 * host.SLOW, check=False)
    if check and done.returncode:
        raise AssertionError(f"ip: {done.stderr.strip()}\n{text}")
    return done


def tap(name, up=True, vnet_hdr=False):
    """A tap that stays when nobody holds it open. IPv6 is off: nothing but the test's frames is on it."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)
    sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
    if up:
        set_up(name)
    return name


def set_up(name):
    """`ip link set NAME up`, without another program to start."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sh22x", name.encode(), 0)
        flags = struct.unpack_from("16sh", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), flags | IFF_UP))


def delete_tap(name):
    """Undoes tap(): it goes when its last descriptor does. False if it is no such tap, or is held."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = int(Path(f"/sys/class/net/{name}/tun_flags").read_text(), 16) & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, TUNSETPERSIST, 0)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def sysctl(path, value):
    Path("/proc/sys", path).write_text(str(value))


def ifindex(name, netns=None):
    if netns is None:
        return socket.if_nametoindex(name)
    with inside(netns):
        return socket.if_nametoindex(name)


def exists(name):
    return name in (entry for _, entry in socket.if_nameindex())


@contextmanager
def inside(netns):
    """This thread in another network namespace."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.setns(other, os.CLONE_NEWNET)
        yield
    finally:
        os.setns(own, os.CLONE_NEWNET)
        os.close(own)
        os.close(other)


def clean():
    """Removes whatever a test left."""
    gone = [f"link del {name}" for _, name in socket.if_nameindex()
            if name.startswith(PREFIX) and not delete_tap(name)]
    gone += [f"netns del {name}" for name in os.listdir("/run/netns") if name.startswith(PREFIX)] \
        if os.path.isdir("/run/netns") else []
    if gone:
        subprocess.run(["ip", "-force", "-batch", "-"], input="\n".join(gone) + "\n", text=True,
                       capture_output=True, timeout=30 * host.SLOW, check=False)


def let_go(pid, name):
    """From now on a tap that this process holds goes with its last descriptor."""
    fd = host.getfd(pid, host.tap_fds(pid)[name])
    fcntl.ioctl(fd, TUNSETPERSIST, 0)
    os.close(fd)


class HostSide:
    """Sends frames out of a device as the host does, through its whole transmit path."""

    def __init__(self, device):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind((device, 0))

    def send(self, frame):
        self.socket.send(frame)

    def close(self):
        self.socket.close()


class VmSide:
    """Reads and writes frames as the VM does: through a copy of the VMM's own tap descriptor."""

    def __init__(self, pid, device, header=0):
        self.fd = host.getfd(pid, host.tap_fds(pid)[device])
        os.set_blocking(self.fd, False)
        self.header = header

    def send(self, frame):
        os.write(self.fd, b"\0" * self.header + frame)

    def receive(self, seconds=2):
        """The next frame, None if there is none."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return None
        try:
            return os.read(self.fd, 65536)[self.header:]
        except BlockingIOError:
            return None

    def expect(self, frame, seconds=2):
        """Waits for this very frame."""
        deadline = time.monotonic() + seconds * host.SLOW
        while time.monotonic() < deadline:
            if self.receive(0.1) == frame:
                return
        raise AssertionError("the frame never came to the VM")

    def drain(self):
        """Throws away what has come."""
        while self.receive(0) is not None:
            pass

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
