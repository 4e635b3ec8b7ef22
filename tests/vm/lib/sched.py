# SPDX-License-Identifier: GPL-2.0-only
"""A thread's place in the scheduler, as sched_getattr(2) has it."""

import ctypes
from typing import NamedTuple

from . import host

SETATTR, GETATTR = 314, 315
SIZE = 56


class _Attr(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64),
                ("nice", ctypes.c_int32), ("priority", ctypes.c_uint32), ("slice", ctypes.c_uint64),
                ("deadline", ctypes.c_uint64), ("period", ctypes.c_uint64), ("util_min", ctypes.c_uint32),
                ("util_max", ctypes.c_uint32)]


class Attr(NamedTuple):
    """What a thread has; the slice is in nanoseconds."""
    policy: int
    nice: int
    slice: int
    util: tuple


def get(tid):
    attr = _Attr()
    host.syscall(GETATTR, tid, ctypes.byref(attr), SIZE, 0)
    return Attr(attr.policy, attr.nice, attr.slice, (attr.util_min, attr.util_max))


UTIL_CLAMP = 0x60


def put(tid, policy=0, nice=0, slice=0, util=None):
    """Sets it; `slice` 0 is the scheduler's own, `util` are the clamps from 0 to 1024."""
    attr = _Attr(size=SIZE, policy=policy, nice=nice, slice=slice)
    if util:
        attr.flags, (attr.util_min, attr.util_max) = UTIL_CLAMP, util
    host.syscall(SETATTR, tid, ctypes.byref(attr), 0)
