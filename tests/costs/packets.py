# SPDX-License-Identifier: GPL-2.0-only
"""What a packet to a VM costs on its way into the VM's tap."""

import ctypes
import os
import subprocess

from lib import abi, frames, net

from guests import HALT, Guest
from record import interleaved, now

PORT, OTHER, UDP = 7, 9, 17
BATCH = 250  # fewer than the tap's queue takes
NFT = "/usr/sbin/nft"


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct mmsghdr."""
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("iov", ctypes.POINTER(_Iovec)),
                ("iov_length", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("padding", ctypes.c_int), ("sent", ctypes.c_uint)]


def rules(count):
    """So many; the last one is the only one that can match."""
    ports = [*range(1000, 1000 + count - 1), PORT]
    return [(abi.REQUEST, abi.TO_VM, frames.ipv4_port(UDP, True, port)) for port in ports]


class Link:
    """A tap whose packets are taken as the VMM does."""

    def __init__(self, name):
        net.tap(name)
        self.name = name
        self.vm_side = Guest.machine.tap(name)
        os.set_blocking(self.vm_side, False)
        self.host_side = net.HostSide(name)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def send(self, port, count):
        """Sends so many equal packets, a batch in each system call; returns how long one took."""
        frame = frames.udp(True, 10000, port)
        iov = _Iovec(ctypes.cast(ctypes.c_char_p(frame), ctypes.c_void_p), len(frame))
        messages = (_Message * BATCH)(*[_Message(iov=ctypes.pointer(iov), iov_length=1)] * BATCH)
        sendmmsg, socket = self.libc.sendmmsg, self.host_side.socket.fileno()
        took = 0
        for _ in range(count // BATCH):
            began = now()
            sent = sendmmsg(socket, messages, BATCH, 0)
            took += now() - began
            if (sent, self._take()) != (BATCH, BATCH):
                raise OSError(ctypes.get_errno(), f"{self.name}: {sent} of {BATCH} packets sent, or some were lost")
        return took / (count // BATCH * BATCH)

    def _take(self):
        """Takes what has come; returns how many."""
        taken = 0
        while True:
            try:
                os.read(self.vm_side, 2048)
            except BlockingIOError:
                return taken
            taken += 1


def nft_rules(link, count):
    """Has nftables look at the link's packets in the hook that sleepy uses; why not, if it cannot."""
    lines = [f"ether type ip udp dport {port} accept" for port in [*range(1000, 1000 + count - 1), PORT]]
    text = "\n".join(["flush ruleset", "table netdev costs {", "chain costs {",
                      f'type filter hook egress device "{link.name}" priority 0; policy accept;', *lines, "}", "}"])
    done = subprocess.run([NFT, "-f", "-"], input=text, text=True, capture_output=True, check=False)
    error = done.stderr.strip().partition("\n")[0].rpartition(": ")[2]
    return f"nft: {error}; has the kernel nf_tables?" if done.returncode else None


class Packets:
    """A link without a VM, one of a VM that is registered, one with nftables."""

    def __init__(self, results, device):
        self.results, self.device = results, device
        self.guest = Guest(HALT)
        self.guest.start()
        self.none, self.link, self.nft = Link("stnone"), Link("stvm"), Link("stnft")

    def register(self):
        """Adds the VM. What it is asked stays in flight: so each packet but the first finds it awake."""
        with open("/proc/self/ns/net", "rb") as netns:
            policy = abi.policy(request_timeout=abi.MAX_TIME, max_sleep=abi.MAX_TIME)
            self.guest.register(self.device, "packets", policy, [(netns.fileno(), net.ifindex(self.link.name))], rules(1))
        self.guest.attach(self.device)

    def measure(self, vms, rule_counts, packets, repetitions, nft=True):
        """All cases beside each other; the VM is one of so many."""
        why = nft_rules(self.nft, 1) if nft else None
        cases, about = {"none": lambda: self.none.send(PORT, packets)}, {}
        for count in rule_counts:
            for case, port in (("no-match", OTHER), ("match", PORT)):
                cases[case, count] = lambda count=count, port=port: self._with_rules(count, port, packets)
                about[case, count] = (case, {"rules": count, "vms": vms})
            if nft and not why:
                cases["nft", count] = lambda count=count: self._with_nft(count, packets)
                about["nft", count] = ("nft", {"rules": count})
        values = interleaved(cases, repetitions)
        self.results.beside("packet", "none", {"vms": vms}, values, about)
        if nft and why:
            self.results.missing("packet", "nft", "instructions", why)

    def _with_rules(self, count, port, packets):
        self.device.set_rules(self.guest.id, rules(count))
        self.link.send(port, BATCH)
        return self.link.send(port, packets)

    def _with_nft(self, count, packets):
        nft_rules(self.nft, count)
        self.nft.send(PORT, BATCH)
        return self.nft.send(PORT, packets)
