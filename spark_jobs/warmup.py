"""Makes the tables of every contract, and takes a handful of made-up rows through both jobs once.

A fresh Spark server needs some 9 s more for its first job than for its second; this pays them at start.
`python -m spark_jobs.warmup` does it in a container.
"""

from __future__ import annotations

import io
import sys
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from contracts.dataset import Column, DatasetContract, Gold
from contracts.errors import SluiceError
from contracts.loading import load_contracts
from contracts.settings import Settings, load_settings
from contracts.states import Layer
from contracts.work import WorkItem, make_batch
from ingest.store import ObjectInfo, Store
from spark_jobs import data_preprocessing_job, feature_engineering_job
from spark_jobs.lake import Lake, open_lake
from spark_jobs.session import connect_session, spark_errors
from spark_jobs.tables import aggregate_spec, ensure_tables, features_spec, rejects_spec, silver_spec

_FILE = "_warmup/rows_2020-01.parquet"
"""With a month, since files whose name has one take a way of their own through the checks."""
_TABLE = "sluice_warmup"
_ROUNDS = (5_000, 25_000, 5_000)
"""Rows of the file in each; the second goes the way of files with many rows. Measured with three rounds instead of one:
the first file after a start in 11 s instead of 15 s, for 7 s more of the start."""
_SPAN = timedelta(days=27)
"""The rows' times lie within the month that the file is named for."""


class _WithoutMarkers(Store):
    """The store, but for commit markers: nobody shall hear of these commits."""

    def put_bytes(
        self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream"
    ) -> ObjectInfo:
        return ObjectInfo(bucket, key, "", len(data), datetime.now().astimezone())


class _Scratch(DatasetContract):
    """A contract for the made-up file alone, which lies in silver: the Spark user may not write to bronze."""

    def owns(self, bucket: str, key: str) -> bool:
        return (bucket, key) == (Layer.SILVER, _FILE)


def warm_up(settings: Settings) -> None:
    """Make the tables that are missing, and warm the Spark Connect server.

    Raises:
        ServiceUnavailable: Spark, MinIO or the catalog does not answer.
        JobFailed: Spark refused; the message says what.
    """
    spark = connect_session(settings)
    store = _WithoutMarkers(
        settings.s3_endpoint,
        settings.spark_access_key,
        settings.spark_secret_key.get_secret_value(),
        settings.s3_region,
        settings.ca_file,
    )
    contracts = list(load_contracts(settings.contracts_dir).values())
    lake = open_lake(settings, store)
    with spark_errors("making the tables"):
        for contract in contracts:
            specs = (silver_spec, rejects_spec, *((features_spec, aggregate_spec) if contract.gold else ()))
            ensure_tables(spark, lake, [spec(contract) for spec in specs])
    with_gold = [contract for contract in contracts if contract.gold]
    if with_gold:
        # What one contract has compiled is there for all, so the one that asks most does.
        most = max(with_gold, key=lambda contract: len(contract.rules) + len(contract.silver.columns))
        _run_both(spark, lake, store, most)
    spark.stop()


def _run_both(spark: SparkSession, lake: Lake, store: Store, contract: DatasetContract) -> None:
    scratch = _on_scratch_tables(contract)
    for version, rows in enumerate(_ROUNDS):
        # The base class puts the file; the jobs get the store that keeps their markers back.
        put = Store.put_bytes(store, Layer.SILVER, _FILE, _made_up(contract, rows))
        item = WorkItem(bucket=put.bucket, key=put.key, etag=put.etag, size=put.size, version=str(version))
        batch = make_batch(Layer.SILVER, contract.dataset, [item])
        marker = data_preprocessing_job.run(spark, lake, store, scratch, batch)
        done = {"rows": marker.sources[0].rows_accepted, "version": str(marker.snapshot_id)}
        batch = make_batch(Layer.GOLD, contract.dataset, [item.model_copy(update=done)])
        feature_engineering_job.run(spark, lake, store, scratch, batch)
    with spark_errors("dropping the warm-up's tables"):
        for name in (scratch.silver.name, scratch.rejects_table, scratch.features.name, scratch.aggregate.name):
            spark.sql(f"DROP TABLE IF EXISTS {name} PURGE")


def _on_scratch_tables(contract: DatasetContract) -> DatasetContract:
    silver, features, aggregate = (
        table.model_copy(update={"name": name})
        for table, name in (
            (contract.silver, f"silver.{_TABLE}"),
            (contract.features, f"gold.{_TABLE}_features"),
            (contract.aggregate, f"gold.{_TABLE}_aggregate"),
        )
    )
    gold = Gold(features=features, aggregate=aggregate, aggregate_by=contract.aggregate_by)
    return _Scratch(**(dict(contract) | {"silver": silver, "gold": gold, "on_quarantine": "keep"}))


def _made_up(contract: DatasetContract, rows: int) -> bytes:
    """A parquet file with the contract's columns, in rows that sane rules accept: features of none would warm nothing.

    No two rows are equal. A time is ten minutes later for each column before its own, and every number is 1.
    """
    values = {
        column.name: [_value(column, row / rows, place) for row in range(rows)]
        for place, column in enumerate(contract.silver.columns)
        if not column.derived
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(values), buffer)
    return buffer.getvalue()


def _value(column: Column, share: float, place: int) -> Any:
    kind = column.type.partition("(")[0]
    if kind in ("timestamp", "timestamp_ntz", "date"):
        return datetime(2020, 1, 1) + share * _SPAN + timedelta(minutes=10 * place)
    if kind in ("string", "boolean"):
        return "1" if kind == "string" else True
    # Amounts are floating-point numbers in most files that people drop; their cast is worth warming.
    return 1.0 if kind == "decimal" else 1


def main() -> int:
    """Entry point; 0 warm, 1 a server does not answer or Spark refused."""
    try:
        warm_up(load_settings())
    except SluiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
