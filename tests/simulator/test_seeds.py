"""Many seeds: whatever happened to a system, once it is left in peace every guarantee holds."""

from __future__ import annotations

import pytest

from tests.simulator.seeds import run_piece
from tests.simulator.simulation import Simulation

SEEDS = 1_000
PIECES = 10


@pytest.mark.parametrize("piece", range(PIECES))
def test_guarantees_hold_for_each_seed(piece: int) -> None:
    share = SEEDS // PIECES
    totals, failed, _ = run_piece((range(piece * share, (piece + 1) * share), False))
    assert failed == []
    # Such a share that met no fault would show nothing.
    kinds = ("crashes", "pauses", "events lost", "events repeated", "commits refused", "reconcile repairs", "outages")
    assert {kind: totals[kind] for kind in kinds if not totals[kind]} == {}


def test_seed_decides_on_everything_that_happens() -> None:
    runs = [Simulation(11, trace=True) for _ in range(2)]
    for run in runs:
        run.run()
    assert runs[0].world.trace == runs[1].world.trace
    assert runs[0].world.trace
