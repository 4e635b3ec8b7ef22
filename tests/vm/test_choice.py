# SPDX-License-Identifier: GPL-2.0-only
"""From lever to lever by the tool, and what `auto` chooses.

The guests halt, and cost no CPU.
"""

import re

import pytest

from lib import ctl, host
from lib.ask import HELPERS, RULES, add, applied, check

pytestmark = pytest.mark.usefixtures("nobody_else")


def test_lever_cgroup(vms, groups):
    one, = vms()
    group = groups("a", one.vmm.pid)
    add(one, "a", "--lever", "cgroup", "--sleepy-weight", "7")
    host.wait(lambda: group.read("cpu.weight") == "7", "sleepy")
    assert ctl.show("a")["cgroup"]["path"] == str(group.path)
    ctl.ctl("vm", "set", "a", "--linger", "3ms", "--boost-nice", "-3", "--boost-budget", "20ms/100ms")
    host.wait(lambda: group.read("cpu.weight") == "7", "sleepy")
    policy = ctl.show("a")["policy"]
    assert (policy["boost_budget_ns"], policy["boost_period_ns"]) == (20_000_000, 100_000_000)
    text = " ".join(ctl.run("vm", "show", "a")[1].split())
    assert " lever cgroup weight 7 while sleepy, nice -3 while a request is in flight (20ms of each 100ms) " in text
    assert f" cgroup {group.path} " in text


def test_weight_that_is_set_by_hand(vms, groups):
    one, = vms()
    group = groups("a", one.vmm.pid)
    add(one, "a", "--lever", "cgroup")
    host.wait(lambda: group.read("cpu.idle") == "1", "sleepy")
    group.write("cpu.idle", 0)
    group.write("cpu.weight", 55)
    assert "\n           its weight was set by hand: left alone\n" in ctl.run("vm", "show", "a")[1]
    assert ctl.show("a")["cgroup"]["foreign"]


def test_lever_cgroup_is_refused(vms, groups):
    one, two = vms(2)
    groups("both", one.vmm.pid, two.vmm.pid)
    message = ctl.refused(ctl.FAILED, "vm", "add", "--pid", one.vmm.pid, "--name", "a", "--lever", "cgroup", *RULES)
    assert message.startswith(f"vm add: lever cgroup: process {one.vmm.pid} (python3): it has no cgroup of its own: it "
                              f"shares /vms/both with process {two.vmm.pid} (python3); start each in one of its own")
    assert one.device.vms() == []
    add(one, "a", "--lever", "idle")
    message = ctl.refused(ctl.FAILED, "vm", "set", "a", "--lever", "cgroup")
    assert message.startswith("vm set: lever cgroup: VM a: it has no cgroup of its own: ")
    assert ctl.show("a")["policy"]["lever"] == "idle"


def test_group_that_another_vm_has(vms, groups):
    """Its threads have left it, and its lever still has it."""
    one, two = vms(2)
    group, other = groups("a", one.vmm.pid), groups("b")
    add(one, "a", "--lever", "cgroup")
    other.take(one.vmm.pid)
    group.take(two.vmm.pid)
    message = ctl.refused(ctl.FAILED, "vm", "add", "--pid", two.vmm.pid, "--name", "b", "--lever", "cgroup", *RULES)
    assert message.startswith("vm add: cgroup /vms/a: the lever of a has it already; give that VM another lever ")
    add(two, "b")
    message = ctl.refused(ctl.FAILED, "vm", "set", "b", "--lever", "cgroup")
    assert message.startswith("vm set: cgroup /vms/a: the lever of a has it already; ")
    text = " ".join(ctl.run("vm", "show", "a")[1].split())
    assert "a vCPU thread was moved to another one, which is left alone; to use that one: `sleepyctl vm set a " in text
    ctl.ctl("vm", "set", "a", "--lever", "cgroup")
    assert ctl.show("a")["cgroup"]["path"] == str(other.path)
    ctl.ctl("vm", "set", "b", "--lever", "cgroup")
    assert ctl.show("b")["cgroup"]["path"] == str(group.path)


def test_idle_has_no_boost(vms):
    one, = vms()
    boost = ("--boost-nice", "-5")
    why = "the lever idle has no boost; leave boost_nice out (--no-boost), or take another lever"
    assert ctl.refused(ctl.USAGE, "vm", "add", "--pid", one.vmm.pid, "--name", "a", "--lever", "idle", *boost,
                       *RULES) == f"vm add: {why}"
    add(one, "a", *boost)
    assert ctl.refused(ctl.USAGE, "vm", "set", "a", "--lever", "idle") == f"vm set: {why}"
    ctl.ctl("vm", "set", "a", "--lever", "idle", "--no-boost")
    assert ctl.show("a")["policy"]["lever"] == "idle"


def test_auto_says_what_it_has_chosen(vms, groups):
    made = vms(2)
    for name, vm in zip("ab", made):
        groups(name, vm.vmm.pid)
    why = ("its VMM has the interrupt controller, so that no interrupt would end a park; /vms/a counts in /vms; "
           f"{HELPERS}")
    added = ctl.ctl("vm", "add", "--pid", made[0].vmm.pid, "--name", "a", "--lever", "auto", *RULES)["added"]
    assert (added["lever"], added["why"]) == ("cgroup", why)
    add(made[1], "b")
    code, text, _ = ctl.run("vm", "set", "a", "--lever", "auto")
    assert code == 0 and f" lever auto: cgroup: {why} " in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80, text
    assert re.search(r"^a .* auto \(cgroup\) ", ctl.run("vm", "list")[1], re.MULTILINE)
    assert check("a")["lever"] == "auto (cgroup)"


def test_manifest_of_auto(vms, groups, tmp_path):
    """It is exported as what was asked for, and applied again without a change."""
    one, two = vms(2)
    groups("a", one.vmm.pid)
    groups("b", two.vmm.pid)
    add(one, "a", "--lever", "auto")
    text = ctl.run("export")[1]
    assert 'lever = "auto"' in text
    path = tmp_path / "m.toml"

    def change(lever):
        path.write_text(text.replace('"auto"', lever))
        return applied(path)[0]

    assert change('"auto"') == "1 VM: 1 unchanged\n"
    assert ctl.run("check", path)[1] == "1 file, 1 VM: nothing wrong\n"
    assert change('"cgroup"') == "changed a: lever auto (cgroup) -> cgroup\n1 VM: 1 changed\n"
    assert change('"cgroup"') == "1 VM: 1 unchanged\n"
    assert change('"park"\nstir_run = "1ms"') == \
        "changed a: lever cgroup -> park, stir_run 500us -> 1ms\n1 VM: 1 changed\n"
    assert ctl.show("a")["policy"]["lever"] == "park"
    assert change('"auto"').startswith(
        "changed a: lever park -> auto (cgroup), stir_run 1ms -> 500us\n  lever auto: cgroup: ")
