"""Rounds of a chaos run: files and faults at the same time, quiet, and then what must hold."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from contracts.settings import Settings
from tests.chaos.faults import Fault, struck
from tests.chaos.files import CONTENTS, KEEPS, Expected, Kind, Operation, plan
from tests.chaos.oracle import Oracle, Rows
from tests.chaos.processes import TASK
from tests.chaos.user import User, pauses
from tests.chaos.world import World


@dataclass(frozen=True)
class Round:
    """What was done in a round, and how it ended."""

    number: int
    faults: tuple[str, ...]
    operations: int
    files: int
    """Keys that were put for the first time."""
    rows: int
    """By which the tables have grown, corrected and taken back files set off."""
    seconds: float
    """From the first operation until all was quiet."""
    complete_after: float
    """Seconds from when everything was back until the last file had ended; 0 where that was earlier."""
    wrongs: tuple[str, ...]


@dataclass
class Run:
    """A chaos run: its rounds follow each other on one stack, and share its files."""

    world: World
    seed: int
    user: User = field(init=False)
    expected: Expected = field(default_factory=lambda: Expected(f"chaos-{uuid.uuid4().hex[:6]}"))
    nonsense: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.user = User(self.world.settings)
        since = datetime.now(UTC)
        self._tables = self._reference(since)
        self._oracle = Oracle(self.world.settings, self.user.etag, self._tables, self.expected.folder, since)

    def round(self, number: int, faults: Sequence[Fault], operations: int) -> Round:
        """Do a round's operations while the faults strike, wait for quiet, and look at everything."""
        random = Random(f"{self.seed}/{number}")
        files, rows = self.expected.files, self._rows()
        planned = plan(random, self.expected, f"{self.seed}-{number}", operations)
        gaps = pauses(random, len(planned))
        # Tasks run for seconds only, and perhaps not again.
        delays = [random.uniform(0, 6) * (fault.target != TASK) for fault in faults]
        started = time.monotonic()
        with ExitStack() as stack, ThreadPoolExecutor(1 + len(faults)) as pool:
            strikes = [stack.enter_context(struck(fault, self.world, random)) for fault in faults]
            done = pool.submit(self._do, planned, gaps)
            backs = [pool.submit(_after, delay, strike) for delay, strike in zip(delays, strikes, strict=True)]
            done.result()
            back = max((found.result() for found in backs), default=datetime.now(UTC))
        last = self._oracle.wait_for_quiet(self._keys(planned))
        return Round(
            number=number,
            faults=tuple(map(str, faults)),
            operations=len(planned),
            files=self.expected.files - files,
            rows=self._rows() - rows,
            seconds=round(time.monotonic() - started, 1),
            complete_after=round(max(0.0, (last - back).total_seconds()), 1) if last else 0.0,
            wrongs=tuple(self._oracle.wrongs(self.expected, self.nonsense)),
        )

    def _do(self, planned: Sequence[Operation], gaps: Sequence[float]) -> None:
        for operation, gap in zip(planned, gaps, strict=True):
            self.user.do(operation)
            if operation.kind is Kind.SEND_NONSENSE:
                self.nonsense.add(f"no event: {operation.key}")
            time.sleep(gap)

    def _rows(self) -> int:
        """Rows that the tables must hold."""
        return sum(rows for n in self.expected.contents.values() for rows, _ in self._tables[n].values())

    def _keys(self, planned: Sequence[Operation]) -> dict[str, int | None]:
        """The keys of a round that must end, with the content of the version that must; None for any version."""
        keys: dict[str, int | None] = {}
        for operation in planned:
            if operation.key in self.expected.deleted and operation.key not in self.expected.contents:
                continue  # Taken back: perhaps before anybody knew of it.
            if operation.kind is not Kind.SEND_NONSENSE:
                keys[operation.key] = self.expected.contents.get(operation.key)
        return keys

    def _reference(self, since: datetime) -> dict[int, dict[str, Rows]]:
        """What the tables hold of each content without a fault; its files are put here, before any strikes."""
        keys = {
            number: f"{KEEPS}/{self.expected.folder}-reference/{number}_2025-12.parquet" for number in range(CONTENTS)
        }
        for number, key in keys.items():
            self.user.do(Operation(Kind.PUT, key, number))
        oracle = Oracle(self.world.settings, self.user.etag, {}, self.expected.folder, since)
        oracle.wait_for_quiet({key: number for number, key in keys.items()})
        held = oracle.rows_by_key(KEEPS)
        return {number: {pattern: rows for pattern, (_, rows) in held[key].items()} for number, key in keys.items()}


def deck(faults: Sequence[Fault], random: Random) -> Callable[[], Fault]:
    """Deal faults so that each comes once before any comes twice."""
    left: list[Fault] = []

    def deal() -> Fault:
        if not left:
            left.extend(faults)
            random.shuffle(left)
        return left.pop()

    return deal


def settled(settings: Settings) -> None:
    """Wait until every service is well, so that a round's faults are those that it names."""
    from sluice.stack import status

    limit = time.monotonic() + 240
    while not (found := status(settings)).ready:
        bad = [service.name for service in found.services if service.state != "running"]
        assert time.monotonic() < limit, f"not well again: {bad}"
        time.sleep(0.5)


def _after(delay: float, strike: Callable[[], datetime]) -> datetime:
    time.sleep(delay)
    return strike()
