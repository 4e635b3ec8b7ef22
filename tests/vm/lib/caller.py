# SPDX-License-Identifier: GPL-2.0-only
"""Callers with other rights than the test's own."""

import ctypes
import errno
import json
import os
import struct
import traceback

from . import host

NOBODY = 65534
CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_NICE = 1, 12, 19, 23
ALL = (1 << 64) - 1
SYS_CAPSET, SYS_PRCTL, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 126, 157, 8, 24


def in_child(body):
    """Runs `body` in a child; returns what it returns, or the name of the errno that it failed with."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = body()
        except OSError as error:
            result = errno.errorcode.get(error.errno, error.errno)
        except BaseException:  # whatever it is, the test is told
            result = traceback.format_exc()
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def outcome(body):
    """The name of the errno that `body` fails with, "done" if it does not."""
    try:
        body()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def set_capabilities(bits):
    """Sets the permitted and effective capabilities of this thread."""
    low, high = bits & 0xFFFFFFFF, bits >> 32
    head = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(struct.pack("6I", low, low, 0, high, high, 0))
    host.syscall(SYS_CAPSET, head, data)


def without(*capabilities):
    """Root, less these capabilities."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        bits = (2 << int(file.read())) - 1
    for capability in capabilities:
        bits &= ~(1 << capability)
    set_capabilities(bits)


def lose(capability):
    """What this process executes does not have it, root or not."""
    host.syscall(SYS_PRCTL, PR_CAPBSET_DROP, capability, 0, 0, 0)


def become_nobody(*capabilities):
    """An unprivileged user, with nothing but these capabilities."""
    host.syscall(SYS_PRCTL, PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    set_capabilities(sum(1 << capability for capability in capabilities))


def root_of_a_namespace():
    """Every capability, but only in a user namespace of one's own (`unshare -Ur`)."""
    os.unshare(os.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    assert os.getuid() == 0
