# SPDX-License-Identifier: GPL-2.0-only
"""eBPF programs, by bpf(2)."""

import ctypes
import os
import struct
from pathlib import Path

from . import host

SYS_BPF = 321
PROG_LOAD, OBJ_PIN, PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 5, 6, 13, 15
SOCKET_FILTER, XDP = 1, 6
FS = Path("/sys/fs/bpf")


def insn(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("BBhi", code, dst | src << 4, off, imm)


EXIT = insn(0x95)


def half_at(offset):
    """Returns the 16 bit number at this offset of the packet."""
    return insn(0xBF, 6, 1) + insn(0x28, imm=offset) + EXIT


def constant(number):
    return insn(0xB7, imm=number) + EXIT


def anything(chance):
    """A program that the verifier takes, and that looks at, asks and returns anything; it writes to `skb->cb`, too."""
    context, number, stack = 6, 7, 10
    # LDX of fields of struct __sk_buff, LD_ABS, LD_IND.
    fields = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 52, 56, 60, 64, 68]
    loads = [(0x20, 0), (0x28, 0), (0x30, 0), (0x40, number), (0x48, number), (0x50, number)]
    alu = [0x07, 0x27, 0x47, 0x57, 0xA7, 0x67, 0x77]
    # Helpers: get_prandom_u32, ktime_get_ns, get_smp_processor_id; get_socket_cookie, get_socket_uid; skb_load_bytes, and the
    # same relative to a header.
    of_nothing, of_packet, load_bytes, load_relative = [7, 5, 8], [46, 47], 26, 68

    def call(helper):
        return insn(0x85, imm=helper) + insn(0xAF, number, 0)

    def offset():
        return chance.choice([chance.randrange(64), chance.randrange(70000), chance.randrange(-0x200100, 0x7FFFFFFF)])

    def step():
        what = chance.randrange(8)
        if what == 0:
            operation = chance.choice(alu)
            return insn(operation, number, imm=chance.randrange(64) if operation in (0x67, 0x77) else offset())
        if what == 1:
            load, source = chance.choice(loads)
            return insn(load, src=source, imm=offset()) + insn(0xAF, number, 0)
        if what == 2:
            return insn(0x61, 0, context, chance.choice(fields)) + insn(0xAF, number, 0)
        if what == 3:
            return insn(0x63, context, number, 48 + 4 * chance.randrange(5))
        if what == 4:
            return call(chance.choice(of_nothing))
        if what == 5:
            return insn(0xBF, 1, context) + call(chance.choice(of_packet))
        length = chance.randrange(1, 65)
        start = insn(0xBF, 1, context) + insn(0xBF, 2, number) + insn(0xBF, 3, stack) + insn(0x07, 3, imm=-64)
        if what == 6:
            return start + insn(0xB7, 4, imm=length) + call(load_bytes)
        return start + insn(0xB7, 4, imm=length) + insn(0xB7, 5, imm=chance.randrange(2)) + call(load_relative)

    body = b""
    for _ in range(chance.randrange(1, 200)):
        one = step()
        if chance.random() < 0.2:  # if the number is greater than this, not that step
            body += insn(0x25, number, off=len(one) // 8, imm=chance.randrange(1 << 31))
        body += one
    # A class, now and then more.
    most = chance.choice([7, 7, 255])
    return insn(0xBF, context, 1) + insn(0xB7, number) + body + insn(0xBF, 0, number) + insn(0x57, 0, imm=most) + EXIT


def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr, 128)
    return host.syscall(SYS_BPF, command, buffer, len(buffer))


def load(program, kind=SOCKET_FILTER):
    """Returns a descriptor."""
    code, licence = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
    return bpf(PROG_LOAD, struct.pack("IIQQ", kind, len(program) // 8, ctypes.addressof(code),
                                      ctypes.addressof(licence)))


def id_of(fd):
    info = ctypes.create_string_buffer(256)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("IIQ", fd, len(info), ctypes.addressof(info)))
    return struct.unpack_from("II", info)[1]


def exists(number):
    try:
        os.close(bpf(PROG_GET_FD_BY_ID, struct.pack("I", number)))
    except FileNotFoundError:
        return False
    return True


def pin(fd, name):
    """Pins a program below /sys/fs/bpf; returns the path."""
    if not os.path.ismount(FS):
        host.run("mount", "-t", "bpf", "bpf", str(FS))
    path = FS / name
    path.unlink(missing_ok=True)
    text = ctypes.create_string_buffer(str(path).encode())
    bpf(OBJ_PIN, struct.pack("QII", ctypes.addressof(text), fd, 0))
    return path
