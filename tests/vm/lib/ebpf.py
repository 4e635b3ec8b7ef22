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
