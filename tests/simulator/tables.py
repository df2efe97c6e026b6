"""Iceberg and Spark in memory: tables with snapshots and optimistic commits, and frames that read when they are run.

What the jobs ask of a `DataFrame`, a `Column` and a table's metadata, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from contracts.errors import JobFailed
from spark_jobs.lake import (
    BATCH_PACK,
    BATCH_PROPERTY,
    CARRIED_PROPERTY,
    PACK,
    SOURCE_ETAG,
    SOURCE_ID,
    SOURCE_KEY,
    Partition,
    Snapshot,
    SourceRows,
    source_id,
)
from tests.simulator.world import World

SPARK = "spark"

FileRowOf = Mapping[str, Any]
Rows = list[dict[str, Any]]
Part = Any
"""What stands for a partition: a source id, the id of a pack, or a month."""


@dataclass(frozen=True)
class Commit:
    """A snapshot, with all that the table holds at it."""

    about: Snapshot
    properties: Mapping[str, str]
    content: Mapping[Part, tuple[dict[str, Any], ...]]
    touched: frozenset[Part]
    """Partitions in which rows came or went: all that Iceberg compares."""
    added: tuple[dict[str, Any], ...]
    """Rows that it wrote."""
    replaced: frozenset[Part]
    """Partitions that the commit is about; those that were empty and stay so are not touched."""

    @property
    def batch_id(self) -> str | None:
        """None of upkeep's."""
        return self.about.batch_id


class Table:
    """A table: its commits, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.commits: list[Commit] = []
        self.unfenced: set[Part] = set()
        """Into which a driver put rows after another had replaced nothing by nothing, which Iceberg does not notice."""

    @property
    def rows(self) -> Rows:
        """What it holds now."""
        return rows_of(self.commits[-1]) if self.commits else []

    def partition(self, row: FileRowOf) -> Part:
        """Where a row is: rows of files by their source, those of aggregates by their month."""
        return row[SOURCE_ID] if SOURCE_ID in row else (row["day"].year, row["day"].month)


def _by_key(rows: Iterable[dict[str, Any]]) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in rows:
        found.setdefault(row[SOURCE_KEY], []).append(row)
    return found


def _held(rows: Rows) -> SourceRows:
    return SourceRows(len(rows), frozenset(str(row[SOURCE_ETAG]) for row in rows))


def rows_of(commit: Commit) -> Rows:
    return [row for partition in commit.content.values() for row in partition]


class View:
    """A table as its metadata described it when it was read; as `spark_jobs.lake.LakeTable`."""

    def __init__(self, table: Table) -> None:
        self._commits = tuple(table.commits)

    @property
    def current_id(self) -> int | None:
        return self._commits[-1].about.snapshot_id if self._commits else None

    def commit_of(self, batch_id: str, by: str = BATCH_PROPERTY) -> Snapshot | None:
        return next((c.about for c in reversed(self._commits) if c.properties.get(by) == batch_id), None)

    def batches_since(self, moment: datetime) -> set[str]:
        recent = (c.batch_id for c in self._commits if c.about.committed_at >= moment)
        return {batch_id for batch_id in recent if batch_id is not None}

    def snapshot(self, snapshot_id: int) -> Snapshot:
        return self._at(snapshot_id).about

    def columns_since(self, snapshot_id: int) -> dict[str, str]:
        return {}

    def source_rows(self, snapshot_id: int, keys: Collection[str]) -> dict[str, SourceRows]:
        found = {key: _held(self._of(snapshot_id, key)) for key in keys}
        return {key: held for key, held in found.items() if held.rows}

    def packs_of(self, snapshot_id: int, keys: Collection[str]) -> set[str]:
        packs = {row[SOURCE_ID] for key in keys for row in self._of(snapshot_id, key)}
        return {pack for pack in packs if pack.startswith(PACK)}

    def batch_packs(self, snapshot_id: int) -> set[str]:
        return {str(name) for name in self._at(snapshot_id).content if str(name).startswith(BATCH_PACK)}

    def sources_in(self, snapshot_id: int, packs: Collection[str]) -> dict[str, dict[str, SourceRows]]:
        content = self._at(snapshot_id).content
        return {pack: {key: _held(own) for key, own in _by_key(content.get(pack, ())).items()} for pack in packs}

    def partitions(self, snapshot_id: int) -> list[Partition]:
        commit = self._at(snapshot_id)
        keys = {name: sorted(row[SOURCE_KEY] for row in rows) for name, rows in commit.content.items() if rows}
        made = [Partition(name, 1, len(own), own[0], own[-1], commit.about.committed_at) for name, own in keys.items()]
        return sorted(made, key=lambda partition: (partition.lowest, partition.id))

    def days(self, snapshot_id: int, keys: Collection[str], column: str) -> set[date]:
        return {row[column] for key in keys for row in self._of(snapshot_id, key)}

    def holds(self, snapshot_id: int, column: str, days: Collection[date]) -> bool:
        return any(row[column] in days for row in rows_of(self._at(snapshot_id)))

    def _of(self, snapshot_id: int, key: str) -> Rows:
        """Rows of a source file, by itself or in a pack."""
        content = self._at(snapshot_id).content
        packs = [rows for name, rows in content.items() if str(name).startswith(PACK)]
        return [row for rows in (content.get(source_id(key), ()), *packs) for row in rows if row[SOURCE_KEY] == key]

    def _at(self, snapshot_id: int) -> Commit:
        return next(commit for commit in self._commits if commit.about.snapshot_id == snapshot_id)


class Lake:
    """As `spark_jobs.lake.Lake`."""

    def __init__(self, world: World, names: Iterable[str]) -> None:
        self.world = world
        self.all = {name: Table(name) for name in names}
        self.check: Callable[[str, Rows], None] = lambda name, rows: None
        """Told what is about to be committed to a table."""

    def table(self, name: str) -> View:
        return self.world.do(f"look at {name}", lambda: View(self.all[name]), service=SPARK)

    def tables(self, *names: str) -> dict[str, View]:
        return {name: self.table(name) for name in names}

    def batches_since(self, name: str, moment: datetime) -> set[str]:
        return self.table(name).batches_since(moment)


class Condition:
    """A test of rows."""

    def __init__(self, test: Callable[[FileRowOf], bool], partitions: Callable[[Table], Iterable[Part]]) -> None:
        self.test = test
        self.partitions = partitions

    def __or__(self, other: Condition) -> Condition:
        return Condition(
            lambda row: self.test(row) or other.test(row),
            lambda table: [*self.partitions(table), *other.partitions(table)],
        )

    def __and__(self, other: Condition) -> Condition:
        return Condition(lambda row: self.test(row) and other.test(row), self.partitions)

    def __invert__(self) -> Condition:
        return Condition(lambda row: not self.test(row), self.partitions)


class Column:
    """A column of rows."""

    def __init__(self, name: str) -> None:
        self._name = name

    def isin(self, values: Collection[Any]) -> Condition:
        chosen = set(values)
        if self._name in (SOURCE_ID, SOURCE_KEY):
            partitions: list[Any] = sorted(chosen)
        else:
            partitions = sorted({(day.year, day.month) for day in chosen})
        return Condition(lambda row: row[self._name] in chosen, lambda table: partitions)

    def startswith(self, prefix: str) -> Condition:
        """Of no partition that is there: only what came since is compared with it."""
        return Condition(lambda row: row[self._name].startswith(prefix), lambda table: [])

    def between(self, first: Any, last: Any) -> Condition:
        return Condition(lambda row: first <= row[self._name] <= last, lambda table: [(first.year, first.month)])


class Functions:
    """As `pyspark.sql.functions`."""

    @staticmethod
    def col(name: str) -> Column:
        return Column(name)


class Frame:
    """Rows that are made when somebody asks for them."""

    def __init__(self, spark: Spark, make: Callable[[], Rows]) -> None:
        self._spark = spark
        self.make = make

    def where(self, condition: Condition) -> Frame:
        return Frame(self._spark, lambda: [row for row in self.make() if condition.test(row)])

    def union(self, other: Frame) -> Frame:
        return Frame(self._spark, lambda: [*self.make(), *other.make()])

    def unionByName(self, other: Frame, allowMissingColumns: bool = False) -> Frame:
        return self.union(other)

    def changed(self, change: Callable[[FileRowOf], dict[str, Any]]) -> Frame:
        """Each row with some other values."""
        return Frame(self._spark, lambda: [row | change(row) for row in self.make()])

    def select(self, *names: str) -> Frame:
        return self

    def coalesce(self, partitions: int) -> Frame:
        return self

    def collect(self) -> Rows:
        return self.make()

    def writeTo(self, table: str) -> Writer:
        return Writer(self._spark, self, table)


class Writer:
    """A commit in the making."""

    def __init__(self, spark: Spark, frame: Frame, table: str) -> None:
        self._spark = spark
        self._frame = frame
        self._table = table
        self._options: dict[str, str] = {}

    def option(self, name: str, value: str) -> Writer:
        self._options[name] = value
        return self

    def overwrite(self, replaced: Condition) -> None:
        """Replace partitions in one atomic commit.

        Raises:
            JobFailed: another commit touched them since the snapshot that is to be validated from; where none is
                named, since the table began, as Iceberg does it.
        """
        table = self._spark.lake.all[self._table]
        rows = self._frame.make()
        what = f"commit {len(rows)} rows of batch {self._properties.get(BATCH_PROPERTY, '(upkeep)')} to {table.name}"
        self._spark.world.do(what, self._commit, table, rows, replaced, service=SPARK)

    @property
    def _properties(self) -> dict[str, str]:
        """The snapshot's."""
        prefix = "snapshot-property."
        return {name.removeprefix(prefix): text for name, text in self._options.items() if name.startswith(prefix)}

    def _commit(self, table: Table, rows: Rows, replaced: Condition) -> None:
        partitions = set(replaced.partitions(table))
        base = self._options.get("validate-from-snapshot-id")
        if "isolation-level" in self._options:
            later = [c for c in table.commits if base is None or c.about.sequence_number > self._number(table, base)]
            unseen = {part for commit in later for part in partitions & (commit.replaced - commit.touched)}
            since = any(replaced.test(row) for commit in later for row in commit.added)
            if since or any(partitions & commit.touched for commit in later):
                self._spark.world.counts["commits fenced off"] += 1
                self._spark.world.note("the commit is fenced off")
                raise JobFailed(f"{table.name} was changed meanwhile.")
            if unseen:
                self._spark.world.counts["overtaken unseen"] += 1
                self._spark.world.note(f"overtaken, which the fence does not see: {sorted(unseen)}")
                table.unfenced |= unseen
        grouped: dict[Part, list[dict[str, Any]]] = {}
        for row in rows:
            grouped.setdefault(table.partition(row), []).append(row)
        if not grouped.keys() <= partitions:
            raise RuntimeError(f"rows outside of what is replaced: {grouped.keys() - partitions}")
        self._spark.lake.check(table.name, rows)
        before = table.commits[-1].content if table.commits else {}
        content = {part: own for part, own in before.items() if part not in partitions}
        content |= {part: tuple(own) for part, own in grouped.items()}
        touched = frozenset(grouped.keys() | (before.keys() & partitions))
        about = Snapshot(
            snapshot_id=self._spark.world.random.getrandbits(62) + 1,
            parent_id=table.commits[-1].about.snapshot_id if table.commits else None,
            sequence_number=len(table.commits) + 1,
            committed_at=self._spark.world.now,
            added_rows=None if CARRIED_PROPERTY in self._properties else len(rows),
            removed_rows=sum(len(own) for part, own in before.items() if part in partitions),
            batch_id=self._properties.get(BATCH_PROPERTY),
        )
        table.commits.append(Commit(about, self._properties, content, touched, tuple(rows), frozenset(partitions)))
        self._spark.world.counts["commits"] += 1

    @staticmethod
    def _number(table: Table, snapshot_id: str) -> int:
        return next(c.about.sequence_number for c in table.commits if str(c.about.snapshot_id) == snapshot_id)


class Spark:
    """As a `SparkSession`."""

    def __init__(self, world: World, lake: Lake) -> None:
        self.world = world
        self.lake = lake

    @property
    def read(self) -> Reader:
        return Reader(self)

    def table(self, name: str) -> Frame:
        def now() -> Rows:
            return self.world.do(f"read {name}", lambda: self.lake.all[name].rows, service=SPARK)

        return Frame(self, now)

    def stop(self) -> None: ...


class Reader:
    """Reads a table as of a snapshot."""

    def __init__(self, spark: Spark) -> None:
        self._spark = spark
        self._snapshot = ""

    def option(self, name: str, value: str) -> Reader:
        self._snapshot = value
        return self

    def table(self, name: str) -> Frame:
        def then() -> Rows:
            commits = self._spark.lake.all[name].commits
            commit = next(c for c in commits if str(c.about.snapshot_id) == self._snapshot)
            return self._spark.world.do(f"read {name} as it was", rows_of, commit, service=SPARK)

        return Frame(self._spark, then)
