# SPDX-License-Identifier: GPL-2.0-only
"""Asks sleepyctl about levers."""

from . import ctl

RULES = ("--request", "udp dst port 7", "--response", "udp src port 7")
TIMES = ("--linger", "2ms", "--max-sleep", "60s")
WORKS = {"yes": "works", "partly": "in part", "no_effect": "no effect", "impossible": "impossible"}
HELPERS = "its VMM's other threads are lowered with it"


def add(vm, name, *options):
    """Adds a VM; returns the notes."""
    code, _, notes = ctl.run("vm", "add", "--pid", vm.vmm.pid, "--name", name, *RULES, *TIMES, *options)
    assert code == 0, notes
    vm.id = next(one.id for one in vm.device.vms() if one.name.decode() == name)
    return notes


def probe(*args):
    """What it says to people, in one line, and to scripts."""
    code, text, error = ctl.run("probe", *args)
    assert code == 0, error
    assert max(map(len, text.splitlines())) <= 80, text
    return " ".join(text.split()), ctl.ctl("probe", *args)["probe"]


def check(*args, auto=None, **levers):
    """Checks what is said of one VM's levers, (whether it works, why); returns all that is said."""
    text, answer = probe(*args)
    vm, = answer["vms"]
    said = {verdict["lever"]: (verdict["works"], verdict["why"]) for verdict in vm["levers"]}
    assert list(said) == ["observe", "nice", "idle", "cgroup", "park"]
    for lever, (works, why) in levers.items():
        assert said[lever] == (works, why)
        assert f" {lever} {WORKS[works]} {why} " in text
    if auto:
        assert vm["auto"]["lever"] == auto
    assert f" auto {vm['auto']['lever']}: {vm['auto']['why']}" in text
    assert all(f" note {note}" in text for note in vm["notes"])
    return vm


def applied(path, *options):
    """(what it prints, warnings)"""
    code, text, warnings = ctl.run("apply", path, *options)
    assert code == 0, warnings
    return text, warnings
