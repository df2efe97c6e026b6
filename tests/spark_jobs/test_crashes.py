"""Each job killed after every durable effect: the same batch run again ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract
from contracts.markers import CommitMarker, parse_marker
from contracts.work import Batch, WorkItem
from spark_jobs import data_preprocessing_job, feature_engineering_job, tables
from spark_jobs.lake import BATCH_PROPERTY
from tests.spark_jobs.conftest import TABLES, Catalog, JobStore, gold_batch, silver_batch
from tests.spark_jobs.trips import PICKUP, table, trip

Drop = Callable[..., WorkItem]
Job = Callable[[], CommitMarker]

KINDS = ("create", "commit", "copy", "put")
NEXT_DAY = {
    "tpep_pickup_datetime": PICKUP + timedelta(days=1),
    "tpep_dropoff_datetime": PICKUP + timedelta(days=1, hours=1),
}


class Killed(BaseException):
    """As a SIGKILL: nothing of the process goes on."""


class Bench:
    """The two jobs, what they make durable, and the moment at which one is killed."""

    def __init__(
        self,
        spark: SparkSession,
        store: JobStore,
        catalog: Catalog,
        contract: DatasetContract,
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.spark = spark
        self.catalog = catalog
        self.store = store
        self.contract = contract
        self._effects: list[str] = []
        self._kill_after = 0
        # Nothing else of a job outlives it, and a moment before one effect is a moment after the one before it.
        patch.setattr(tables, "commit_rows", self._killable(tables.commit_rows, "commit"))
        patch.setattr(tables, "_create", self._killable(tables._create, "create"))
        patch.setattr(store, "put_bytes", self._killable(store.put_bytes, "put"))
        patch.setattr(store, "copy", self._killable(store.copy, "copy"))

    def _killable(self, effect: Callable[..., Any], name: str) -> Callable[..., Any]:
        def killable(*arguments: Any, **named: Any) -> Any:
            result = effect(*arguments, **named)
            self._effects.append(name)
            if len(self._effects) == self._kill_after:
                raise Killed
            return result

        return killable

    def silver(self, batch: Batch) -> CommitMarker:
        return self._run(data_preprocessing_job.run, batch)

    def gold(self, batch: Batch) -> CommitMarker:
        return self._run(feature_engineering_job.run, batch)

    def _run(self, run: Callable[..., CommitMarker], batch: Batch) -> CommitMarker:
        return run(self.spark, self.store.lake, self.store, self.contract, batch, "dag", "run")

    def assert_kills_leave_no_trace(self, job: Job, kinds: Collection[str] = KINDS) -> list[str]:
        """Run the job without a kill, then killed after each of its effects; all from the lake as it is now.

        Args:
            kinds: of the effects after which it is killed.

        Returns:
            The effects.
        """
        before = self.catalog.locations(TABLES)
        self._restore(before)
        wanted = self._outcome(job())
        effects = self._effects
        for number, kind in enumerate(effects, 1):
            if kind in kinds:
                self._restore(before)
                self._kill_after = number
                with pytest.raises(Killed):
                    job()
                self._kill_after = 0
                assert self._outcome(job()) == wanted, f"killed after effect {number}, a {kind}"
        return effects

    def _restore(self, before: dict[str, str | None]) -> None:
        self._effects = []
        self.catalog.restore(before)
        for bucket, prefix in (("silver", "_commits/"), ("gold", "_commits/"), ("quarantine", "")):
            self.store.clear(bucket, prefix)

    def _outcome(self, marker: CommitMarker) -> dict[str, Any]:
        """All that a run leaves behind, but for times and ids that each commit has of its own."""
        commits = self.spark.table(f"{marker.table}.snapshots").collect()
        own = [commit.snapshot_id for commit in commits if commit.summary.get(BATCH_PROPERTY) == marker.batch_id]
        assert own == [marker.snapshot_id]
        markers = [
            self.store.read(bucket, key)
            for bucket in ("silver", "gold")
            for key in self.store.keys(bucket, "_commits/")
            if key.endswith(f"-{marker.batch_id}.json")
        ]
        assert [parse_marker(value) for value in markers] == [marker]
        there = [name for name, location in self.catalog.locations(TABLES).items() if location]
        return {
            "rows": {name: sorted(map(str, self.spark.table(name).collect())) for name in there},
            "sources": marker.sources,
            "quarantine": self.store.copied,
        }


@pytest.fixture
def bench(
    lake: SparkSession, store: JobStore, catalog: Catalog, few_rules: DatasetContract, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    return Bench(lake, store, catalog, few_rules, monkeypatch)


def first_files(drop: Drop) -> list[WorkItem]:
    """A file of two days and one that will be deleted, each with a row that is rejected."""
    rows = (trip(), trip(fare_amount=-1.0))
    return [
        drop("nyc_yellow/corrected.parquet", table(*rows, trip(**NEXT_DAY))),
        drop("nyc_yellow/deleted.parquet", table(*rows)),
    ]


def later_files(drop: Drop, store: JobStore, deleted: WorkItem) -> list[WorkItem]:
    """A correction that leaves a day, a deletion, a new file, and one that cannot be read."""
    store.delete(deleted.key)
    return [
        drop("nyc_yellow/corrected.parquet", table(trip(total_amount=50.0), trip(fare_amount=-1.0)), "2"),
        deleted.model_copy(update={"version": "2", "deleted": True}),
        drop("nyc_yellow/new.parquet", table(trip(PULocationID=7))),
        drop("nyc_yellow/bad.parquet", b"no parquet"),
    ]


def for_gold(marker: CommitMarker, items: list[WorkItem]) -> Batch:
    taken = {source.key: source.rows_accepted for source in marker.sources if source.refused is None}
    version = {"version": str(marker.snapshot_id)}
    return gold_batch(*(i.model_copy(update=version | {"rows": taken[i.key]}) for i in items if i.key in taken))


def test_silver_job_killed_after_any_effect_and_run_again_ends_as_without_the_kill(
    bench: Bench, store: JobStore, drop: Drop
) -> None:
    first = first_files(drop)
    # Commits and objects come with the files after them, over rows of earlier versions.
    effects = bench.assert_kills_leave_no_trace(lambda: bench.silver(silver_batch(*first)), ("create",))
    assert effects == ["create", "create", "commit", "commit", "put"]
    later = later_files(drop, store, first[1])
    # The copy in quarantine, then the marker.
    effects = bench.assert_kills_leave_no_trace(lambda: bench.silver(silver_batch(*later)))
    assert effects == ["commit", "commit", "copy", "put"]


def test_gold_job_killed_after_any_effect_and_run_again_ends_as_without_the_kill(
    bench: Bench, store: JobStore, drop: Drop
) -> None:
    first = first_files(drop)
    work = for_gold(bench.silver(silver_batch(*first)), first)
    # As above.
    effects = bench.assert_kills_leave_no_trace(lambda: bench.gold(work), ("create",))
    assert effects == ["create", "create", "commit", "commit", "put"]
    later = later_files(drop, store, first[1])
    again = for_gold(bench.silver(silver_batch(*later)), later)
    effects = bench.assert_kills_leave_no_trace(lambda: bench.gold(again))
    assert effects == ["commit", "commit", "put"]
