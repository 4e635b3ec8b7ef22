# SPDX-License-Identifier: GPL-2.0-only
"""Notes on levers that do nothing, from what sets them.

The guests halt, and cost no CPU.
"""

import pytest

from lib import ctl, knobs
from lib.ask import RULES, add, applied

pytestmark = pytest.mark.usefixtures("nobody_else")

NOTE = "note: lever {}: no effect between VMs: it is alone in its cgroup /vms/{}; `--lever auto` takes cgroup\n"


def test_note_when_a_vm_is_added(vms, groups):
    made = vms(6)
    for name, vm in zip("abcdef", made):
        groups(name, vm.vmm.pid)
    assert add(made[0], "a") == "vm add: " + NOTE.format("nice", "a")
    assert add(made[1], "b", "--lever", "idle") == "vm add: " + NOTE.format("idle", "b")
    for name, vm, lever in zip("cdef", made[2:], ("cgroup", "park", "observe", "auto")):
        assert add(vm, name, "--lever", lever) == "", lever


def test_note_is_no_part_of_the_answer(vms, groups):
    one, two = vms(2)
    groups("a", one.vmm.pid)
    groups("b", two.vmm.pid)
    code, output, notes = ctl.run("-j", "vm", "add", "--pid", one.vmm.pid, "--name", "a", *RULES)
    assert (code, output.count("\n"), notes) == (0, 1, "vm add: " + NOTE.format("nice", "a"))


def test_note_when_a_lever_is_set(vms, groups):
    for name, vm in zip("ab", vms(2)):
        groups(name, vm.vmm.pid)
        add(vm, name, "--lever", "observe")

    def notes(*options):
        code, output, notes = ctl.run("vm", "set", "a", *options)
        assert code == 0 and "note" not in output
        return notes

    assert notes("--lever", "nice") == "vm set: " + NOTE.format("nice", "a")
    assert notes("--linger", "3ms") == "", "it has that lever already"
    assert notes("--lever", "park") == notes("--lever", "auto") == ""


def test_no_note_where_it_works(vms, groups):
    one, two, three = vms(3)
    groups("both", one.vmm.pid, two.vmm.pid)
    assert add(one, "a") == add(two, "b", "--lever", "idle") == ""
    groups("nested")
    groups("nested/c", three.vmm.pid)
    assert add(three, "c", "--lever", "cgroup") == (
        "vm add: note: lever cgroup: no effect between VMs: /vms/nested/c counts in /vms/nested, where no other VM is; "
        "`sleepyctl probe` says what works\n")


def test_no_note_for_the_first_vm(vms, groups):
    """Others may come."""
    one, = vms()
    groups("a", one.vmm.pid)
    assert add(one, "a") == ""


def test_no_note_where_nothing_is_known(vms, groups):
    one, two = vms(2)
    groups("a", one.vmm.pid)
    groups("b", two.vmm.pid)
    assert knobs.without_debugfs(lambda: add(one, "a")) == ""


def test_warning_when_manifests_are_applied(vms, groups, tmp_path):
    """One for all VMs of which the same is to be said."""
    made = vms(3)
    for name, vm in zip("abc", made):
        groups(name, vm.vmm.pid)
    path = tmp_path / "m.toml"
    text = 'schema_version = 1\n[defaults]\nprofile = "udp"\nports = [7]\n'
    text += "".join(f'[[vm]]\nname = "{name}"\npid = {vm.vmm.pid}\n' for name, vm in zip("abc", made))
    path.write_text(text)
    why = "no effect between VMs: {} is alone in its cgroup /vms/{}; `lever = \"auto\"` takes cgroup"
    warning = f"{path}:5:1: warning: a, b, c: lever nice: {why.format('each', '*')}\n"
    assert applied(path, "--dry-run")[1] == applied(path)[1] == warning
    assert applied(path) == ("3 VMs: 3 unchanged\n", ""), "it was said before"
    path.write_text(text.replace('pid = ', 'linger = "3ms"\npid = '))
    assert applied(path)[1] == "", "they have that lever already"
    path.write_text(text + 'lever = "idle"\n')
    finding, = ctl.ctl("apply", path)["findings"]
    assert (finding["severity"], finding["line"]) == ("warning", 11)
    assert finding["message"] == f"c: lever idle: {why.format('it', 'c')}"
    path.write_text(text.replace("[defaults]\n", '[defaults]\nlever = "auto"\n'))
    assert applied(path)[1] == ""


def test_group_that_many_share(vms, groups, tmp_path):
    """One error for all of them, and nothing is changed."""
    made = vms(4)
    groups("all", *(vm.vmm.pid for vm in made))
    path = tmp_path / "m.toml"
    path.write_text('schema_version = 1\n[defaults]\nprofile = "udp"\nports = [7]\nlever = "cgroup"\n' + "".join(
        f'[[vm]]\nname = "{name}"\npid = {vm.vmm.pid}\n' for name, vm in zip("abcd", made)))
    status, output, said = ctl.run("apply", path)
    assert (status, output) == (1, "")
    assert f"{path}:6:1: error: a, b, c and 1 more: lever cgroup: it has no cgroup of its own: it shares /vms/all with 3 " in said
    assert said.count("lever cgroup") == 1, said
    assert ctl.ctl("vm", "list")["vms"] == []
