# SPDX-License-Identifier: GPL-2.0-only
"""VMMs, devices and namespaces that go away under load.

       senders, one on each CPU  ->  st0 (tap)   ->  tiny VM
                   one answerer  <-  st0         <-  through the tiny VM's tap descriptor
"""

import itertools
import os
import time

import pytest

from lib import abi, frames, host, net
from lib.traffic import flows

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND


def test_traffic_from_all_cpus(scenes, traffic):
    """Under load: the accounts agree, and when it ends the VM comes to rest."""
    scene = scenes(vcpus=2, linger=0, request_timeout=100 * MS, max_sleep=20 * MS)
    load = traffic(scene, pauses=True)
    time.sleep(2)
    flows(scene)

    def both():
        stats = scene.stats()
        return stats.wakes["request"] and stats.sleeps["response"]

    # On a busy host something may be in flight for long.
    host.wait(both, "asleep by an answer, awake by a request", 20)
    assert load.stop()
    scene.set(max_sleep=LONG)
    host.wait(lambda: scene.get().in_flight == 0, "all answered or lost")
    scene.wait_sleepy()

    def accounts_agree():
        """It was added awake, and is asleep now. What is counted follows the state."""
        stats = scene.stats()
        return sum(stats.sleeps.values()) == sum(stats.wakes.values()) + 1

    try:
        host.wait(accounts_agree, "as many sleeps as wake-ups, and one more")
    finally:
        stats = scene.stats()
        print(f"sleeps {stats.sleeps}\nwakes {stats.wakes}")


def test_vmm_killed_in_mid_request(scenes, traffic):
    scene = scenes(vcpus=2, linger=1 * MS, request_timeout=LONG)
    traffic(scene, answers=False)
    flows(scene)
    assert scene.get().in_flight > 0
    scene.vm.close()
    scene.vmm.stop()
    host.wait(lambda: not scene.device.vms(), "the VM is gone", 3)
    assert net.exists(scene.tap), "the tap is persistent: traffic goes on without its VM"


def test_vmm_killed_with_its_tap(scenes, traffic):
    """A tap that is not persistent goes with the VMM, hooks and all."""
    scene = scenes(linger=1 * MS)
    load = traffic(scene)
    flows(scene)
    load.stop()
    net.let_go(scene.vmm.pid, scene.tap)
    traffic(scene, answers=False)
    flows(scene)
    scene.vm.close()
    scene.vmm.stop()
    host.wait(lambda: not net.exists(scene.tap), "the tap is gone")
    host.wait(lambda: not scene.device.vms(), "the VM is gone", 3)


def test_tap_deleted_under_traffic(scenes, traffic):
    """Requests may come where they cannot be seen any more: awake, for good."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    load = traffic(scene)
    flows(scene)
    net.ip(f"link del {scene.tap}")
    assert scene.get().lost_links == 1
    assert scene.device.links(scene.id) == []
    assert load.stop()
    time.sleep(0.2)
    assert scene.get().state == abi.AWAKE and scene.nices() == [0]
    scene.set(linger=0)
    time.sleep(0.1)
    assert scene.get().state == abi.AWAKE and scene.nices() == [0]
    scene.device.remove(scene.id)


def test_tap_deleted_while_asleep(scenes):
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    net.ip(f"link del {scene.tap}")
    assert scene.nices() == [0]
    assert scene.stats().wakes["admin"] == 1
    time.sleep(0.1)
    assert scene.get().state == abi.AWAKE


def test_one_of_two_links_lost(scenes):
    """The other link's requests still count, but the VM never sleeps again."""
    scene = scenes(add=False)
    net.tap("stb")
    with open("/proc/self/ns/net", "rb") as netns:
        scene.add(linger=1 * MS, max_sleep=LONG,
                  links=[(netns.fileno(), net.ifindex(name)) for name in (scene.tap, "stb")])
    scene.wait_sleepy()
    assert net.delete_tap("stb")
    host.wait(lambda: scene.get().lost_links == 1, "lost")
    assert [link.name for link in scene.device.links(scene.id)] == [scene.tap.encode()]
    scene.request()
    assert scene.get().in_flight == 1 and scene.stats().requests == 1
    scene.answer()
    time.sleep(0.1)
    assert scene.get().state == abi.AWAKE and scene.nices() == [0]


def test_two_links(scenes):
    """A request on either wakes the VM; its answer may leave by the other."""
    scene = scenes(add=False)
    net.tap("stb")
    with open("/proc/self/ns/net", "rb") as netns:
        scene.add(linger=1 * MS, max_sleep=LONG,
                  links=[(netns.fileno(), net.ifindex(name)) for name in (scene.tap, "stb")])
    scene.wait_sleepy()
    other = net.HostSide("stb")
    fd = scene.vmm.tap("stb")
    other.send(frames.udp(True, 10001, 7))
    assert scene.nices() == [0] and scene.get().in_flight == 1
    scene.answer(1)
    scene.wait_sleepy()
    scene.vmm.close(fd)
    other.close()


def test_tap_moved_to_another_namespace(scenes):
    """A device that leaves the namespace is lost like one that is deleted."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    net.ip("netns add stns")
    net.ip(f"link set {scene.tap} netns stns")
    assert scene.get().lost_links == 1
    assert scene.nices() == [0]
    # As a new link of the same VM it is as good as before.
    scene.device.remove(scene.id)
    with open("/run/netns/stns", "rb") as netns:
        index = net.ifindex(scene.tap, "stns")
        scene.add(links=[(netns.fileno(), index)], linger=1 * MS, max_sleep=LONG)
    link, = scene.device.links(scene.id)
    assert (link.ifindex, link.netns) == (index, os.stat("/run/netns/stns").st_ino)
    scene.wait_sleepy()
    with net.inside("stns"):
        net.set_up(scene.tap)
        sender = net.HostSide(scene.tap)
    sender.send(frames.udp(True, 10001, 7))
    assert scene.nices() == [0] and scene.get().in_flight == 1
    scene.answer(1)
    scene.wait_sleepy()
    sender.close()


def test_namespace_deleted(scenes, traffic):
    """With the tap in it, while the VMM holds the tap open."""
    scene = scenes(add=False)
    net.ip("netns add stns")
    net.ip(f"link set {scene.tap} netns stns")
    with net.inside("stns"):
        net.set_up(scene.tap)
    with open("/run/netns/stns", "rb") as netns:
        scene.add(links=[(netns.fileno(), net.ifindex(scene.tap, "stns"))], linger=1 * MS, max_sleep=LONG)
    with net.inside("stns"):
        load = traffic(scene)
    flows(scene)
    # The senders' own sockets would keep the namespace.
    load.stop()
    scene.host.close()
    net.ip("netns del stns")
    host.wait(lambda: scene.get().lost_links == 1, "the link is lost")
    host.wait(lambda: scene.nices() == [0], "awake")
    scene.device.remove(scene.id)


# In one namespace: a bridge, a tap that is its port, a VLAN on that. What goes takes what is on it, or in it, along.
STACK = {"stbr": {"stbr"}, "tap": {"tap", "stvlan"}, "stvlan": {"stvlan"}, "netns": {"stbr", "tap", "stvlan"}}


# What comes after the namespace is gone already.
ORDERS = sorted({order[:order.index("netns") + 1] for order in itertools.permutations(STACK)})


@pytest.mark.flavour("base", "previous")  # on the others, each of them is removed by itself
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_links_removed_in_every_order(scenes, traffic, order):
    """Under traffic by each of them, but for what the namespace takes along. Each that is gone is lost, whoever took it along; the
    first has the VM awake for good."""
    scene = scenes(add=False)
    net.ip("netns add stns")
    net.ip(f"link set {scene.tap} netns stns")
    net.ip(f"link add link {scene.tap} name stvlan type vlan id 7", "link add stbr type bridge",
           f"link set {scene.tap} master stbr", f"link set {scene.tap} up", "link set stvlan up", "link set stbr up", netns="stns")
    there = {"stbr": "stbr", "tap": scene.tap, "stvlan": "stvlan"}
    with open("/run/netns/stns", "rb") as netns:
        scene.add(linger=1 * MS, max_sleep=LONG,
                  links=[(netns.fileno(), net.ifindex(name, "stns")) for name in there.values()])
    scene.wait_sleepy()
    with net.inside("stns"):
        loads = [traffic(scene), traffic(scene, at="stvlan", answers=False), traffic(scene, at="stbr", answers=False)]
    flows(scene)
    lost = set()
    for what in order:
        if what == "netns":
            # The senders' own sockets would keep it.
            assert all([load.stop() for load in loads]), "a sender met an error"
            scene.host.close()
            net.ip("netns del stns")
        elif what not in lost:
            net.ip(f"link del {there[what]}", netns="stns")
        lost |= STACK[what]
        host.wait(lambda: scene.get().lost_links == len(lost), f"{lost} are lost; {scene}")
        assert len(scene.device.links(scene.id)) == len(there) - len(lost)
        assert scene.get().state == abi.AWAKE and scene.nices() == [0]
    time.sleep(0.1)
    assert scene.get().state == abi.AWAKE and scene.nices() == [0]
    scene.device.remove(scene.id)


def test_module_holds_no_namespace(scenes):
    """A hook in a namespace does not keep that from ending, nor does the descriptor it was named by."""
    scene = scenes(add=False)
    net.ip("netns add stns")
    net.ip("link add stv type veth peer name stw", netns="stns")
    with open("/run/netns/stns", "rb") as netns:
        scene.add(links=[(netns.fileno(), net.ifindex("stv", "stns"))], linger=1 * MS)
    assert scene.get().n_links == 1
    net.ip("netns del stns")
    host.wait(lambda: scene.get().lost_links == 1, "the namespace has ended")
    assert scene.get().n_links == 0


def test_device_goes_down_and_is_renamed(scenes):
    """Neither loses the link."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    net.ip(f"link set {scene.tap} down", f"link set {scene.tap} name strenamed", "link set strenamed up")
    assert [link.name for link in scene.device.links(scene.id)] == [b"strenamed"]
    assert scene.get().lost_links == 0
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [0]


def test_bridged_and_released(scenes):
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    net.ip("link add stbr type bridge", f"link set {scene.tap} master stbr", "link set stbr up")
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [0]
    scene.answer()
    scene.wait_sleepy()
    net.ip(f"link set {scene.tap} nomaster", "link del stbr")
    scene.request(1)
    assert scene.nices() == [0]
    scene.answer(1)
    scene.wait_sleepy()


def test_removed_under_traffic(scenes, traffic):
    scene = scenes(vcpus=2, add=False)
    load = traffic(scene)
    for _ in range(host.turns(15)):
        scene.add(linger=0, max_sleep=1 * MS, request_timeout=5 * MS)
        flows(scene)
        scene.device.remove(scene.id)
        assert scene.nices() == [0, 0]
    assert load.stop()


def test_policy_changed_under_traffic(scenes, traffic):
    scene = scenes(vcpus=2, linger=0, max_sleep=1 * MS, request_timeout=5 * MS)
    load = traffic(scene)
    flows(scene)
    before, end = scene.stats(), time.monotonic() + 1
    for turn in itertools.count():
        if turn >= 40 and time.monotonic() > end:
            break
        scene.set(lever=turn % 2, sleepy_nice=10 + turn % 10,
                  flags=abi.BOOST if turn % 3 == 0 else 0, boost_nice=-turn % 5 if turn % 3 == 0 else 0)
    assert scene.stats().requests > before.requests + 20
    assert load.stop()
    scene.set(lever=abi.NICE, flags=0, boost_nice=0, max_sleep=LONG)
    scene.wait_sleepy()
    scene.device.remove(scene.id)
    assert scene.nices() == [0, 0]
