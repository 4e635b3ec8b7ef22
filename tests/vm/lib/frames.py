# SPDX-License-Identifier: GPL-2.0-only
"""Ethernet frames by hand, and classic BPF to match them."""

import socket
import struct

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

HOST_MAC, VM_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
HOST4, VM4 = "192.0.2.1", "192.0.2.2"
HOST6, VM6 = "2001:db8::1", "2001:db8::2"


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(to_vm, kind, payload, vlan=None):
    macs = VM_MAC + HOST_MAC if to_vm else HOST_MAC + VM_MAC
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return macs + tag + struct.pack("!H", kind) + payload


def packet(to_vm, protocol, segment, offset, ipv6=False, vlan=None):
    """A frame around `segment`, whose checksum goes to `offset`."""
    ends = (HOST6, VM6) if ipv6 else (HOST4, VM4)
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    source, target = [socket.inet_pton(family, end) for end in (ends if to_vm else ends[::-1])]
    if ipv6:
        pseudo = source + target + struct.pack("!II", len(segment), protocol)
        header = struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64) + source + target
    else:
        pseudo = source + target + struct.pack("!HH", protocol, len(segment))
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, protocol, 0) + source + target
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    total = struct.pack("!H", checksum(pseudo + segment) or 0xFFFF)
    segment = segment[:offset] + total + segment[offset + 2:]
    return ethernet(to_vm, 0x86DD if ipv6 else 0x0800, header + segment, vlan)


def udp(to_vm, client, server, payload=b"x", **how):
    """A datagram between the host's port `client` and the VM's port `server`."""
    ports = (client, server) if to_vm else (server, client)
    return packet(to_vm, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, 6, **how)


def tcp(to_vm, client, server, flags, payload=b"", seq=1000, **how):
    ports = (client, server) if to_vm else (server, client)
    header = struct.pack("!HHIIBBHHH", *ports, seq, 2000 if flags & ACK else 0, 5 << 4, flags, 65535, 0, 0)
    return packet(to_vm, 6, header + payload, 16, **how)


# Classic BPF: (code, jt, jf, k)
LDH, LDB, LDX_MSH, LDH_X, LDB_X = 0x28, 0x30, 0xB1, 0x48, 0x50
JEQ, JSET, JA, RET, RET_A, LDW_MEM = 0x15, 0x45, 0x05, 0x06, 0x16, 0x60
ACCEPT, REJECT = (RET, 0, 0, 0x40000), (RET, 0, 0, 0)

EVERYTHING = [ACCEPT]
NOTHING = [REJECT]


def ipv4_port(protocol, to_vm, port):
    """IPv4 of this protocol to (`to_vm`) or from the VM's port."""
    return [
        (LDH, 0, 0, 12), (JEQ, 0, 6, 0x0800),
        (LDB, 0, 0, 23), (JEQ, 0, 4, protocol),
        (LDX_MSH, 0, 0, 14), (LDH_X, 0, 0, 16 if to_vm else 14), (JEQ, 0, 1, port),
        ACCEPT, REJECT,
    ]


def tcp_flag(flag):
    """IPv4 TCP with this flag."""
    return [
        (LDH, 0, 0, 12), (JEQ, 0, 6, 0x0800),
        (LDB, 0, 0, 23), (JEQ, 0, 4, 6),
        (LDX_MSH, 0, 0, 14), (LDB_X, 0, 0, 14 + 13), (JSET, 0, 1, flag),
        ACCEPT, REJECT,
    ]
