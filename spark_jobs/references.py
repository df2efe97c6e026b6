"""Joins what a dataset's gold takes from reference datasets: one row in, one row out, whatever the reference holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Lookup
from spark_jobs.lake import Lake
from spark_jobs.tables import rows_at


class References:
    """The reference tables of a dataset, each read once and as of one snapshot, so that a job's joins see the same."""

    def __init__(self, spark: SparkSession, lake: Lake, contract: DatasetContract) -> None:
        """Note the snapshots; no row is read yet.

        Raises:
            ServiceUnavailable: the catalog or the object store does not answer.
        """
        self._spark = spark
        self._lookups = contract.references
        tables = (contract.features, contract.aggregate)
        self._types = {column.name: column.type for table in tables for column in table.columns}
        self._key_types = {column.name: column.type for column in contract.silver.columns}
        found = lake.tables(*sorted({lookup.table for lookup in contract.references}))
        self._at = {name: table.current_id for name, table in found.items()}
        self._read: dict[str, list[Row]] = {}

    def join(self, df: DataFrame, wanted: Collection[str]) -> DataFrame:
        """Add the wanted columns that the contract's lookups provide.

        Args:
            df: has the column `by` of each lookup that provides a wanted column.
            wanted: names of columns; those that no lookup provides are left to others.

        Returns:
            The same rows with these columns. They are null where the key is null or the reference lacks it, and
            everywhere where the reference has no rows, or is not there at all.
        """
        for lookup in self._lookups:
            columns = [name for name in lookup.columns if name in wanted]
            if columns:
                df = self._joined(df, lookup, columns)
        return df

    def _joined(self, df: DataFrame, lookup: Lookup, columns: Sequence[str]) -> DataFrame:
        sources = [lookup.columns[name] for name in columns]
        rows = [(key, *(row.get(source) for source in sources)) for key, row in self._rows(lookup).items()]
        if not rows:
            return df.select("*", *(F.lit(None).cast(self._types[name]).alias(name) for name in columns))
        key = f"_lookup_by_{lookup.by}"
        types = [(key, self._key_types[lookup.by]), *((name, self._types[name]) for name in columns)]
        schema = ", ".join(f"`{name}` {kind}" for name, kind in types)
        # Made of values: Comet knows no aggregate of whole rows, and one part of a plan that is not native takes the
        # write of the data files with it.
        found = F.broadcast(self._spark.createDataFrame(rows, schema))
        return df.join(found, F.col(lookup.by) == F.col(key), "left").drop(key)

    def _rows(self, lookup: Lookup) -> dict[Any, dict[str, Any]]:
        snapshot = self._at.get(lookup.table)
        if snapshot is None:
            return {}
        if lookup.table not in self._read:
            self._read[lookup.table] = rows_at(self._spark, lookup.table, snapshot).collect()
        return one_row_a_key((row.asDict() for row in self._read[lookup.table]), lookup.key)


def one_row_a_key(rows: Iterable[dict[str, Any]], key: str) -> dict[Any, dict[str, Any]]:
    """Value of the key to its row.

    Of several rows of one value the one that comes last counts, in the order of its other columns as they stand and
    with null before any value; so it is the same one whatever the order of `rows`. Rows without a key are left out.
    """
    last: dict[Any, dict[str, Any]] = {}
    for row in rows:
        value = row[key]
        if value is not None and (value not in last or _place(row, key) > _place(last[value], key)):
            last[value] = row
    return last


def _place(row: dict[str, Any], key: str) -> tuple[tuple[bool, Any], ...]:
    # Where a row came from says nothing of it, so the columns of the jobs' own come last: they only break ties.
    names = sorted((name for name in row if name != key), key=lambda name: name.startswith("_"))
    return tuple((row[name] is not None, row[name]) for name in names)
