"""A batch is attempted again, or by two at once, and bronze has changed meanwhile: the marker tells what silver holds.

Each of these was found by the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract
from contracts.errors import JobFailed, ScanFailed
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Reason
from contracts.work import WorkItem
from spark_jobs import data_preprocessing_job, feature_engineering_job, tables
from tests.spark_jobs.conftest import JobStore, gold_batch, silver_batch
from tests.spark_jobs.trips import table, trip

Drop = Callable[..., WorkItem]

A, B = "nyc_yellow/a.parquet", "nyc_yellow/b.parquet"
BAD = b"no parquet"
GOOD_ROW, BAD_ROW = trip(), trip(fare_amount=-1.0)


class Killed(BaseException):
    """As a SIGKILL: nothing of the process goes on."""


class Bench:
    """The two jobs, and a kill between the commit of one and its marker."""

    def __init__(
        self, spark: SparkSession, store: JobStore, contract: DatasetContract, patch: pytest.MonkeyPatch
    ) -> None:
        self.spark = spark
        self.store = store
        self.contract = contract
        self._patch = patch

    def silver(self, *items: WorkItem) -> dict[str, SourceResult]:
        return {source.key: source for source in self._run(data_preprocessing_job, silver_batch(*items)).sources}

    def gold(self, *items: WorkItem) -> dict[str, SourceResult]:
        return {source.key: source for source in self._run(feature_engineering_job, gold_batch(*items)).sources}

    def killed_before_the_marker(self, job: Callable[..., Any], *items: WorkItem) -> None:
        def killed(*about: object, **named: object) -> None:
            raise Killed

        with self._patch.context() as within:
            within.setattr(self.store, "put_bytes", killed)
            with pytest.raises(Killed):
                job(*items)

    def rows(self, key: str) -> int:
        """In silver."""
        silver = self.spark.table("silver.nyc_yellow")
        return silver.where(silver["_source_key"] == key).count()

    def _run(self, job: Any, batch: Any) -> CommitMarker:
        marker: CommitMarker = job.run(self.spark, self.store.lake, self.store, self.contract, batch)
        return marker


@pytest.fixture
def bench(lake: SparkSession, store: JobStore, few_rules: DatasetContract, monkeypatch: pytest.MonkeyPatch) -> Bench:
    limits = few_rules.limits.model_copy(update={"max_rejected_share": 0.6})
    return Bench(lake, store, few_rules.model_copy(update={"limits": limits}), monkeypatch)


def deletion(item: WorkItem) -> WorkItem:
    return item.model_copy(update={"version": "2", "deleted": True})


@pytest.mark.parametrize("after", ["overwritten", "deleted"])
def test_rows_that_a_killed_attempt_committed_are_told_though_the_file_has_changed(
    bench: Bench, store: JobStore, drop: Drop, after: str
) -> None:
    item, other = drop(A, table(GOOD_ROW, GOOD_ROW, BAD_ROW)), drop(B, table(GOOD_ROW))
    bench.killed_before_the_marker(bench.silver, item, other)
    if after == "overwritten":
        drop(A, BAD)
    else:
        store.delete(A)
    told = bench.silver(item, other)
    assert (told[A].refused, told[A].rows_in, told[A].rows_accepted, told[A].rows_rejected) == (None, 3, 2, 1)
    assert told[B].rows_accepted == 1


def test_retraction_that_a_killed_attempt_committed_is_told_though_the_file_is_there_again(
    bench: Bench, store: JobStore, drop: Drop
) -> None:
    item = drop(A, table(GOOD_ROW))
    bench.silver(item)
    store.delete(A)
    bench.killed_before_the_marker(bench.silver, deletion(item))
    drop(A, BAD)
    told = bench.silver(deletion(item))[A]
    assert (told.refused, told.deleted) == (None, True)


def test_content_that_was_left_out_and_put_back_is_told_as_such(
    bench: Bench, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = table(GOOD_ROW, BAD_ROW)
    item, other = drop(A, content), drop(B, table(GOOD_ROW))
    commit = tables.commit_rows

    def overwritten(*about: Any) -> None:
        # Its rejects are written, and then it is found to be another one.
        commit(*about)
        drop(A, BAD)

    with monkeypatch.context() as within:
        within.setattr(tables, "commit_rows", overwritten)
        bench.killed_before_the_marker(bench.silver, item, other)
    assert bench.rows(A) == 0
    drop(A, content)
    told = bench.silver(item, other)
    assert (told[A].refused, told[B].refused) == (Reason.SUPERSEDED, None)


@pytest.mark.parametrize("before", [0, 2], ids=["new-file", "correction"])
def test_file_with_too_many_rejects_is_refused_by_each_attempt(bench: Bench, drop: Drop, before: int) -> None:
    if before:
        bench.silver(drop(A, table(*[GOOD_ROW] * before)))
    spoilt, other = drop(A, table(BAD_ROW), "2"), drop(B, table(GOOD_ROW))
    bench.killed_before_the_marker(bench.silver, spoilt, other)
    assert bench.silver(spoilt, other)[A].refused == Reason.TOO_MANY_REJECTED
    assert bench.rows(A) == before


def test_file_overwritten_after_the_second_look_at_it_gets_in_as_it_was_looked_at(
    bench: Bench, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, spoilt = drop(A, table(GOOD_ROW)), drop(B, table(BAD_ROW))
    too_many = data_preprocessing_job.too_many

    def overwritten(*about: Any) -> Any:
        drop(A, table(GOOD_ROW, GOOD_ROW))
        return too_many(*about)

    monkeypatch.setattr(data_preprocessing_job, "too_many", overwritten)
    told = bench.silver(item, spoilt)
    assert (told[A].rows_accepted, told[B].refused) == (1, Reason.TOO_MANY_REJECTED)
    assert bench.rows(A) == 1


def fail_first_read(patch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """The first read of files breaks off, and by then something else has happened."""
    split = data_preprocessing_job.split_rows
    calls: list[int] = []

    def failing(*about: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            meanwhile()
            raise ScanFailed("The connection broke.")
        return split(*about)

    patch.setattr(data_preprocessing_job, "split_rows", failing)


def test_attempt_whose_read_failed_does_not_write_what_another_attempt_has_written(
    bench: Bench, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, other = drop(A, table(GOOD_ROW)), drop(B, table(GOOD_ROW))

    def meanwhile() -> None:
        bench.silver(item, other)
        drop(B, BAD)

    fail_first_read(monkeypatch, meanwhile)
    with pytest.raises(JobFailed):
        bench.silver(item, other)
    told = bench.silver(item, other)
    assert (told[A].rows_accepted, told[B].rows_accepted) == (1, 1)
    assert bench.spark.table("silver.nyc_yellow.snapshots").count() == 1


def test_attempt_whose_read_failed_takes_no_rows_back_of_a_file_that_was_put_again(
    bench: Bench, store: JobStore, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, other = drop(A, table(GOOD_ROW)), drop(B, table(GOOD_ROW))
    bench.silver(item)
    store.delete(A)

    def meanwhile() -> None:
        bench.silver(drop(A, table(GOOD_ROW, GOOD_ROW), "3"))
        drop(B, BAD)

    fail_first_read(monkeypatch, meanwhile)
    with pytest.raises(JobFailed):
        bench.silver(deletion(item), other)
    told = bench.silver(deletion(item), other)
    assert (told[A].refused, told[B].refused) == (Reason.SUPERSEDED, Reason.SUPERSEDED)
    assert bench.rows(A) == 2


def test_gold_of_a_retraction_is_overtaken_by_the_same_content_put_again(
    bench: Bench, store: JobStore, drop: Drop
) -> None:
    content = table(GOOD_ROW)
    item = drop(A, content)
    bench.silver(item)
    store.delete(A)
    bench.silver(deletion(item))
    gone = deletion(item).model_copy(update={"rows": 0})
    bench.killed_before_the_marker(bench.gold, gone)
    bench.silver(drop(A, content, "3"))
    assert bench.gold(gone)[A].refused == Reason.SUPERSEDED
