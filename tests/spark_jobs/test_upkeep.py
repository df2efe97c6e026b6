"""Upkeep of tables on the real store, catalog and Spark Connect: rows stay what they are, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract, Upkeep
from contracts.errors import JobFailed
from contracts.markers import CommitMarker
from contracts.work import WorkItem
from spark_jobs import data_preprocessing_job, upkeep_job
from spark_jobs.lake import LakeTable
from spark_jobs.packs import LEAST
from spark_jobs.session import spark_errors
from spark_jobs.tables import replace_sources, silver_spec
from tests.spark_jobs.conftest import JobStore, gold_batch, silver_batch
from tests.spark_jobs.test_jobs import aggregate, count_by_key, run_gold, run_silver, to_gold
from tests.spark_jobs.trips import table, trip

Drop = Callable[..., WorkItem]
SILVER, REJECTS, FEATURES = "silver.nyc_yellow", "silver.nyc_yellow_rejects", "gold.nyc_yellow_features"
NAMES = [f"{letter} +%'\"é" for letter in "abcdefghij"]
BAD = trip(fare_amount=-1.0)


@pytest.fixture
def contract(few_rules: DatasetContract) -> DatasetContract:
    return few_rules.model_copy(
        update={"upkeep": Upkeep(pack_after=timedelta(0), keep_snapshots=timedelta(0)), "on_delete": "retract"}
    )


def key_of(name: str) -> str:
    return f"nyc_yellow/{name}.parquet"


def rows(spark: SparkSession, name: str) -> list[Any]:
    return sorted(spark.table(name).drop("_source_id").collect(), key=str)


def current(store: JobStore, name: str) -> LakeTable:
    found = store.lake.table(name)
    assert found is not None
    return found


def packs(store: JobStore, name: str) -> list[str]:
    found = current(store, name)
    return [one.id for one in found.partitions(found.current_id or 0) if one.is_pack]


def look_after(spark: SparkSession, store: JobStore, contract: DatasetContract, **more: Any) -> dict[str, Any]:
    done = upkeep_job.run(spark, store.lake, contract, datetime.now(UTC), **more)
    return {one.table: one for one in done}


def to_both(lake: SparkSession, store: JobStore, contract: DatasetContract, *items: WorkItem) -> list[CommitMarker]:
    silver = run_silver(lake, store, contract, silver_batch(*items))
    return [silver, run_gold(lake, store, contract, gold_batch(*(to_gold(item, silver) for item in items)))]


@pytest.fixture
def items(lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop) -> list[WorkItem]:
    """Ten files with 1 to 10 good rows and one bad, in silver and gold."""
    made = [drop(key_of(name), table(*[trip()] * (number + 1), BAD)) for number, name in enumerate(NAMES)]
    to_both(lake, store, contract, *made)
    return made


COUNTS = {key_of(name): number + 1 for number, name in enumerate(NAMES)}
ONE = dict.fromkeys(COUNTS, 1)


def test_small_files_become_one_data_file_and_no_row_changes(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem]
) -> None:
    before = {name: rows(lake, name) for name in (SILVER, REJECTS, FEATURES)}
    done = look_after(lake, store, contract)
    assert {name: (done[name].files_after, done[name].packed) for name in before} == dict.fromkeys(before, (1, 10))
    assert all(done[name].files_before >= 10 for name in before)
    assert {name: rows(lake, name) for name in before} == before
    again = look_after(lake, store, contract)
    assert [again[name].packed for name in before] == [0, 0, 0]


def test_metadata_tell_the_rows_and_versions_of_files_in_packs(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem]
) -> None:
    look_after(lake, store, contract)
    found = current(store, SILVER)
    told = found.source_rows(found.current_id or 0, [*COUNTS, "nyc_yellow/none.parquet"])
    assert {key: of.rows for key, of in told.items()} == COUNTS
    assert {item.key: frozenset({item.etag}) for item in items} == {key: of.etags for key, of in told.items()}
    assert found.packs_of(found.current_id or 0, ["nyc_yellow/b.parquet"]) == set()


def test_files_of_long_keys_that_differ_at_their_ends_are_told_from_each_other_before_and_after(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    keys = {key_of(f"{'long/' * 60}{number}"): number + 1 for number in range(LEAST)}
    to_both(lake, store, contract, *(drop(key, table(*[trip()] * rows)) for key, rows in keys.items()))
    assert count_by_key(lake, FEATURES) == keys
    look_after(lake, store, contract)
    found = current(store, SILVER)
    assert {key: of.rows for key, of in found.source_rows(found.current_id or 0, [*keys]).items()} == keys
    (key, *_) = keys
    to_both(lake, store, contract, drop(key, table(*[trip()] * 20), "2"))
    assert count_by_key(lake, SILVER) == count_by_key(lake, FEATURES) == keys | {key: 20}


def test_corrected_file_replaces_its_own_rows_of_a_pack_all_the_way_to_gold(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem], drop: Drop
) -> None:
    look_after(lake, store, contract)
    new = drop(items[3].key, table(*[trip(total_amount=99.0)] * 2, BAD, BAD), "2")
    silver, gold = to_both(lake, store, contract, new)
    told = silver.sources[0]
    assert (told.rows_in, told.rows_accepted, told.rows_rejected) == (4, 2, 2)
    assert sum(told.reasons.values()) >= 2
    assert (gold.sources[0].rows_in, gold.sources[0].rows_accepted) == (2, 2)
    expected = COUNTS | {new.key: 2}
    assert count_by_key(lake, SILVER) == count_by_key(lake, FEATURES) == expected
    assert count_by_key(lake, REJECTS) == ONE | {new.key: 2}
    assert sum(row["trips"] for row in aggregate(lake)) == sum(expected.values())
    etags = {row["_source_etag"] for row in lake.table(FEATURES).where("total_amount = 99").collect()}
    assert etags == {new.etag}


def test_deleted_file_takes_its_own_rows_out_of_a_pack(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem]
) -> None:
    look_after(lake, store, contract)
    store.delete(items[9].key)
    gone = items[9].model_copy(update={"deleted": True, "version": "2"})
    silver = run_silver(lake, store, contract, silver_batch(gone))
    run_gold(lake, store, contract, gold_batch(gone.model_copy(update={"version": str(silver.snapshot_id)})))
    left = {key: count for key, count in COUNTS.items() if key != gone.key}
    assert count_by_key(lake, SILVER) == count_by_key(lake, FEATURES) == left
    assert count_by_key(lake, REJECTS) == dict.fromkeys(left, 1)
    assert sum(row["trips"] for row in aggregate(lake)) == sum(left.values())


def test_gold_is_made_again_from_packed_silver(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem]
) -> None:
    before, sums = rows(lake, FEATURES), aggregate(lake)
    look_after(lake, store, contract)
    silver = current(store, SILVER)
    again = [item.model_copy(update={"version": f"{silver.current_id}", "rows": COUNTS[item.key]}) for item in items]
    marker = run_gold(lake, store, contract, gold_batch(*again[:4]))
    assert [source.rows_accepted for source in marker.sources] == [1, 2, 3, 4]
    assert rows(lake, FEATURES) == before
    assert aggregate(lake) == sums
    alone = lake.table(FEATURES).where("not _source_id like 'pack-%'")
    assert {row["_source_key"] for row in alone.collect()} == {item.key for item in items[:4]}


def test_job_that_began_before_its_file_was_packed_cannot_commit_and_others_can(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem]
) -> None:
    base, spec = current(store, SILVER), silver_spec(contract)
    stale = lake.table(SILVER).where("_source_key like '%/a %'").localCheckpoint()
    look_after(lake, store, contract.model_copy(update={"upkeep": Upkeep(pack_after=timedelta(0))}))
    with pytest.raises(JobFailed, match="ValidationException"), spark_errors("writing"):
        replace_sources(lake, stale, spec, base, [items[0].key], "late")
    nothing = stale.where("false")
    replace_sources(lake, nothing, spec, base, ["nyc_yellow/another.parquet"], "other")
    assert count_by_key(lake, SILVER) == COUNTS


def test_values_of_a_column_that_the_contract_no_longer_names_stay(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem], drop: Drop
) -> None:
    columns = tuple(column for column in contract.silver.columns if column.name != "airport_fee")
    fewer = contract.model_copy(update={"silver": contract.silver.model_copy(update={"columns": columns})})
    before = rows(lake, SILVER)
    look_after(lake, store, fewer)
    assert rows(lake, SILVER) == before
    new = drop(items[3].key, table(trip()), "2")
    run_silver(lake, store, fewer, silver_batch(new))
    fees = {row["_source_key"]: row["airport_fee"] for row in lake.table(SILVER).collect()}
    assert fees.pop(new.key) is None
    assert None not in fees.values()


def test_upkeep_that_was_overtaken_changes_nothing(
    lake: SparkSession,
    store: JobStore,
    contract: DatasetContract,
    items: list[WorkItem],
    drop: Drop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = upkeep_job.into_packs

    def after_a_correction(*arguments: Any) -> Any:
        monkeypatch.setattr(upkeep_job, "into_packs", real)
        new = drop(items[0].key, table(trip(), trip(), trip()), "2")
        data_preprocessing_job.run(lake, store.lake, store, contract, silver_batch(new))  # type: ignore[arg-type]
        return real(*arguments)

    monkeypatch.setattr(upkeep_job, "into_packs", after_a_correction)
    with pytest.raises(JobFailed, match="ValidationException"):
        look_after(lake, store, contract)
    assert packs(store, SILVER) == []
    assert count_by_key(lake, SILVER) == COUNTS | {items[0].key: 3}


def test_files_that_come_later_fill_the_pack_that_is_half_empty(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem], drop: Drop
) -> None:
    look_after(lake, store, contract)
    later = [drop(key_of(f"k{number}"), table(trip())) for number in range(LEAST)]
    run_silver(lake, store, contract, silver_batch(*later))
    assert look_after(lake, store, contract)[SILVER].files_after == 1
    assert count_by_key(lake, SILVER) == COUNTS | {item.key: 1 for item in later}


def test_old_snapshots_go_unless_a_job_that_is_under_way_may_read_them(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem], drop: Drop
) -> None:
    began = datetime.now(UTC)
    at_the_beginning = current(store, SILVER).current_id
    to_both(lake, store, contract, drop(items[0].key, table(trip(), trip()), "2"))
    done = look_after(lake, store, contract, busy_since=began)
    assert not done[SILVER].snapshots_expired
    old = lake.read.option("versionAsOf", str(at_the_beginning)).table(SILVER)
    assert old.count() == sum(COUNTS.values())
    done = look_after(lake, store, contract)
    assert done[SILVER].snapshots_expired
    assert lake.table(f"{SILVER}.snapshots").count() == 1
    assert count_by_key(lake, SILVER) == COUNTS | {items[0].key: 2}
    with pytest.raises(Exception, match=r"(?i)snapshot"):
        lake.read.option("versionAsOf", str(at_the_beginning)).table(SILVER).count()


def test_file_that_no_snapshot_knows_is_removed_once_it_is_old(
    lake: SparkSession, store: JobStore, contract: DatasetContract, items: list[WorkItem]
) -> None:
    names = ("left.parquet", "_source_id=0/left.parquet", "_source_id=0/a b%2F+é:")
    left = {f"nyc_yellow/data/{name}" for name in names}
    # Not of this table, although the name of its folder begins with the table's.
    stay = {"nyc_yellow/data/new.parquet", "nyc_yellow_of_somebody/data/left.parquet", "nyc_yellow.parquet"}
    for key in left | stay:
        days = 2 if key.endswith("new.parquet") else 4
        store.put_old("silver", key, datetime.now(UTC) - timedelta(days=days))
    done = look_after(lake, store, contract)
    assert (done[SILVER].orphans_removed, done[REJECTS].orphans_removed) == (len(left), 0)
    kept = set(store.keys("silver"))
    assert kept & left == set()
    assert kept >= stay
    assert count_by_key(lake, SILVER) == COUNTS


def test_tables_that_are_not_there_are_left_out(lake: SparkSession, store: JobStore, contract: DatasetContract) -> None:
    assert look_after(lake, store, contract) == {}
