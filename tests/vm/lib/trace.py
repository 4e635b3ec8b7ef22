# SPDX-License-Identifier: GPL-2.0-only
"""Events of the kernel in their exact order, through tracefs.

A thread is known by its `task_struct`, whose address the trace itself tells: setpriority(2) that changes
nothing calls set_user_nice() all the same. No debug information is needed.
"""

import os
import re
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")

# `renice` is told when set_user_nice() has returned: from then on the weight is what it says.
PROBES = {
    "renice": "r64:tests/renice set_user_nice task=$arg1:x64 nice=$arg2:s64",
    "tun_xmit": "p:tests/tun_xmit tun_net_xmit skb=$arg1:x64",
}
# A frame on its way into a device's queue, and one that came in from a device.
OUT, IN = "net_dev_start_xmit", "netif_receive_skb_entry"

# `context`: "h" in a hard interrupt, "s" in a softirq, "." in neither.
Event = namedtuple("Event", "time cpu pid context name args")
LINE = re.compile(r"^.*-(\d+)\s+\[(\d+)\]\s+(\S+)\s+(\d+)\.(\d+): (\w+): (.*)$")
FIELD = re.compile(r"(\w+)=(\S+)")


def parse(line):
    match = LINE.match(line)
    if not match:
        return None
    pid, cpu, flags, seconds, fraction, name, rest = match.groups()
    args = {"text": rest} if name == "tracing_mark_write" else dict(FIELD.findall(rest))
    time = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
    return Event(time, int(cpu), int(pid), flags[2], name, args)


def define(probe):
    """Adds a probe, or removes one. (This file cannot be sought in, which Python's append mode does.)"""
    fd = os.open(TRACEFS / "kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, probe.encode() + b"\n")
    finally:
        os.close(fd)


def wanted(event, tasks, devices):
    if event.name == "renice":
        return event.args["task"] in tasks
    return event.args.get("dev") in (None, *devices)


class Trace:
    """One recording at a time, of certain threads and certain devices."""

    def __init__(self):
        self._remove_probes()
        for probe in PROBES.values():
            define(probe)
        self.root = TRACEFS / "instances" / "sleepy-tests"
        self.root.mkdir(exist_ok=True)
        self._write("trace_clock", "mono")
        self._write("options/hash-ptr", "0")
        self._write("buffer_size_kb", "4096")
        # Turned on once: each of them costs a tenth of a second. What is not asked for is left out later.
        for event in (*(f"tests/{name}" for name in PROBES), f"net/{OUT}", f"net/{IN}"):
            self._write(f"events/{event}/enable", "1")
        self._write("tracing_on", "0")

    def close(self):
        self._write("events/enable", "0")
        self.root.rmdir()
        self._remove_probes()

    @staticmethod
    def _remove_probes():
        present = (TRACEFS / "kprobe_events").read_text(encoding="ascii")
        for name in PROBES:
            if f":tests/{name} " in present:
                define(f"-:tests/{name}")

    def _write(self, name, text):
        (self.root / name).write_text(text, encoding="ascii")

    def learn(self, tids):
        """{address of the task: thread}. To be called before the module may move these threads."""
        self._write("trace", "")
        self._write("tracing_on", "1")
        for tid in tids:
            os.setpriority(os.PRIO_PROCESS, tid, os.getpriority(os.PRIO_PROCESS, tid))
        self._write("tracing_on", "0")
        # Not those of the module's own timers, which may interrupt us meanwhile.
        own = [e for e in self._read()
               if e.name == "renice" and e.pid == threading.get_native_id() and e.context == "."]
        assert len(own) == len(tids), f"{len(own)} of {len(tids)} set_user_nice() traced"
        return {event.args["task"]: tid for event, tid in zip(own, tids)}

    @contextmanager
    def recording(self, tasks, devices=()):
        """Records what is done to these (`learn`ed) threads' nice values, and the devices' frames."""
        self._write("trace", "")
        missed = self._missed()
        recording = Recording(self, tasks)
        self._write("tracing_on", "1")
        try:
            yield recording
        finally:
            self._write("tracing_on", "0")
        recording.events = [event for event in self._read() if wanted(event, tasks, devices)]
        assert self._missed() == missed, "the kernel missed probe hits: this recording proves nothing"

    def _read(self):
        lines = (self.root / "trace").read_text(encoding="utf-8", errors="replace").splitlines()
        assert not any("LOST" in line for line in lines), "trace buffer too small"
        return [event for event in map(parse, lines) if event]

    @staticmethod
    def _missed():
        """Misses by probe. `event hits misses`"""
        lines = (TRACEFS / "kprobe_profile").read_text(encoding="ascii").split("\n")
        return {line.split()[0]: line.split()[2] for line in lines if line.strip()}


class Recording:
    """What was recorded; `events` is there after the recording's `with` block."""

    def __init__(self, trace, tasks):
        self._trace = trace
        self.tasks = tasks
        self.events = None

    def mark(self, text):
        """Puts a line of our own between the events."""
        (self._trace.root / "trace_marker").write_text(text, encoding="ascii")

    def renices(self, tid=None):
        """[(time, nice)] of a thread, or [(time, tid, nice)] of all."""
        found = [(e.time, self.tasks[e.args["task"]], int(e.args["nice"]))
                 for e in self.events if e.name == "renice"]
        return found if tid is None else [(time, nice) for time, who, nice in found if who == tid]

    def nices(self, tid):
        return [nice for _, nice in self.renices(tid)]

    def frames(self, kind, device):
        return [e for e in self.events if e.name == kind and e.args["dev"] == device]

    def marks(self):
        """{text: time}"""
        return {e.args["text"]: e.time for e in self.events if e.name == "tracing_mark_write"}

    def deliveries(self, device, start, length=None):
        """[({tid: nice}, frame)] for each frame put into the device's queue: the threads' nice values then.

        `start` is the nice value of each thread when the recording began. That the frame really came to
        the tap's own xmit function, and after the event that is looked at, is checked too.
        """
        nice, found, pending = dict(start), [], {}
        for event in self.events:
            if event.name == "renice":
                nice[self.tasks[event.args["task"]]] = int(event.args["nice"])
            elif event.name == OUT and event.args["dev"] == device:
                if length is None or int(event.args["len"]) == length:
                    pending[int(event.args["skbaddr"], 16)] = (dict(nice), event)
            elif event.name == "tun_xmit":
                entry = pending.pop(int(event.args["skb"], 16), None)
                if entry:
                    found.append(entry)
        # The recording may have ended while a CPU was about to.
        last = {event.cpu: event for event in self.events}
        never = [event for _, event in pending.values() if event is not last[event.cpu]]
        assert not never, f"{len(never)} frames never came to the tap's queue"
        return found
