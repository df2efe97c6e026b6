"""Files that the TLC published go through the real chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.states import FileState
from tests.chain.conftest import Drop, Query, rows_in_file, sql_text

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_real_yellow_sample_reaches_gold_with_every_row_accounted(
    put: Drop, query: Query, real_files: Path, unique: str
) -> None:
    file = real_files / "yellow_tripdata_sample.parquet"
    story = put(f"nyc_yellow/{unique}/{file.name}", file.read_bytes())
    assert story.state is FileState.DONE, story
    silver, gold = story.layers
    assert silver.rows_in == rows_in_file(file) == silver.rows_accepted + silver.rows_rejected
    assert gold.rows_accepted == silver.rows_accepted
    fares, total = query(
        f"select sum(fare_amount), sum(total_amount) from silver.nyc_yellow where _source_key = {sql_text(story.key)}"
    )[0]
    import duckdb

    rejected = query(
        "select sum((_row::json->>'fare_amount')::decimal(10,2)), sum((_row::json->>'total_amount')::decimal(10,2))"
        f" from silver.nyc_yellow_rejects where _source_key = {sql_text(story.key)}"
    )[0]
    source = duckdb.sql(
        "select sum(fare_amount::decimal(10,2)), sum(total_amount::decimal(10,2)) "
        f"from read_parquet('{str(file).replace(chr(39), chr(39) * 2)}')"
    ).fetchone()
    assert source is not None
    assert (fares + (rejected[0] or 0), total + (rejected[1] or 0)) == source, "to the cent"


def test_real_green_month_without_required_columns_is_refused_with_their_list(
    put: Drop, real_files: Path, unique: str
) -> None:
    file = real_files / "green_tripdata_2022-01.parquet"
    story = put(f"nyc_yellow/{unique}/{file.name}", file.read_bytes())
    assert (story.state, story.reason) == (FileState.QUARANTINED, "missing_columns")
    assert "fare_amount" in (story.detail or "")
