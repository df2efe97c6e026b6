"""Runs seeds and adds up what happened in them."""

from __future__ import annotations

from collections import Counter

import tests.dags.home  # noqa: F401 - before anything of Airflow
from tests.simulator.simulation import Simulation
from tests.simulator.world import Violation


def run_piece(piece: tuple[range, bool]) -> tuple[Counter[str], list[str], list[str]]:
    """Run some seeds.

    Returns:
        What happened in all of them, what failed and how to repeat it, and the trace.
    """
    seeds, traced = piece
    totals, failed, trace = Counter[str](), [], []
    for seed in seeds:
        simulation = Simulation(seed, traced)
        try:
            simulation.run()
        except Violation as error:
            failed.append(f"seed {seed}: {error}\nrepeat it: python -m tests.simulator --seed {seed} --trace")
        totals += simulation.world.counts
        trace += simulation.world.trace or []
    return totals, failed, trace
