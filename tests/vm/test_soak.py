# SPDX-License-Identifier: GPL-2.0-only
"""Some rounds of the soak (soak.py), always the same; `make soak` does as many as there is time for."""

import pytest

from lib import churn, host
from soak import Soak

# With this seed, each operation is drawn.
SEED, ROUNDS = 1197, 2


@pytest.fixture
def alone(free_kvm):
    """Nobody else uses the module, or KVM."""
    yield
    if not host.loaded():
        host.load()


def test_soak(alone):
    soak = Soak(SEED)
    for _ in range(ROUNDS):
        soak.round()
        assert not soak.found, "\n".join(soak.verdict(1))
    print(*soak.table(), sep="\n")
    assert all(soak.done[name] for name in churn.OPERATIONS), soak.done
