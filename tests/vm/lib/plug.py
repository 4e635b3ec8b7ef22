# SPDX-License-Identifier: GPL-2.0-only
"""Where a guest's tap is plugged in. The client is always in the namespace `stcl`.

    bridged   stcl: 10.9.N.1 stc0 --veth-- stc1 -- stbr -- gtN (tap) -- guest 10.9.N.2

    routed    stcl: 10.8.0.2 stc0 --veth-- stc1 10.8.0.1 host 10.9.N.1 gtN (tap) -- guest 10.9.N.2

    netns     stcl: 10.9.N.1 gtN (tap) -- guest 10.9.N.2

    vlan      stcl: 10.9.N.1 stvl (VLAN 100) on gtN (tap) -- guest: eth0.100 10.9.N.2

    vlan-bridged   stcl: 10.9.N.1 stvl (VLAN 100) on stc0 --veth-- stc1 -- stbr -- gtN (tap) -- guest: eth0.100

N is the guest's number; IPv6 likewise: fd09:N::1 and ::2, fd08::1 and ::2.
"""

from contextlib import contextmanager

from . import net

CLIENT = "stcl"
KINDS = ("bridged", "routed", "netns")
VLAN = 100


VETH = ("link add stc1 type veth peer name stc0 netns stcl", "link set stc1 up")


def addresses(device, guest):
    """The gateway's, on a device of the client's namespace."""
    return (f"address add {guest.host4}/24 dev {device}", f"address add {guest.host6}/64 dev {device} nodad")


@contextmanager
def plug(guest, kind):
    """The guest's tap in that place, and the namespace that the client is in."""
    tap, mac = guest.tap, f"address {guest.gateway_mac}"
    moved = kind in ("netns", "vlan")
    net.ip(f"netns add {CLIENT}")
    try:
        if kind in ("bridged", "vlan-bridged"):
            # A bridge takes what is sent to a port's own address: the gateway's may not be left on it.
            net.ip(*VETH, f"link set {tap} address {guest.port_mac}", "link add stbr type bridge", "link set stbr up",
                   "link set stc1 master stbr", f"link set {tap} master stbr")
            net.ip(f"link set stc0 {mac} up", netns=CLIENT)
        elif kind == "routed":
            net.ip(*VETH, "address add 10.8.0.1/24 dev stc1", "address add fd08::1/64 dev stc1 nodad")
            net.ip("link set stc0 up", "address add 10.8.0.2/24 dev stc0",
                   "address add fd08::2/64 dev stc0 nodad", "route add default via 10.8.0.1",
                   "route add fd09::/16 via fd08::1", netns=CLIENT)
            # No neighbour of somebody else's packet is asked for while the router's own address is tentative.
            net.sysctl(f"net/ipv6/conf/{tap}/accept_dad", 0)
            net.sysctl(f"net/ipv6/conf/{tap}/disable_ipv6", 0)
            net.ip(f"link set {tap} down", f"link set {tap} {mac} up", *addresses(tap, guest))
            net.sysctl("net/ipv4/ip_forward", 1)
            net.sysctl("net/ipv6/conf/all/forwarding", 1)
        else:
            net.ip(f"link set {tap} down", f"link set {tap} {mac} netns {CLIENT}")
            net.ip(f"link set {tap} up", netns=CLIENT)
        if kind in ("bridged", "netns"):
            net.ip(*addresses("stc0" if kind == "bridged" else tap, guest), netns=CLIENT)
        elif kind.startswith("vlan"):
            below = "stc0" if kind == "vlan-bridged" else tap
            net.ip(f"link add link {below} name stvl type vlan id {VLAN}", "link set stvl up",
                   *addresses("stvl", guest), netns=CLIENT)
        yield CLIENT
    finally:
        if kind == "vlan":
            net.ip("link del stvl", check=False, netns=CLIENT)
        if moved:
            net.ip(f"link set {tap} netns 1", check=False, netns=CLIENT)
            net.ip(f"link set {tap} up", check=False)
        elif kind == "routed":
            net.ip(f"address flush dev {tap}", check=False)
            net.sysctl("net/ipv4/ip_forward", 0)
            net.sysctl("net/ipv6/conf/all/forwarding", 0)
        else:
            net.ip(f"link set {tap} nomaster", "link del stbr", check=False)
        if net.exists(tap):
            net.sysctl(f"net/ipv6/conf/{tap}/disable_ipv6", 1)
        if not moved:
            net.ip("link del stc1", check=False)
        net.ip(f"netns del {CLIENT}", check=False)
