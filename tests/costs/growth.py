# SPDX-License-Identifier: GPL-2.0-only
"""What a VM takes of memory, and how long sleepyctl takes, by the number of VMs."""

import json
import mmap
import re
import subprocess
import tempfile
import time
from pathlib import Path

from guests import Fleet
from packets import rules
from programs import copied
from record import now

MANIFEST = f"""schema_version = 1

[[vm]]
name    = "fn-{{}}"
link    = "{Fleet.TAP}*"
each    = true
profile = "http"
ports   = [8080]
"""


def free():
    """Free memory in bytes, with all caches dropped; the free pages that each CPU keeps for itself are not in MemFree."""
    time.sleep(2)  # what RCU frees is free
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    zones = Path("/proc/zoneinfo").read_text(encoding="ascii")
    return mmap.PAGESIZE * sum(map(int, re.findall(r"(?:pages free|^ +count:) +(\d+)", zones, re.MULTILINE)))


def measure_memory(results, device, fleet, vms, rule_counts, repetitions):
    """What is free before, less what is free after so many VMs of one vCPU and one link were added."""
    fleet.grow(vms)
    for count in rule_counts:
        values = []
        for repetition in range(repetitions + 1):
            before = free()
            fleet.register(device, vms, rules(count))
            after = free()
            device.clear()
            if repetition:
                values.append((before - after) / vms)
        results.values("memory", "registered", values, "bytes", rules=count, vms=vms)


class Tool:
    """sleepyctl, and a manifest of all VMs of the fleet."""

    def __init__(self, results, device, program):
        self.results, self.device = results, device
        self.command = copied(program)
        self.manifest = Path(tempfile.mkdtemp(prefix="sleepy-"), "all.toml")
        self.manifest.write_text(MANIFEST, encoding="ascii")
        self.run("vm", "list")

    def run(self, *arguments):
        """How long it takes, and what it says."""
        began = now()
        done = subprocess.run([*self.command, "-j", *arguments], stdout=subprocess.PIPE, text=True, check=True)
        return now() - began, json.loads(done.stdout)

    def apply(self, action, vms):
        """Has it do this with all VMs; returns how long that took."""
        took, answer = self.run("apply", self.manifest)
        done = sum(vm["action"] == action for vm in answer["apply"]["vms"])
        if done != vms:
            raise RuntimeError(f"apply: {done} of {vms} VMs {action}")
        return took

    def measure(self, vms, repetitions):
        """Applies the manifest to nothing and to what it has made, and lists that. No VM is left."""
        new, unchanged, listed = [], [], []
        for _ in range(repetitions):
            new.append(self.apply("added", vms))
            time.sleep(1)
            unchanged.append(self.apply("unchanged", vms))
            took, answer = self.run("vm", "list")
            listed.append(took)
            if len(answer["vms"]) != vms:
                raise RuntimeError(f"vm list: {len(answer['vms'])} of {vms} VMs")
            self.device.clear()
            time.sleep(1)
        for path, case, values in (("apply", "new", new), ("apply", "unchanged", unchanged), ("list", "list", listed)):
            self.results.values(path, case, values, "ns", vms=vms)
