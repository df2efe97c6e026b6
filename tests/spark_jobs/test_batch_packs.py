"""A batch of many small files comes in packs, on the real store, catalog and Spark Connect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract, Upkeep
from contracts.errors import JobFailed
from contracts.work import WorkItem
from spark_jobs import packs, scan
from spark_jobs.session import spark_errors
from spark_jobs.tables import replace_sources, silver_spec
from tests.spark_jobs.conftest import JobStore, gold_batch, silver_batch
from tests.spark_jobs.test_jobs import aggregate, count_by_key, run_gold, run_silver, to_gold
from tests.spark_jobs.test_upkeep import BAD, COUNTS, FEATURES, NAMES, ONE, REJECTS, SILVER, current, key_of, look_after
from tests.spark_jobs.trips import table, trip

Drop = Callable[..., WorkItem]
MANY = 8
"""In place of 50, so that the ten files of a batch come in packs of four at most."""


@pytest.fixture
def contract(few_rules: DatasetContract, monkeypatch: pytest.MonkeyPatch) -> DatasetContract:
    for module in (packs, scan):
        monkeypatch.setattr(module, "MANY_FILES", MANY)
    monkeypatch.setattr(packs, "FILES_A_PACK", 4)
    upkeep = Upkeep(pack_after=timedelta(0), keep_snapshots=timedelta(0))
    return few_rules.model_copy(update={"upkeep": upkeep, "on_delete": "retract"})


@pytest.fixture
def items(drop: Drop) -> list[WorkItem]:
    """Ten files with 1 to 10 good rows and one bad, in bronze."""
    return [drop(key_of(name), table(*[trip()] * (number + 1), BAD)) for number, name in enumerate(NAMES)]


def test_many_small_files_come_in_few_data_files_and_each_is_corrected_and_deleted_by_itself(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem], drop: Drop
) -> None:
    silver = run_silver(lake, store, contract, silver_batch(*items))
    gold = run_gold(lake, store, contract, gold_batch(*(to_gold(item, silver) for item in items)))
    assert {source.key: (source.rows_in, source.rows_accepted) for source in gold.sources} == {
        key: (rows, rows) for key, rows in COUNTS.items()
    }
    assert [current(store, name).data_files for name in (SILVER, REJECTS, FEATURES)] == [3, 3, 3]
    assert count_by_key(lake, SILVER) == count_by_key(lake, FEATURES) == COUNTS
    assert count_by_key(lake, REJECTS) == ONE

    new = drop(items[3].key, table(*[trip(total_amount=99.0)] * 20, BAD, BAD), "2")
    store.delete(items[9].key)
    gone = items[9].model_copy(update={"deleted": True, "version": "2"})
    marker = run_silver(lake, store, contract, silver_batch(new, gone))
    told = {source.key: (source.rows_accepted, source.rows_rejected) for source in marker.sources}
    assert told == {new.key: (20, 2), gone.key: (0, 0)}
    run_gold(lake, store, contract, gold_batch(*(to_gold(item, marker) for item in (new, gone))))
    expected = {key: rows for key, rows in (COUNTS | {new.key: 20}).items() if key != gone.key}
    assert count_by_key(lake, SILVER) == count_by_key(lake, FEATURES) == expected
    assert sum(row["trips"] for row in aggregate(lake)) == sum(expected.values())


def test_attempt_that_finds_its_packs_committed_tells_the_same_of_each_file(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem]
) -> None:
    batch = silver_batch(*items)
    first, again = (run_silver(lake, store, contract, batch) for _ in range(2))
    assert first.sources == again.sources
    assert all(sum(source.reasons.values()) >= 1 for source in first.sources)


@pytest.mark.parametrize("packs_before", [False, True])
def test_job_that_began_before_another_batch_brought_its_file_in_a_pack_cannot_commit(
    lake: SparkSession,
    store: JobStore,
    contract: DatasetContract,
    items: list[WorkItem],
    drop: Drop,
    packs_before: bool,
) -> None:
    others = [drop(key_of(str(number)), table(trip())) for number in range(MANY + 1 if packs_before else 1)]
    run_silver(lake, store, contract, silver_batch(*others))
    base, spec = current(store, SILVER), silver_spec(contract)
    stale = lake.table(SILVER).where("false")
    run_silver(lake, store, contract, silver_batch(*items))
    with pytest.raises(JobFailed, match="ValidationException"), spark_errors("writing"):
        replace_sources(lake, stale, spec, base, [items[0].key], "late")
    assert count_by_key(lake, SILVER) == COUNTS | {item.key: 1 for item in others}
    replace_sources(lake, stale, spec, current(store, SILVER), [items[0].key], "next")
    assert items[0].key not in count_by_key(lake, SILVER)


def test_packs_of_batches_are_put_together_by_upkeep_and_no_row_changes(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    keys = [key_of(f"{number:03}") for number in range((MANY + 1) * 3)]
    for first in range(3):
        run_silver(lake, store, contract, silver_batch(*(drop(key, table(trip(), BAD)) for key in keys[first::3])))
    assert current(store, SILVER).data_files == 9
    done = look_after(lake, store, contract)[SILVER]
    assert (done.packed, done.files_after) == (len(keys), 1)
    assert count_by_key(lake, SILVER) == count_by_key(lake, REJECTS) == dict.fromkeys(keys, 1)
    assert look_after(lake, store, contract)[SILVER].packed == 0
