# SPDX-License-Identifier: GPL-2.0-only
"""A rule sees what tcpdump on the same device shows: the same expression counts the same packets.

       test: packet socket      ->  st0 (tap)  ->  tiny VM
       test: packet socket      ->  stv (VLAN 100) on st0
                    sleepy, tcpdump <-  st0    <-  test, through the tiny VM's tap descriptor

and for what GSO makes of TCP, a Linux guest (drawn in lib/plug.py).
"""

import re
import signal
import socket
import struct
import subprocess
import time
from contextlib import contextmanager

import pytest

from lib import abi, client, frames, host, net, plug, trace
from lib.ctl import ctl

SOL_PACKET, PACKET_VNET_HDR = 263, 15


class Tcpdump:
    """Counts what an expression matches on a device, both ways."""

    def __init__(self, device, expression):
        self.process = subprocess.Popen(
            ["tcpdump", "-i", device, "--immediate-mode", "-B", "8192", "-s", "128", "-n", "-p", "-w", "/dev/null",
             expression], text=True, stderr=subprocess.PIPE)

    def wait_ready(self):
        line = ""
        while "listening on" not in line:
            line = self.process.stderr.readline()
            assert line, "tcpdump does not take this expression"

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        text = self.process.communicate(timeout=20 * host.SLOW)[1]
        assert re.search(r"^0 packets dropped by kernel", text, re.MULTILINE), text
        return int(re.search(r"^(\d+) packets captured", text, re.MULTILINE)[1])


@contextmanager
def counting(pid, device, expression):
    """Hands out a dictionary that has, when the block is left, what each of both has counted."""
    dump = Tcpdump(device, expression)
    vm = ctl("vm", "add", "--pid", pid, "--name", "f", "--no-tcp-defaults", "--lever", "observe",
             "--request", expression, "--response", expression)["added"]["id"]
    dump.wait_ready()
    counts = {}
    with abi.Device() as handle:
        before = handle.stats(vm)
        yield counts
        time.sleep(0.1)
        after = handle.stats(vm)
        handle.remove(vm)
    counts["to VM"], counts["from VM"] = after.requests - before.requests, after.responses - before.responses
    counts["tcpdump"] = dump.stop()


def mixed():
    """Frames of many kinds; each is sent both ways."""
    for way in (True, False):
        for six in (False, True):
            for vlan in (None, 100, 101):
                how = {"ipv6": six, "vlan": vlan}
                yield way, frames.udp(way, 1000, 53, b"q" * 20, **how)
                yield way, frames.udp(way, 1000, 8081, b"q" * 900, **how)
                yield way, frames.tcp(way, 2000, 8080, frames.SYN, **how)
                yield way, frames.tcp(way, 2000, 8080, frames.ACK, **how)
                yield way, frames.tcp(way, 2000, 8080, frames.ACK | frames.PSH, b"GET / HTTP/1.1\r\n\r\n", **how)
                yield way, frames.tcp(way, 2000, 22, frames.RST, **how)
        yield way, frames.ethernet(way, 0x0806, b"\0\1\10\0\6\4\0\1" + b"\0" * 20)
        yield way, frames.ethernet(way, 0x88CC, b"\0" * 50)
        # In two tags: the outer one is taken out of the packet, the inner one is not.
        inner = frames.udp(way, 1000, 53, vlan=200)
        yield way, inner[:12] + struct.pack("!HH", 0x8100, 100) + inner[12:]
        yield way, inner[:12] + struct.pack("!HH", 0x88A8, 100) + inner[12:]


EXPRESSIONS = [
    "tcp[tcpflags] & (tcp-syn|tcp-rst) != 0 or greater 500", "vlan 100 and tcp port 8080", "not vlan",
    "tcp dst port 8080 or (vlan and tcp dst port 8080)", "vlan 100 and vlan 200",
    "not (ip or arp) or (vlan and ip6 and ip6[53] & 8 != 0)", "ether[12:2] = 0x8100",
]


@pytest.fixture
def plain(scenes):
    """A tiny VM whose tap carries plain and tagged frames."""
    scene = scenes(add=False, code="halt")
    net.ip(f"link add link {scene.tap} name stv type vlan id 100")
    net.sysctl("net/ipv6/conf/stv/disable_ipv6", 1)
    net.set_up("stv")
    scene.tagged = net.HostSide("stv")
    yield scene
    scene.tagged.close()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_same_count_as_tcpdump(plain, expression):
    with counting(plain.vmm.pid, plain.tap, expression) as counts:
        for to_vm, frame in mixed():
            (plain.host if to_vm else plain.vm).send(frame)
            if to_vm and frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                plain.tagged.send(frame)  # the tag comes in the metadata
            plain.vm.drain()
    assert counts["to VM"] + counts["from VM"] == counts["tcpdump"]
    assert counts["tcpdump"] > 0, "nothing matched: nothing was shown"


def test_tag_in_metadata(plain, tracer):
    """What the test above takes for granted: a VLAN device's frames have their tag beside the packet."""
    with tracer.recording({}, [plain.tap]) as recording:
        plain.tagged.send(frames.udp(True, 1, 2))
        plain.host.send(frames.udp(True, 1, 2, vlan=100))
        plain.vm.send(frames.udp(False, 1, 2, vlan=100))
    tags = [event.args["vlan_tagged"] for event in recording.frames(trace.OUT, plain.tap)]
    assert tags == ["1", "0"]


@pytest.mark.parametrize("number", [1, 2], ids=["qemu", "vhost"])
def test_gso_and_gro(guests, sleepy, tracer, number):
    """Segments that travel as one big packet are one packet, for tcpdump and for a rule alike."""
    guest = guests.get(number, **({} if number == 1 else {"vhost": True, "vcpus": 2}))
    with plug.plug(guest, "bridged") as netns, client.Connection(netns, guest.ip4) as connection:
        connection.ask("/ping")
        with tracer.recording({}, [guest.tap]) as recording, \
                counting(guest.pid, guest.tap, "tcp port 8080 and greater 2000") as counts:
            assert connection.ask("/none", body=b"x" * 200_000)[0] == 404
            assert len(connection.ask("/data?bytes=200000")[1]) == 200_000
        big = {kind: [e for e in recording.frames(kind, guest.tap) if int(e.args["gso_size"])]
               for kind in (trace.OUT, trace.IN)}
        assert big[trace.OUT] and big[trace.IN], "nothing was segmented late: nothing was shown"
        assert counts["to VM"] + counts["from VM"] == counts["tcpdump"]
        assert counts["to VM"] and counts["from VM"]


def test_gso_segments_of_a_device_without_offload(plain):
    """A tap that cannot take a big packet gets segments; a rule meets what the stack sent to the device."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as side:
        side.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        side.bind((plain.tap, 0))
        frame = frames.tcp(True, 2000, 8080, frames.ACK | frames.PSH, b"x" * 6000)
        # virtio_net_hdr: needs a checksum, TCPv4, header length, segment size, where the checksum is.
        header = struct.pack("<BBHHHH", 1, 1, 54, 1000, 34, 16)
        ctl("vm", "add", "--pid", plain.vmm.pid, "--name", "f", "--lever", "observe",
            "--request", "tcp dst port 8080")
        side.send(header + frame)
    received = 0
    while plain.vm.receive(0.5):
        received += 1
    with abi.Device() as handle:
        stats = handle.stats(handle.vms()[0].id)
    assert received == 6
    assert (stats.requests, stats.timeouts) == (1, 0)
    ctl("vm", "remove", "f")
