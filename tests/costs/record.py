# SPDX-License-Identifier: GPL-2.0-only
"""Repetitions in turn, and the lines of the result: each is a `Record::Cost` of tests/bench/src/record.rs."""

import json
import statistics
from collections import defaultdict
from time import monotonic_ns as now  # 1 ns is one instruction, see check_clock() in costs.py

__all__ = ["Results", "interleaved", "now"]


def interleaved(cases, repetitions):
    """{case: its values}: each case is a function, called once in each repetition, after a first one that does not count."""
    values = defaultdict(list)
    for repetition in range(repetitions + 1):
        for case, measure in cases.items():
            value = measure()
            if repetition:
                values[case].append(value)
    return values


def spread(values):
    """Half of the range between the quartiles."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


class Results:
    """The file, and what is shown meanwhile."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")

    def missing(self, path, case, unit, why, **about):
        """Something that could not be measured."""
        self._write(path, case, None, None, unit, why, **about)

    def values(self, path, case, values, unit, **about):
        """The median of these."""
        self._write(path, case, statistics.median(values), spread(values), unit, None, **about)

    def beside(self, path, base, base_about, values, about, unit="instructions"):
        """Case `base` as it is, every other one as its difference to it. `about` is {case: (its name, {rules, vms})}."""
        self.values(path, base, values[base], unit, **base_about)
        for case, (name, more) in about.items():
            more_than_base = [value - without for value, without in zip(values[case], values[base])]
            self.values(path, name, more_than_base, unit, **more)

    def _write(self, path, case, value, spread_, unit, why, rules=None, vms=None):
        cost = {"path": path, "case": case, "rules": rules, "vms": vms, "value": value, "spread": spread_, "unit": unit,
                "why": why}
        self.file.write(json.dumps({"cost": cost}) + "\n")
        self.file.flush()
        what = f"{path:6} {case:22} {f'{rules} rules' if rules else '':8} {f'{vms} VMs' if vms else '':9}"
        shown = f"- {why}" if value is None else f"{value:13,.0f} ±{spread_:,.0f} {unit}"
        print(f"{what} {shown}"[:80], flush=True)
