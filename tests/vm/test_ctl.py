# SPDX-License-Identifier: GPL-2.0-only
"""sleepyctl against the module: what it prints, and how it ends.

       test: packet socket  ->  st0 (tap)  ->  tiny VM
       test: packet socket  <-  st0        <-  test, through the tiny VM's tap descriptor
"""

import os
import re
import subprocess

import pytest

from lib import abi, caller, ctl, frames, host, net
from lib.ctl import refused, show

UDP = ("--request", "udp dst port 7", "--response", "udp src port 7")
TIMES = ("--linger", "2ms", "--max-sleep", "60s")


@pytest.fixture
def vm(scenes):
    """A tiny VM that is not added yet."""
    return scenes(add=False, code="halt")


def add(vm, *options, name="a"):
    added = ctl.ctl("vm", "add", "--pid", vm.vmm.pid, "--name", name, *options)["added"]
    vm.id = added["id"]
    return added


def policy(**given):
    """What `vm show` says of a policy; what is not given is the default."""
    return {"lever": "nice", "sleepy_nice": 19, "boost_nice": None, "linger_ns": 200_000,
            "request_timeout_ns": 5_000_000_000, "max_sleep_ns": 1_000_000_000, "quiet_ns": 50_000_000,
            "spin_ns": 20_000_000, "timer_slack_ns": 0, "sleep_on": ["response"], "wake_on": ["request"],
            "auto": False, "sleepy_weight": "idle", "park_max_ns": 2_000_000_000, "stir_run_ns": 500_000,
            "boost_budget_ns": None, "boost_period_ns": None} | given


def sleeps(vm):
    host.wait(lambda: vm.get().state == abi.SLEEPY, "asleep")


def test_not_loaded():
    if host.loaded():
        host.unload()
    for args in ((), ("vm", "list"), ("vm", "add", "--pid", 1, "--name", "a"), ("vm", "remove", "--all"), ("stats",),
                 ("export",)):
        assert refused(ctl.NOT_LOADED, *args)
    host.load()


def test_not_permitted(sleepy):
    def body():
        caller.become_nobody()
        return refused(ctl.NOT_PERMITTED, "vm", "list")
    assert caller.in_child(body)


@pytest.mark.parametrize("args", [
    ("vm",), ("vm", "fly"), ("vm", "add"), ("vm", "add", "--pid", "x", "--name", "a"), ("vm", "remove"),
    ("vm", "add", "--pid", "1", "--name", "a", "--linger", "5"), ("stats", "--watch", "x"), ("--frobnicate",),
    ("vm", "add", "--pid", "1", "--name", "a", "--lever", "big"),
    ("vm", "add", "--pid", "1", "--name", "a", "--sleep-on", "naps"), ("check",), ("apply",),
    ("vm", "add", "--pid", "1", "--name", "a", "--sleepy-nice", "20")], ids=" ".join)
def test_usage(sleepy, args):
    assert ctl.run(*args)[0] == ctl.USAGE


def test_nobody_listens(sleepy):
    """What failed has failed, wherever that can be said; what was done is done."""
    reader, writer = os.pipe()
    os.close(reader)
    for args, code in ((("-j", "vm", "show", "nobody"), ctl.FAILED), (("vm", "list"), 0), (("stats", "--watch", "1"), 0)):
        done = subprocess.run([ctl.PROGRAM, *args], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
        assert (done.returncode, "nobody" in done.stderr) == (code, code == ctl.FAILED), done.stderr
    os.close(writer)
    with open("/dev/full", "w", encoding="ascii") as full:
        assert subprocess.run([ctl.PROGRAM, "vm", "show", "nobody"], stderr=full, check=False).returncode == ctl.FAILED
    done = subprocess.run([ctl.PROGRAM, b"vm", b"\xff"], capture_output=True, check=False)
    assert done.returncode == ctl.USAGE and b"panicked" not in done.stderr


def test_names_that_command_a_terminal(vm):
    """They are shown as what they are."""
    odd = f"{net.PREFIX}\x1b[8m"
    net.ip(f"link set {vm.tap} name {odd}")
    shown = [ctl.run("vm", "add", "--pid", vm.vmm.pid, "--name", "a", *UDP), ctl.run("vm", "show", "a")]
    net.ip(f"link set {odd} name {vm.tap}")
    for code, output, text in shown:
        assert code == 0 and "\\u{1b}[8m" in output and "\x1b" not in output + text


def test_nothing_there(sleepy):
    answer = ctl.ctl()
    assert answer["vms"] == [] and answer["module"]["abi"] == abi.VERSION
    assert ctl.ctl("vm", "list")["vms"] == []
    assert ctl.ctl("stats")["vms"] == []


def test_from_add_to_remove(vm):
    added = add(vm, *UDP, *TIMES, "--request-timeout", "3s", "--sleepy-nice", "15", "--boost-nice", "-2")
    assert (added["name"], added["links"]) == ("a", [vm.tap])
    sleeps(vm)
    one, = ctl.ctl("vm", "list")["vms"]
    expected = {"id": added["id"], "name": "a", "pid": vm.vmm.pid, "state": "sleepy", "in_flight": 0,
                "lever": "nice", "vcpus": 1, "links": 1}
    assert {key: one.get(key) for key in expected} == expected
    shown = show("a")
    assert shown["policy"] == policy(sleepy_nice=15, boost_nice=-2, linger_ns=2_000_000,
                                     request_timeout_ns=3_000_000_000, max_sleep_ns=60_000_000_000)
    assert shown["start_time"] == abi.start_time(vm.vmm.pid) and shown["lost_links"] == 0
    assert shown["links"][0]["name"] == vm.tap
    assert shown["links"][0]["netns"] == os.stat("/proc/self/ns/net").st_ino
    vcpu, = shown["vcpus"]
    assert (vcpu["tid"], vcpu["nice"], vcpu["baseline"], vcpu["moved"]) == (vm.tids[0], 15, 0, True)
    vm.request()
    assert vm.nices() == [-2]
    assert show("a")["in_flight"] == 1
    vm.answer()
    sleeps(vm)
    numbers = ctl.stats("a")
    assert (numbers["requests"], numbers["responses"], numbers["in_flight"]) == (1, 1, 0)
    assert (numbers["wakes"]["request"], numbers["sleeps"]["response"]) == (1, 1)
    assert numbers["exec_ns"]["count"] == 1
    (lower, upper, count), = numbers["exec_ns"]["buckets"]
    assert count == 1 and lower <= numbers["exec_ns"]["p50"] <= upper == numbers["exec_ns"]["p99"]
    assert ctl.ctl("vm", "remove", "a")["removed"] == ["a"]
    assert vm.nices() == [0]
    assert ctl.ctl("vm", "list")["vms"] == []


def test_defaults(vm):
    add(vm, *UDP)
    assert show("a")["policy"] == policy()
    assert [(rule["origin"], rule["class"], rule["direction"], rule["text"]) for rule in show("a")["rules"]
            if rule["origin"] == "user"] == [("user", "request", "to-vm", "udp dst port 7"),
                                             ("user", "response", "from-vm", "udp src port 7")]
    assert [rule["origin"] for rule in show("a")["rules"]] == ["tcp"] * 3 + ["user"] * 2 + ["tcp", "noise"]


def test_set(vm):
    add(vm, *UDP, *TIMES)
    sleeps(vm)
    ctl.ctl("vm", "set", "a", "--boost-nice", "-5", "--linger", "3ms")
    long = {"linger_ns": 3_000_000, "max_sleep_ns": 60_000_000_000}
    assert show("a")["policy"] == policy(boost_nice=-5, **long)
    ctl.ctl("vm", "set", "a", "--no-boost", "--lever", "observe")
    assert show("a")["policy"] == policy(lever="observe", **long)
    assert vm.nices() == [0]
    ctl.ctl("vm", "set", "a", "--sleep-on", "response,idle,spin", "--wake-on", "request,timer", "--spin", "5ms",
            "--quiet", "1s", "--timer-slack", "10ms")
    assert show("a")["policy"] == policy(lever="observe", sleep_on=["response", "idle", "spin"],
                                         wake_on=["request", "timer"], spin_ns=5_000_000, quiet_ns=1_000_000_000,
                                         timer_slack_ns=10_000_000, **long)


def test_set_rules(vm):
    add(vm, "--request", "udp dst port 9", *TIMES)
    sleeps(vm)
    vm.request()
    assert vm.get().in_flight == 0
    assert "udp dst prt 7" in ctl.refused(ctl.FAILED, "vm", "set", "a", "--request", "udp dst prt 7")
    ctl.refused(ctl.USAGE, "vm", "set", "a", "--no-tcp-defaults")
    assert ctl.ctl("vm", "set", "a", *UDP)["set"]["rules"] == vm.get().n_rules == 7
    vm.request()
    assert vm.get().in_flight == 1
    ctl.refused(ctl.USAGE, "vm", "set", "a", "--no-noise")
    ctl.ctl("vm", "set", "a", *UDP, "--no-tcp-defaults", "--linger", "9ms")
    assert (vm.get().n_rules, vm.get().in_flight) == (3, 1)
    assert show("a")["policy"]["linger_ns"] == 9_000_000
    ctl.ctl("vm", "set", "a", *UDP, "--no-tcp-defaults", "--no-noise")
    assert (vm.get().n_rules, vm.get().in_flight) == (2, 1)


def test_every_kind_of_rule(vm):
    add(vm, "--no-tcp-defaults", "--no-noise", "--ignore", "udp dst port 1", "--wake", "udp dst port 2",
        "--sleep", "udp src port 3", "--request", "udp dst port 4", "--response", "udp src port 5",
        "--call", "udp dst port 6", "--answer", "udp src port 7")
    assert [(rule["class"], rule["direction"], rule["text"]) for rule in show("a")["rules"]] == [
        ("ignore", "both", "udp dst port 1"), ("wake", "to-vm", "udp dst port 2"),
        ("sleep", "from-vm", "udp src port 3"), ("request", "to-vm", "udp dst port 4"),
        ("response", "from-vm", "udp src port 5"), ("request", "from-vm", "udp dst port 6"),
        ("response", "to-vm", "udp src port 7")]


def test_noise(vm):
    """Multicast is ignored after all other rules, so that one who asks for it gets it."""
    group = b"\x01\x00\x5e\x00\x00\x07" + frames.udp(True, 1000, 9, b"?")[6:]
    add(vm, "--request", "udp dst port 7", "--wake-on", "request,packet", *TIMES)
    sleeps(vm)
    vm.host.send(group)
    assert vm.get().state == abi.SLEEPY
    ctl.ctl("vm", "set", "a", "--request", "udp dst port 9")
    vm.host.send(group)
    assert vm.get().in_flight == 1


def test_tcp_defaults(vm):
    """A whole TCP connection by hand: what opens, acknowledges and ends it is known without a rule."""
    add(vm, "--request", "tcp dst port 80", "--response", "tcp src port 80", "--request-timeout", "60s", *TIMES)
    sleeps(vm)
    ack = frames.ACK

    def flight():
        return vm.get().in_flight

    vm.tcp_to_vm(frames.SYN)
    assert flight() == 1, "a connection is asked for"
    vm.tcp_from_vm(frames.SYN | ack)
    assert flight() == 0, "and given"
    vm.tcp_to_vm(ack)
    assert flight() == 0
    vm.tcp_to_vm(ack | frames.PSH, b"GET / HTTP/1.1\r\n\r\n")
    assert flight() == 1
    vm.tcp_from_vm(ack)
    assert flight() == 1, "an acknowledgement is no answer"
    vm.tcp_from_vm(ack | frames.PSH | frames.FIN, b"HTTP/1.1 200 OK\r\n\r\n")
    assert flight() == 0, "an answer that also ends the connection is an answer"
    responses = vm.stats().responses
    assert responses == 2
    vm.tcp_to_vm(ack)
    vm.tcp_to_vm(ack | frames.FIN)
    vm.tcp_from_vm(ack)
    assert flight() == 0, "the client's end asks for nothing"
    sleeps(vm)
    vm.tcp_to_vm(ack | frames.PSH, b"GET", flow=1)
    vm.tcp_from_vm(frames.RST, flow=1)
    assert flight() == 0
    vm.tcp_to_vm(ack | frames.PSH, b"GET", flow=2)
    vm.tcp_from_vm(ack | frames.FIN, flow=2)
    assert flight() == 0, "a bare FIN from the VM: no answer will come"
    numbers = vm.stats()
    assert (numbers.closed, numbers.responses, numbers.timeouts) == (2, responses, 0)


def test_tcp_defaults_over_ipv6_and_vlan(vm):
    """To the VM the tag comes from a VLAN device, and so in the metadata, as from any other bridge port."""
    net.ip(f"link add link {vm.tap} name stv type vlan id 5")
    net.sysctl("net/ipv6/conf/stv/disable_ipv6", 1)
    net.set_up("stv")
    tagged = net.HostSide("stv")
    add(vm, "--request", "tcp dst port 80 or (vlan and tcp dst port 80)", "--request-timeout", "60s", *TIMES)
    for six, vlan in ((True, None), (False, 5), (True, 5)):
        side = tagged if vlan else vm.host
        side.send(frames.tcp(True, 1000, 80, frames.ACK, ipv6=six))
        assert vm.get().in_flight == 0, f"bare acknowledgement, IPv6: {six}, VLAN: {vlan}"
        side.send(frames.tcp(True, 1000, 80, frames.ACK | frames.PSH, b"GET", ipv6=six))
        assert vm.get().in_flight == 1, f"request, IPv6: {six}, VLAN: {vlan}"
        vm.vm.send(frames.tcp(False, 1000, 80, frames.RST, ipv6=six, vlan=vlan))
        assert vm.get().in_flight == 0, f"reset, IPv6: {six}, VLAN: {vlan}"
    tagged.close()


def test_no_tcp_defaults(vm):
    add(vm, "--no-tcp-defaults", "--no-noise", "--request", "tcp dst port 80", *TIMES)
    assert vm.get().n_rules == 1
    vm.tcp_to_vm(frames.ACK)
    assert vm.get().in_flight == 1


def test_link_in_another_namespace(vm):
    """Named, as NETNS/DEV; and the tap that the VMM holds is found there all the same."""
    net.ip("netns add stns", f"link set {vm.tap} netns stns", "link add stv type veth peer name stw netns stns")
    inode = os.stat("/run/netns/stns").st_ino
    add(vm, *UDP)
    assert [(link["name"], link["netns"]) for link in show("a")["links"]] == [(vm.tap, inode)]
    ctl.ctl("vm", "remove", "a")
    add(vm, *UDP, "--link", "stns/stw", "--link", "stv")
    here = os.stat("/proc/self/ns/net").st_ino
    links = {(link["name"], link["netns"]) for link in show("a")["links"]}
    assert links == {(vm.tap, inode), ("stw", inode), ("stv", here)}
    ctl.ctl("vm", "remove", "a")
    add(vm, *UDP, "--no-auto-link", "--link", "/run/netns/stns/stw")
    assert [link.name for link in vm.device.links(vm.id)] == [b"stw"]


def test_errors_name_the_thing(vm):
    pid = vm.vmm.pid
    message = refused(ctl.FAILED, "vm", "add", "--pid", os.getpid(), "--name", "a")
    assert re.search(rf"no KVM virtual machine in process {os.getpid()} \(\S+\); give the VMM's pid", message)
    assert "4000000" in refused(ctl.FAILED, "vm", "add", "--pid", 4000000, "--name", "a")
    bad = refused(ctl.FAILED, "vm", "add", "--pid", pid, "--name", "a", "--request", "tcp dst prt 80")
    assert "tcp dst prt 80" in bad
    missing = refused(ctl.FAILED, "vm", "add", "--pid", pid, "--name", "a", *UDP, "--link", "nodevice0")
    assert "nodevice0" in missing
    nowhere = refused(ctl.FAILED, "vm", "add", "--pid", pid, "--name", "a", *UDP, "--link", "nonetns/eth0")
    assert "nonetns" in nowhere
    for verb in ("show", "set", "remove"):
        options = ("--linger", "1ms") if verb == "set" else ()
        assert "nosuch" in refused(ctl.FAILED, "vm", verb, "nosuch", *options)
    assert "nosuch" in refused(ctl.FAILED, "stats", "nosuch")
    assert vm.device.vms() == []
    add(vm, *UDP)
    again = refused(ctl.FAILED, "vm", "add", "--pid", pid, "--name", "b", *UDP)
    assert str(pid) in again
    assert len(vm.device.vms()) == 1


def test_name_taken(vm, vmm):
    add(vm, *UDP)
    other = vmm()
    other.machine("halt")
    assert "a" in refused(ctl.FAILED, "vm", "add", "--pid", other.pid, "--name", "a")
    added = ctl.ctl("vm", "add", "--pid", other.pid, "--name", "b")["added"]
    assert added["links"] == []
    assert ctl.ctl("vm", "remove", "--all")["removed"] == ["a", "b"]


def test_several_machines_in_a_process(vm):
    vm.vmm.machine("halt")
    assert str(vm.vmm.pid) in refused(ctl.FAILED, "vm", "add", "--pid", vm.vmm.pid, "--name", "a", *UDP)
    add(vm, "--vm-fd", vm.kvm_fd, *UDP)
    assert vm.device.vcpus(vm.id)[0].tid == vm.tids[0]


def test_text(vm):
    """For people: every state and number that JSON has is there, too."""
    add(vm, *UDP, *TIMES)
    sleeps(vm)
    rules = ["udp dst port 7", "udp src port 7", "and 4 for TCP, 1 for noise"]
    for args, words in (((), ["a", "sleepy", str(vm.vmm.pid)]), (("vm", "list"), ["a", "sleepy"]),
                        (("vm", "show", "a"), ["sleepy", vm.tap, str(vm.tids[0]), "19", "sleep on response", *rules]),
                        (("stats",), ["a"])):
        code, output, _ = ctl.run(*args)
        assert code == 0
        for word in words:
            assert word in output, f"no {word} in: {output}"


def test_nothing_is_kept(vm):
    """The tool's copies of the VMM's descriptors end with it."""
    add(vm, *UDP)
    pid = vm.vmm.pid
    vm.vm.close()
    vm.vmm.stop()
    host.wait(lambda: not any(name.startswith(f"{pid}-") for name in os.listdir("/sys/kernel/debug/kvm")),
              "KVM has let go of the VM")
    host.wait(lambda: not vm.device.vms(), "the VM is gone", 3)
