#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What sleepy costs, in instructions, bytes, and time by the number of VMs.

Runs in a test host whose clock counts instructions, one a nanosecond (scripts/vm -I), as scripts/costs starts it.
"""

import argparse
import ctypes
import mmap
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vm"))

from lib import abi, host  # noqa: E402

import growth  # noqa: E402
import packets  # noqa: E402
import vcpus  # noqa: E402
from guests import Crashed, Fleet  # noqa: E402
from record import Results, now  # noqa: E402

LOOP = 1_000_000


def check_clock():
    """A loop of a known number of instructions must take as many nanoseconds, but for the ticks in between (0.5 %)."""
    code = b"\xb9" + struct.pack("<I", LOOP) + bytes.fromhex("ffc9 75fc c3")  # mov $LOOP, %ecx; dec %ecx; jnz; ret
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    loop = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    took = []
    for _ in range(10):
        began = now()
        loop()
        took.append(now() - began)
    off = min(took) / (2 * LOOP) - 1
    print(f"clock: a loop of {2 * LOOP:,} instructions takes {min(took):,} ns ({off:+.2%})", flush=True)
    if abs(off) > 0.01:
        sys.exit("costs: the clock does not count instructions; run this by scripts/costs (scripts/vm -I)")


def attempt(measure, *args):
    """Calls it again if the emulator has crashed its guest."""
    for left in reversed(range(3)):
        try:
            return measure(*args)
        except Crashed as crash:
            if not left:
                raise
            print(f"{crash}: the emulator; once more", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ctl", required=True, metavar="FILE", help="sleepyctl")
    parser.add_argument("--ko", required=True, metavar="FILE", help="sleepy.ko for the running kernel")
    parser.add_argument("--out", required=True, metavar="FILE", help="write the results there, a JSON object a line")
    parser.add_argument("--standin", required=True, metavar="FILE", help="sleepy-standin")
    parser.add_argument("--small", action="store_true", help="fewer cases and repetitions, in a minute")
    parser.add_argument("--most", type=int, default=1000, metavar="VMS", help="most VMs (default: %(default)s)")
    return parser.parse_args()


def main():
    given = arguments()
    check_clock()
    results = Results(given.out)
    if not host.loaded():
        host.load(given.ko)
    with abi.Device() as device:
        fleet = Fleet(given.standin)
        one = packets.Packets(results, device)
        tool = growth.Tool(results, device, given.ctl)
        if given.small:
            rule_counts, many, sizes, repetitions, count = (1, 10), 100, (), 5, 500
        else:
            rule_counts, many, repetitions, count = (1, 10, 64), min(given.most, 1000), 11, 2000
            sizes = [size for size in (1, 10, 100, 1000, 10000) if size < given.most] + [given.most]

        attempt(vcpus.measure_switches, results, device, count, repetitions)
        attempt(vcpus.measure_exits, results, device, count, repetitions)
        one.register()
        one.measure(1, rule_counts, count, repetitions)
        device.clear()
        for size in sizes:
            if not fleet.fits(size):
                results.missing("apply", "new", "ns", f"no memory for so many VMMs; {fleet.most()} would fit", vms=size)
                continue
            fleet.grow(size)
            tool.measure(size, 1 if size > 1000 else 3 if size > 100 else 5)
            if size not in (1, many):
                among(one, fleet, device, size)
                one.measure(size, (1,), count, repetitions, nft=False)
                device.clear()
        among(one, fleet, device, many)
        one.measure(many, rule_counts, count, repetitions, nft=False)
        device.clear()
        growth.measure_memory(results, device, fleet, 100, (1, 64), 3 if given.small else 7)


def among(one, fleet, device, vms):
    """The VM whose packets are measured is one of so many."""
    fleet.grow(vms - 1)
    fleet.register(device, vms - 1, packets.rules(1))
    one.register()


if __name__ == "__main__":
    main()
