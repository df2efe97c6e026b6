"""Tables that follow their contract."""

from __future__ import annotations

import pytest
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
)
from pyspark.sql import SparkSession

from contracts.errors import ContractError
from spark_jobs.lake import SOURCE_KEY, spark_type
from spark_jobs.tables import TableSpec, alterations, ensure_tables
from tests.spark_jobs.conftest import TABLES, JobStore


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (IntegerType(), "int"), (LongType(), "bigint"), (FloatType(), "float"), (DoubleType(), "double"),
        (DecimalType(10, 2), "decimal(10,2)"), (StringType(), "string"), (BooleanType(), "boolean"),
        (DateType(), "date"), (TimestampType(), "timestamp_ntz"), (TimestamptzType(), "timestamp"),
        (ListType(1, StringType(), element_required=False), "array<string>"),
    ],
    ids=str,
)  # fmt: skip
def test_type_of_a_table_has_sparks_name(kind: IcebergType, name: str) -> None:
    assert spark_type(kind) == name


def test_new_columns_come_in_one_statement_and_each_wider_one_in_its_own() -> None:
    present = {"a": "int", "b": "decimal(10,2)"}
    wanted = {"a": "bigint", "b": "decimal(12,2)", "c": "date", "d": "string"}
    assert alterations("silver.t", present, wanted) == [
        "ALTER TABLE silver.t ADD COLUMNS (`c` date, `d` string)",
        "ALTER TABLE silver.t ALTER COLUMN `a` TYPE bigint",
        "ALTER TABLE silver.t ALTER COLUMN `b` TYPE decimal(12,2)",
    ]


def test_table_as_its_contract_has_it_is_left_alone() -> None:
    assert alterations("silver.t", {"a": "int", "old": "date"}, {"a": "smallint"}) == []


def test_type_that_cannot_become_the_contracts_is_told_before_anything_is_altered() -> None:
    with pytest.raises(ContractError, match=r"silver\.t\.a is bigint, the contract says int\. .*Put the old type back"):
        alterations("silver.t", {"a": "bigint"}, {"a": "int", "new": "date"})


def test_table_gains_and_widens_columns_and_keeps_its_rows(lake: SparkSession, store: JobStore) -> None:
    name = TABLES[0]
    before = TableSpec(name, (("a", "int"), ("b", "decimal(10,2)"), ("c", "float"), (SOURCE_KEY, "string")), SOURCE_KEY)
    after = TableSpec(
        name,
        (("a", "bigint"), ("b", "decimal(12,2)"), ("c", "double"), ("d", "date"), (SOURCE_KEY, "string")),
        SOURCE_KEY,
    )
    ensure_tables(lake, store.lake, [before])
    lake.sql(f"INSERT INTO {name} VALUES (1, 2.50, 0.5, 'k')")
    files = lake.table(f"{name}.files").select("file_path").collect()
    table = ensure_tables(lake, store.lake, [after])[name]
    assert table.columns == dict(after.columns)
    lake.sql(f"INSERT INTO {name} (a, {SOURCE_KEY}) VALUES ({2**40}, 'l')")
    assert {(row.a, row.c, row.d) for row in lake.table(name).collect()} == {(1, 0.5, None), (2**40, None, None)}
    assert set(files) <= set(lake.table(f"{name}.files").select("file_path").collect())


def test_table_of_an_earlier_version_gets_the_properties_that_it_lacks_and_keeps_those_that_somebody_set(
    lake: SparkSession, store: JobStore
) -> None:
    name, merge, codec = TABLES[0], "commit.manifest.min-count-to-merge", "write.parquet.compression-codec"
    spec = TableSpec(name, (("a", "int"), (SOURCE_KEY, "string")), SOURCE_KEY)
    made = ensure_tables(lake, store.lake, [spec])[name].properties
    lake.sql(f"ALTER TABLE {name} UNSET TBLPROPERTIES ('{merge}')")
    lake.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('{codec}' = 'zstd')")
    assert ensure_tables(lake, store.lake, [spec])[name].properties == made | {codec: "zstd"}


def test_spark_is_asked_for_nothing_where_a_table_is_as_it_should_be(
    lake: SparkSession, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TableSpec(TABLES[0], (("a", "int"), (SOURCE_KEY, "string")), SOURCE_KEY)
    ensure_tables(lake, store.lake, [spec])
    asked: list[str] = []
    monkeypatch.setattr(lake, "sql", asked.append)
    ensure_tables(lake, store.lake, [spec])
    assert asked == []


def test_commits_of_small_files_lie_in_few_manifests(lake: SparkSession, store: JobStore) -> None:
    name = TABLES[0]
    ensure_tables(lake, store.lake, [TableSpec(name, (("a", "int"), (SOURCE_KEY, "string")), SOURCE_KEY)])
    for number in range(12):
        lake.sql(f"INSERT INTO {name} VALUES ({number}, 'k{number}')")
    assert lake.table(f"{name}.manifests").count() < 10
    assert lake.table(name).count() == 12
