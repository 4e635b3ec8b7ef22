# SPDX-License-Identifier: GPL-2.0-only
"""A debugger."""

import ctypes
import os
from contextlib import contextmanager

from . import host

SINGLESTEP, DETACH, SEIZE, INTERRUPT = 9, 17, 0x4206, 0x4207
WALL = 0x40000000


def _ptrace(request, tid):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, tid, None, None):
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x})")


def _wait_stopped(tid):
    """Until a thread that is traced stops; a request that never comes through fails by the test's time."""
    def stopped():
        pid, status = os.waitpid(tid, WALL | os.WNOHANG)
        return pid == tid and os.WIFSTOPPED(status)

    host.wait(stopped, f"thread {tid} has stopped", step=0.005)


@contextmanager
def interrupted(tid):
    """A thread is stopped, and goes on when this is over."""
    _ptrace(SEIZE, tid)
    _ptrace(INTERRUPT, tid)
    _wait_stopped(tid)
    yield
    _ptrace(DETACH, tid)


def step(tid):
    """One instruction of one that is interrupted."""
    _ptrace(SINGLESTEP, tid)
    _wait_stopped(tid)
