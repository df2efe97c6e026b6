"""The jobs against the judgement in plain Python, row by row, on dirty files of every era."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Severity
from contracts.loading import load_contracts
from contracts.settings import PROJECT
from contracts.states import Layer
from contracts.work import WorkItem, make_batch
from spark_jobs import data_preprocessing_job, feature_engineering_job, packs, scan
from tests.spark_jobs.conftest import JobStore
from tests.spark_jobs.dirty_trips import NUMBER, DirtyFile, dirty_files
from tests.spark_jobs.reference import Verdict, judge

Drop = Callable[..., WorkItem]
CONTRACTS = {name: contract for name, contract in load_contracts(PROJECT / "contracts" / "datasets").items()
             if contract.transforms == "nyc_taxi"}  # fmt: skip
SEED = 7
ZONES = {zone: {"borough": f"Borough {zone % 5}", "zone": f"Zone {zone}"} for zone in range(1, 264)}
"""264 and 265 are in files and not here."""


def judged(file: DirtyFile, contract: DatasetContract) -> list[Verdict]:
    return judge(file.rows, file.names, contract, contract.period_of(file.key), ZONES)


@pytest.mark.parametrize("dataset", CONTRACTS)
def test_dirty_files_hold_rows_that_fail_each_rule_and_rows_that_fail_none(dataset: str, tmp_path: Path) -> None:
    contract = CONTRACTS[dataset]
    verdicts = [verdict for file in dirty_files(tmp_path, dataset, SEED) for verdict in judged(file, contract)]
    found = {code for verdict in verdicts for code in (*verdict.reasons, *verdict.warnings)}
    assert {rule.code for rule in contract.rules} <= found
    assert {"bad_fare_amount", "null_fare_amount", "null_pickup_location_id", "bad_dropoff_datetime"} <= found
    assert sum(not verdict.reasons and not verdict.warnings for verdict in verdicts) > 50
    assert any(verdict.values["_ambiguous_time"] for verdict in verdicts if not verdict.reasons)


@pytest.mark.parametrize(
    ("dataset", "few_rows", "few_files"),
    [("nyc_yellow", 20_000, 50), ("nyc_yellow", 20_000, 1), ("nyc_green", 0, 50)],
    ids=["judged-once", "judged-once-in-a-pack", "judged-for-each-table"],
)
def test_jobs_judge_each_row_as_plain_python_does(
    lake: SparkSession,
    store: JobStore,
    drop: Drop,
    drop_zones: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: str,
    few_rows: int,
    few_files: int,
) -> None:
    monkeypatch.setattr(packs, "_FEW_ROWS", few_rows)
    for module in (packs, scan):
        monkeypatch.setattr(module, "MANY_FILES", few_files)
    drop_zones(*((zone, row["borough"], row["zone"], None) for zone, row in ZONES.items()))
    contract = CONTRACTS[dataset]
    files = list(dirty_files(tmp_path, dataset, SEED))
    verdicts = {file.key: judged(file, contract) for file in files}
    items = [drop(file.key, file.table) for file in files]
    silver = data_preprocessing_job.run(lake, store.lake, store, contract, make_batch(Layer.SILVER, dataset, items))  # type: ignore[arg-type]
    assert {source.key: source.refused for source in silver.sources} == dict.fromkeys(verdicts)

    assert rejected(lake, contract, files) == Counter(
        (file.key, shown(row), verdict.reasons)
        for file in files
        for row, verdict in zip(file.rows, verdicts[file.key], strict=True)
        if verdict.reasons
    )
    accepted = [(key, verdict) for key, found in verdicts.items() for verdict in found if not verdict.reasons]
    names = [column.name for column in contract.silver.columns]
    assert in_silver(lake, contract, names) == Counter(
        (key, *(verdict.values[name] for name in names), verdict.warnings) for key, verdict in accepted
    )

    if few_rows:
        data_files = lake.table(f"{contract.silver.name}.files").select("partition._source_id").collect()
        assert len(data_files) == len(set(data_files)) == (len(files) if len(files) <= few_files else 1)

    taken = {source.key: source.rows_accepted for source in silver.sources}
    work = [item.model_copy(update={"version": str(silver.snapshot_id), "rows": taken[item.key]}) for item in items]
    feature_engineering_job.run(lake, store.lake, store, contract, make_batch(Layer.GOLD, dataset, work))  # type: ignore[arg-type]
    names = [column.name for column in contract.features.columns]
    rows = lake.table(contract.features.name).select("_source_key", *names).collect()
    expected = in_order([(key, *(verdict.features[name] for name in names)) for key, verdict in accepted])
    for found, wanted in zip(in_order([tuple(row) for row in rows]), expected, strict=True):
        for name, value, right in zip(("_source_key", *names), found, wanted, strict=True):
            assert value == right or math.isclose(value, right, rel_tol=1e-12), (name, found, wanted)


def rejected(spark: SparkSession, contract: DatasetContract, files: list[DirtyFile]) -> Counter[Any]:
    """Key, row as it came and reasons; rows that are equal are not told apart."""
    rows = {file.key: file.rows for file in files}
    found = spark.table(contract.rejects_table).select("_source_key", "_reasons", "_row").collect()
    return Counter((key, shown(rows[key][json.loads(row)[NUMBER]]), tuple(reasons)) for key, reasons, row in found)


def in_silver(spark: SparkSession, contract: DatasetContract, names: list[str]) -> Counter[Any]:
    """Key, values, and codes of the warnings."""
    warnings = [rule for rule in contract.rules if rule.severity is Severity.WARN]
    failed = F.array_compact(
        F.array(*(F.when(~F.coalesce(F.expr(rule.condition), F.lit(True)), F.lit(rule.code)) for rule in warnings))
    )
    rows = spark.table(contract.silver.name).select("_source_key", *names, failed).collect()
    return Counter((*row[:-1], tuple(row[-1])) for row in rows)


def shown(row: dict[str, Any]) -> str:
    """A row without its number; as text, since not-a-number equals nothing."""
    return repr({name: value for name, value in row.items() if name != NUMBER})


def in_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Sorted by all that is exact: equal rows differ in nothing else."""
    return sorted(rows, key=lambda row: repr([value for value in row if not isinstance(value, float)]))
