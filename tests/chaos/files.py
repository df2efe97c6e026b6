"""What a round does to files, planned from the seed alone, and what the tables must hold of them in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from tests.conftest import TWIN

KEEPS, RETRACTS = "nyc_yellow", TWIN
"""Datasets of the same kind: of a deleted file, one keeps the rows, the other takes them back."""
CONTENTS = 6
"""Different files that are put; each has its own rows."""
_NAMES = ("plain", "with space", "a+b", "50%", "größe", "q?x=1&y", "comma,semi;")


class Kind(StrEnum):
    """What a user, or a fault of theirs, does."""

    PUT = "put"
    """A new object, or new content under a key that is there."""
    PUT_AGAIN = "put again"
    """The same content under the same key."""
    PUT_BAD = "put bad"
    """A new object that is no parquet, whatever its name says."""
    PUT_STRAY = "put stray"
    """A new object in a folder of which no contract knows."""
    DELETE = "delete"
    REPEAT_EVENTS = "repeat events"
    """All events of a key once more, the last one first."""
    SEND_NONSENSE = "send nonsense"
    """A message that is no event, among the events."""


@dataclass(frozen=True)
class Operation:
    """One of them."""

    kind: Kind
    key: str
    content: int | None = None


@dataclass
class Expected:
    """What must have become of each key when all is quiet."""

    folder: str = "chaos"
    """Of the dataset's folder, where all keys are."""
    contents: dict[str, int] = field(default_factory=dict)
    """Keys whose rows are in the tables, once; which of the contents."""
    deleted: set[str] = field(default_factory=set)
    """Keys that are no more in bronze."""
    refused: set[str] = field(default_factory=set)
    """Keys that end in quarantine and have no rows."""

    @property
    def files(self) -> int:
        """How many keys were ever put."""
        return len({*self.contents, *self.deleted, *self.refused})


def plan(random: Random, expected: Expected, name: str, operations: int) -> list[Operation]:
    """What a round does. `expected` is told of it.

    An object of the dataset that keeps rows is deleted only if it was left alone in the round: otherwise it would
    depend on who is faster whether its last content was ever read.
    """
    planned = [_put(random, expected, f"{name}-0")]
    touched = {planned[0].key}
    for number in range(1, operations):
        there = sorted(expected.contents.keys() - expected.deleted)
        kind = random.choices(list(Kind), weights=(8, 2, 1, 1, 3, 2, 1))[0]
        if kind in (Kind.PUT_AGAIN, Kind.DELETE, Kind.REPEAT_EVENTS) or (kind is Kind.PUT and random.random() < 0.5):
            operation = _to_one_there(random, expected, kind, there, touched)
        elif kind is Kind.PUT:
            operation = _put(random, expected, f"{name}-{number}")
        elif kind is Kind.SEND_NONSENSE:
            operation = Operation(kind, f"{name}-{number}")
        else:
            dataset = KEEPS if kind is Kind.PUT_BAD else "nobody_knows"
            operation = Operation(kind, f"{dataset}/{expected.folder}/{name}-{number}_2025-12.parquet")
            expected.refused.add(operation.key)
        touched.add(operation.key)
        planned.append(operation)
    return planned


def _put(random: Random, expected: Expected, name: str) -> Operation:
    key = f"{random.choice((KEEPS, RETRACTS))}/{expected.folder}/{name} {random.choice(_NAMES)}_2025-12.parquet"
    return _now_holds(expected, Operation(Kind.PUT, key, random.randrange(CONTENTS)))


def _to_one_there(random: Random, expected: Expected, kind: Kind, there: Sequence[str], touched: set[str]) -> Operation:
    if kind is Kind.DELETE:
        there = [key for key in there if key.startswith(f"{RETRACTS}/") or key not in touched]
    if not there:
        return Operation(Kind.SEND_NONSENSE, f"instead of {kind}")
    key = random.choice(there)
    if kind is Kind.DELETE:
        expected.deleted.add(key)
        if key.startswith(f"{RETRACTS}/"):
            del expected.contents[key]
        return Operation(kind, key)
    if kind is Kind.PUT:
        return _now_holds(expected, Operation(kind, key, random.randrange(CONTENTS)))
    return Operation(kind, key, expected.contents[key] if kind is Kind.PUT_AGAIN else None)


def _now_holds(expected: Expected, operation: Operation) -> Operation:
    assert operation.content is not None
    expected.contents[operation.key] = operation.content
    expected.deleted.discard(operation.key)
    return operation
