"""`python -m tests.chaos --seed N --rounds M`: a long chaos run on a stack of its own.

Prints a line of JSON a round, and a summary at the end; ends with 1 as soon as something does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import quantiles

from contracts.errors import SluiceError
from tests.chaos.faults import possible
from tests.chaos.rounds import Round, Run, deck, settled
from tests.chaos.world import World, started_world


def main() -> int:
    """Run the rounds."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--only", help="a part of the names of the faults to be done")
    arguments.add_argument("--report", type=Path, help="file that gets the lines too")
    asked = arguments.parse_args()
    with started_world() as world:
        return _run(world, asked)


def _run(world: World, asked: argparse.Namespace) -> int:
    for reason in world.missing:
        print(f"left out: {reason}", flush=True)
    random = Random(asked.seed)
    faults = [fault for fault in possible(world) if asked.only is None or asked.only in str(fault)]
    deal = deck(faults, random)
    run = Run(world, asked.seed)
    rounds: list[Round] = []
    for number in range(asked.rounds):
        chosen = [deal() for _ in range(random.choice((1, 1, 1, 2)))]
        try:
            rounds.append(run.round(number, chosen, operations=random.randint(3, 9)))
            settled(world.settings)
        except (AssertionError, TimeoutError, SluiceError) as error:
            rounds.append(Round(number, tuple(map(str, chosen)), 0, 0, 0, (f"{type(error).__name__}: {error}",)))
        _say(asked.report, json.dumps(asdict(rounds[-1])))
        if rounds[-1].wrongs:
            _say(None, f"Repeat it with: make chaos SEED={asked.seed} ROUNDS={number + 1}")
            break
    _say(asked.report, json.dumps(_summary(asked.seed, run, rounds)))
    return int(any(round.wrongs for round in rounds))


def _summary(seed: int, run: Run, rounds: list[Round]) -> dict[str, object]:
    waits = [round.complete_after for round in rounds if len(round.faults) == 1 and round.faults[0].startswith("kill")]
    cuts = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else waits * 99
    wrongs = [wrong for round in rounds for wrong in round.wrongs]
    return {
        "seed": seed,
        "rounds": len(rounds),
        "faults": Counter(fault.split()[0] for round in rounds for fault in round.faults),
        "operations": sum(round.operations for round in rounds),
        "files": run.expected.files,
        "lost": sum(wrong.startswith("LOST") for wrong in wrongs),
        "twice": sum(wrong.startswith("TWICE") for wrong in wrongs),
        "wrong": len(wrongs),
        "kill_to_complete_p50": cuts[49] if cuts else None,
        "kill_to_complete_p99": cuts[98] if cuts else None,
    }


def _say(report: Path | None, line: str) -> None:
    print(line, flush=True)
    if report is not None:
        with report.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
