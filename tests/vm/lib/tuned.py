# SPDX-License-Identifier: GPL-2.0-only
"""A VM whose threads and control group have what somebody gave them: that is what they shall get back."""

import os

import pytest

from . import abi, host, sched

MS = abi.MS
LEVERS = pytest.mark.parametrize("lever", [abi.NICE, abi.IDLE, abi.GROUP, abi.PARK],
                                 ids=["nice", "idle", "cgroup", "park"])


class Tuned:
    """A VM of two vCPUs in a group of its own, tuned by hand."""

    WEIGHT = {"cpu.weight": "250", "cpu.idle": "0"}

    def __init__(self, scene, group):
        self.scene, self.group = scene, group
        group.take(scene.vmm.pid)
        group.write("cpu.weight", 250)
        sched.put(scene.tids[0], os.SCHED_BATCH, 3, 5 * MS)
        sched.put(scene.tids[1], os.SCHED_OTHER, -4, 1 * MS)
        self.threads = self.attrs()
        assert [(attr.nice, attr.slice) for attr in self.threads] == [(3, 5 * MS), (-4, 1 * MS)]
        self.cpus = [os.sched_getaffinity(tid) for tid in scene.tids]

    def attrs(self):
        return [sched.get(tid) for tid in self.scene.tids]

    def weights(self):
        return {name: self.group.read(name) for name in self.WEIGHT}

    def add(self, lever, **policy):
        with self.group.fd() as fd:
            self.scene.add(lever=lever, group_fd=fd if lever == abi.GROUP else -1,
                           **({"linger": 1 * MS, "max_sleep": 60 * abi.SECOND} | policy))

    def is_lowered(self, lever):
        """Whether all of it is."""
        if self.scene.get().state != abi.SLEEPY:
            return False
        attrs, weights = self.attrs(), self.weights()
        if lever == abi.IDLE:
            return all(attr.policy == os.SCHED_IDLE for attr in attrs)
        if lever == abi.GROUP:
            return attrs == self.threads and weights["cpu.idle"] == "1"
        if lever == abi.PARK:
            return self.is_restored() and self.parks() > self.parked
        return attrs == [attr._replace(nice=19) for attr in self.threads]

    def parks(self):
        return min(vcpu.parked for vcpu in self.scene.device.vcpus(self.scene.id))

    def wait_lowered(self, lever):
        """Again, if it has been before."""
        self.parked = self.parks()
        host.wait(lambda: self.is_lowered(lever), f"lowered: {self.attrs()} {self.weights()}")

    def is_restored(self):
        return self.attrs() == self.threads and self.weights() == self.WEIGHT

    def wait_restored(self):
        host.wait(self.is_restored, f"restored: {self.attrs()} {self.weights()}", step=0.001)
