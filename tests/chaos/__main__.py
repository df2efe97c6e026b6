"""`python -m tests.chaos --seed N --rounds M`: a long chaos run on a stack of its own.

Prints a line of JSON a round, and at the end a table of all rounds, also of those that the report had before; ends with
1 as soon as something does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import quantiles

from contracts.errors import SluiceError
from tests.chaos.faults import JUMPS, Fault, possible
from tests.chaos.rounds import Round, Run, deck, settled
from tests.chaos.world import World, started_world


def main() -> int:
    """Run the rounds."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--only", help="a part of the names of the faults to be done")
    arguments.add_argument("--without", help="a part of the names of the faults to be left out")
    arguments.add_argument("--most", type=int, default=2, help="of faults at the same time")
    arguments.add_argument("--report", type=Path, help="file that the lines are added to")
    asked = arguments.parse_args()

    def wanted(name: str) -> bool:
        return (asked.only is None or asked.only in name) and (asked.without is None or asked.without not in name)

    before = _read(asked.report) if asked.report is not None and asked.report.exists() else []
    # A clock that can be moved costs every idle process CPU time; nobody else pays for it.
    with started_world(movable_clock=any(wanted(str(jump)) for jump in JUMPS)) as world:
        for reason in world.missing:
            print(f"left out: {reason}", flush=True)
        rounds = []
        for found in _rounds(world, asked, [fault for fault in possible(world) if wanted(str(fault))]):
            rounds.append(found)
            _say(asked.report, json.dumps(asdict(found)))
    print("\n".join(_table([*before, *rounds])), flush=True)
    if any(found.wrongs for found in rounds):
        print(f"Repeat it with: make chaos SEED={asked.seed} ROUNDS={len(rounds)} and the same ARGS")
        return 1
    return 0


def _rounds(world: World, asked: argparse.Namespace, faults: list[Fault]) -> Iterator[Round]:
    """The rounds, until one of them finds something wrong."""
    random = Random(asked.seed)
    deal = deck(faults, random)
    run = Run(world, asked.seed)
    for number in range(asked.rounds):
        chosen = [deal() for _ in range(min(asked.most, random.choice((1, 1, 1, 2))))]
        operations = random.randint(3, 9)
        try:
            found = run.round(number, chosen, operations)
            settled(world.settings)
        except (AssertionError, TimeoutError, SluiceError) as error:
            found = Round(
                number, tuple(map(str, chosen)), operations, 0, 0, 0, 0, (f"{type(error).__name__}: {error}",)
            )
        yield found
        if found.wrongs:
            return


def _read(report: Path) -> list[Round]:
    lines = map(json.loads, report.read_text("utf-8").splitlines())
    return [Round(**{name: tuple(v) if isinstance(v, list) else v for name, v in line.items()}) for line in lines]


def _table(rounds: list[Round]) -> list[str]:
    """What is told of a run in docs/guarantees.md: a line a kind of fault, and one of all.

    A round with two faults counts for each of them; the times are of rounds with one.
    """
    kinds: dict[str, list[Round]] = defaultdict(list)
    for found in rounds:
        for kind in dict.fromkeys(fault.split()[0] for fault in found.faults):
            kinds[kind].append(found)
    head = "| fault | rounds | operations | files | rows | lost | twice | other | s to complete: p50 | p99 | max |"
    return [
        head,
        "|" + "---|" * (head.count("|") - 1),
        *(_line(kind, kinds[kind]) for kind in sorted(kinds)),
        _line("all", rounds),
    ]


def _line(name: str, rounds: list[Round]) -> str:
    wrongs = [wrong for found in rounds for wrong in found.wrongs]
    lost, twice = (sum(wrong.startswith(word) for wrong in wrongs) for word in ("LOST", "TWICE"))
    waits = [found.complete_after for found in rounds if len(found.faults) == 1]
    cuts = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else waits * 99
    times = (f"{cuts[49]:.1f}", f"{cuts[98]:.1f}", f"{max(waits):.1f}") if waits else ("", "", "")
    sums = [sum(getattr(found, field) for found in rounds) for field in ("operations", "files", "rows")]
    cells = (name, len(rounds), *sums, lost, twice, len(wrongs) - lost - twice, *times)
    return "| " + " | ".join(map(str, cells)) + " |"


def _say(report: Path | None, line: str) -> None:
    print(line, flush=True)
    if report is not None:
        with report.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
