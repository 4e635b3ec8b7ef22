# SPDX-License-Identifier: GPL-2.0-only
"""What a run of the bench has left in the directory $BENCH: is it whole, and does it agree with itself?

What is fast is not asked here: that is what the bench is for.
"""

import json
import os
from pathlib import Path

import pytest

DIR = Path(os.environ["BENCH"])
BENCH = json.loads((DIR / "bench.json").read_text())
SYSTEMS = ["eevdf", "eevdf-tuned", "controller", "scx_bpfland", "scx_lavd", "scx_flash",
           "sleepy-nice", "sleepy-idle", "sleepy-cgroup", "sleepy-park", "sleepy-auto"]
OURS = [system for system in SYSTEMS if not system.startswith("scx")]
CHAINS = [1, 2]


def row(system, chains):
    rows = [row for row in BENCH["rows"] if row["system"] == system and row["chains"] == chains]
    assert len(rows) == 1
    return rows[0]


def test_schema():
    assert BENCH["schema_version"] == 1
    assert BENCH["host"]["cpus"] >= 2 and BENCH["host"]["kernel"]
    assert len(BENCH["rows"]) == len(SYSTEMS) * len(CHAINS)


@pytest.mark.parametrize("chains", CHAINS)
@pytest.mark.parametrize("system", OURS)
def test_row(system, chains):
    one = row(system, chains)
    assert one["error"] is None
    assert len(one["samples"]) == chains * one["repetitions"]
    for times in (one["exec_ns"], one["stage_ns"], one["trigger_ns"], one["inter_ns"]):
        assert 0 <= times["p50"] <= times["p95"] <= times["p99"] <= times["max"]
    assert one["stage_ns"]["max"] < one["exec_ns"]["max"]
    assert one["overcommit"] == 3 * chains
    assert 0 <= one["idle_share"] <= 1
    # Nobody gets more CPU time than there was.
    assert one["exec_ns"]["max"] > 0.8 * one["useful_ns"] / BENCH["host"]["vcpu_cpus"]
    assert one["limit_exec_ns"] > 0


@pytest.mark.parametrize("chains", CHAINS)
@pytest.mark.parametrize("system", [system for system in SYSTEMS if system not in OURS])
def test_what_cannot_run_says_why(system, chains):
    one = row(system, chains)
    assert not one["samples"] and one["exec_ns"]["p50"] is None
    assert one["error"]


@pytest.mark.parametrize("chains", CHAINS)
@pytest.mark.parametrize("system", OURS)
def test_other_clocks_agree(system, chains):
    checks = row(system, chains)["checks"]
    # The client's own time, and that of the links, is more than the module sees.
    assert 0.95 < checks["client"] < 2
    assert 0.8 < checks["schedstat"] < 1.25


def test_sleep_gives_the_cpu_away():
    """Of the same guests, which spin: what is a part of the experiment's meaning, not of its speed."""
    assert row("sleepy-park", 2)["idle_share"] < row("eevdf", 2)["idle_share"]


@pytest.mark.parametrize("system", ["controller", "sleepy-nice", "sleepy-park"])
def test_reactions(system):
    found = [one for one in BENCH["reactions"] if one["system"] == system]
    assert found and all(one["p50"] > 0 for one in found)


@pytest.mark.parametrize("request_", ["answer", "function"])
@pytest.mark.parametrize("system", ["none", "eevdf", "sleepy-nice", "sleepy-park"])
def test_alone(system, request_):
    row, = (one for one in BENCH["alone"] if (one["system"], one["request"]) == (system, request_))
    assert row["per_second"] > 0


def test_costs():
    costs = {(one["path"], one["case"], one["rules"], one["vms"]): one for one in BENCH["costs"]}
    assert {path for path, *_ in costs} >= {"packet", "switch", "exit", "memory"}
    for one in costs.values():
        assert (one["value"] is None) == bool(one["why"]), one


def test_report_fits_a_terminal():
    text = (DIR / "report.txt").read_text()
    assert max(map(len, text.splitlines())) <= 80
    for system in SYSTEMS:
        assert system in text


@pytest.mark.parametrize("kind", ["exec", "idle"])
def test_plots(kind):
    for suffix, magic in (("svg", b"<svg"), ("png", b"\x89PNG")):
        data = (DIR / f"{kind}-compile-busypoll.{suffix}").read_bytes()
        assert data.startswith(magic) and len(data) > 1000
