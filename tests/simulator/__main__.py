"""`python -m tests.simulator --seed 7 --trace` repeats a seed; `--seeds 0..200000 --processes 2` runs many."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context

from tests.simulator.seeds import run_piece

PIECE = 200


def main() -> int:
    """Run seeds; one JSON line of totals. The exit code says whether all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--seed", type=int, help="one seed")
    chosen.add_argument("--seeds", type=_range, metavar="A..B", help="all seeds from A to before B")
    parser.add_argument("--trace", action="store_true", help="print every effect")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + 1) if arguments.seed is not None else arguments.seeds
    totals, failures, started = Counter[str](), 0, time.monotonic()
    for counts, failed, trace in _run(seeds, arguments.processes, arguments.trace):
        totals += counts
        failures += len(failed)
        print(*trace, *failed, sep="\n", end="\n" if trace or failed else "", file=sys.stderr)
    about = {"seeds": len(seeds), "failures": failures, "seconds": round(time.monotonic() - started)}
    print(json.dumps(about | dict(sorted(totals.items()))))
    return min(failures, 1)


def _run(seeds: range, processes: int, traced: bool) -> Iterator[tuple[Counter[str], list[str], list[str]]]:
    pieces = [(seeds[start : start + PIECE], traced) for start in range(0, len(seeds), PIECE)]
    if processes == 1:
        yield from map(run_piece, pieces)
        return
    # Fresh processes: greenlets and a fork do not go together.
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(run_piece, pieces)


def _range(text: str) -> range:
    first, dots, last = text.partition("..")
    if not dots:
        raise argparse.ArgumentTypeError("A..B was expected")
    return range(int(first), int(last))


if __name__ == "__main__":
    sys.exit(main())
