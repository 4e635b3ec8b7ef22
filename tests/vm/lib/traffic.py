# SPDX-License-Identifier: GPL-2.0-only
"""Processes that send requests without end, one on each CPU, until they are stopped or cannot any more."""

import errno
import os
import signal
import struct
import time

from . import frames, host, net


def only(fd):
    """Closes whatever else was inherited: a sender may not keep alive what the test wants to end."""
    os.closerange(3, fd)
    os.closerange(fd + 1, 4096)


# What the end of a device looks like: what some tests want.
GONE = errno.ENXIO, errno.ENODEV, errno.ENETDOWN, errno.EIO, errno.EBADFD


def flows(scene):
    """Waits until requests come to the module's hooks: more of them are on their way."""
    before = scene.stats().requests
    host.wait(lambda: scene.stats().requests > before + 20, "requests are seen", step=0.002)


class Traffic:
    """Requests, and now and then a reset, into a tap; and answers, out of a descriptor of it. With pauses, in which all that is
    in flight can be answered."""

    def __init__(self, tap, vm_side=None, pauses=False):
        self.pids = [self._start(tap, cpu, pauses) for cpu in sorted(os.sched_getaffinity(0))]
        if vm_side:
            self.pids.append(self._start_answers(vm_side))

    @staticmethod
    def _fork(body):
        pid = os.fork()
        if pid == 0:
            try:
                body()
            except OSError as error:
                os._exit(0 if error.errno in GONE else 1)
            finally:
                os._exit(1)
        return pid

    def _start(self, tap, cpu, pauses):
        def body():
            os.sched_setaffinity(0, {cpu})
            side, turn = net.HostSide(tap), 0
            only(side.socket.fileno())
            while True:
                turn += 1
                try:
                    side.send(frames.udp(True, 10000 + 100 * cpu + turn % 5, 7))
                    if turn % 7 == 0:
                        side.send(frames.tcp(True, 20000, 80, frames.RST))
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # the tap's queue is full
                        raise
                # Those on other CPUs pause at the same time.
                time.sleep(1 - time.time() % 1 if pauses and time.time() % 1 > 0.2 else 0.002)
        return self._fork(body)

    def _start_answers(self, vm_side):
        def body():
            only(vm_side.fd)
            while True:
                frame = vm_side.receive()
                if frame and len(frame) >= 38 and frame[23] == 17:
                    client, server = struct.unpack_from("!HH", frame, 34)
                    vm_side.send(frames.udp(False, client, server))
        return self._fork(body)

    def stop(self):
        """True if nobody met an error that was none of the device's end."""
        fine = True
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            status = os.waitpid(pid, 0)[1]
            fine &= os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        self.pids = []
        return fine
