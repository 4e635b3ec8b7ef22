# SPDX-License-Identifier: GPL-2.0-only
"""Control groups of the tests' own."""

import os
from contextlib import contextmanager
from pathlib import Path

from . import host

ROOT = Path("/sys/fs/cgroup")


class Group:
    """A group of version 2."""

    def __init__(self, path):
        self.path = path

    def read(self, name):
        return (self.path / name).read_text().strip()

    def write(self, name, value):
        (self.path / name).write_text(str(value))

    def take(self, pid):
        self.write("cgroup.procs", pid)

    @contextmanager
    def fd(self):
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def frozen(self, seconds=5):
        """All who are in it, until they are killed or leave it."""
        self.write("cgroup.freeze", 1)
        host.wait(lambda: "frozen 1" in self.read("cgroup.events"), "frozen", seconds)
        try:
            yield
        finally:
            self.write("cgroup.freeze", 0)

    def pids(self):
        return [int(pid) for pid in self.read("cgroup.procs").split()]


@contextmanager
def group(name, parent=ROOT, threaded=False):
    """A group with the CPU controller; whoever is left in it is moved to the root."""
    if not (ROOT / "cgroup.controllers").exists():
        host.run("mount", "-t", "cgroup2", "none", ROOT)
    (parent / "cgroup.subtree_control").write_text("+cpu +cpuset")
    made = Group(parent / name)
    made.path.mkdir()
    try:
        yield made
    finally:
        def leave():
            for pid in made.pids():
                (ROOT / "cgroup.procs").write_text(str(pid))
            return not made.pids()
        host.wait(leave, f"{name} is empty")
        made.path.rmdir()
