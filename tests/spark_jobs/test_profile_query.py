"""What the one query of profiles tells of files, on parquet files of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.dataset import Column
from contracts.loading import load_contracts
from contracts.markers import SourceResult
from contracts.profile import ColumnProfile
from contracts.settings import load_settings
from spark_jobs import profile_job

COLUMNS = (Column(name="n", type="double"), Column(name="code", type="int"), Column(name="flag", type="string"))
Look = dict[str, dict[str, ColumnProfile]]


@pytest.fixture
def look(tmp_path: Path) -> Any:
    """Profile the columns of some files: `look({key: {column: values}})`."""
    settings = load_settings()
    yellow = load_contracts(settings.contracts_dir)["nyc_yellow"]
    contract = yellow.model_copy(update={"silver": yellow.silver.model_copy(update={"columns": COLUMNS})})

    class Table:
        def paths_of(self, snapshot_id: int, keys: Sequence[str]) -> list[str]:
            return [str(path) for path in sorted(tmp_path.glob("*.parquet"))]

    def run(files: dict[str, dict[str, Any]], asked: Sequence[str] = ()) -> Look:
        sources = []
        for place, (key, columns) in enumerate(files.items()):
            rows = len(next(iter(columns.values())))
            given = {
                "n": pa.nulls(rows, pa.float64()),
                "code": pa.nulls(rows, pa.int32()),
                "flag": pa.nulls(rows, pa.string()),
            }
            pq.write_table(pa.table(given | columns | {"_source_key": [key] * rows}), tmp_path / f"{place}.parquet")
            sources.append(SourceResult(bucket="bronze", key=key, etag="e", rows_in=rows, rows_accepted=rows))
        wanted = [source for source in sources if not asked or source.key in asked]
        found = profile_job._look(settings, Table(), contract, wanted, 1)
        return {key: {column.name: column for column in columns} for key, columns in found.items()}

    return run


def test_each_file_is_told_of_by_its_own_rows(look: Any) -> None:
    found = look(
        {"a": {"n": [1.0, 2.0, None], "flag": ["Y", "N", "Y"]}, "b": {"n": [7.0], "code": pa.array([3], pa.int32())}}
    )
    n = found["a"]["n"]
    assert (n.nulls, n.minimum, n.maximum, n.quantiles[0], n.quantiles[-1]) == (1, "1.0", "2.0", 1.0, 2.0)
    assert found["a"]["flag"].values == {"Y": 2, "N": 1}
    assert found["b"]["n"].maximum == "7.0"
    assert found["b"]["code"].values == {"3": 1}


def test_other_files_of_a_pack_are_left_out(look: Any) -> None:
    assert set(look({"a": {"n": [1.0]}, "b": {"n": [2.0]}}, asked=["a"])) == {"a"}


def test_small_file_beside_a_large_one_is_told_of_by_all_its_rows(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_job, "SAMPLE", 100)
    found = look({"large": {"n": [float(n) for n in range(20_000)]}, "small": {"n": [float(n) for n in range(100)]}})
    small, large = found["small"]["n"], found["large"]["n"]
    assert (small.quantiles[0], small.quantiles[10], small.quantiles[-1]) == (0.0, 49.0, 99.0)
    assert len(large.quantiles) == 21


def test_same_files_make_the_same_profile_again(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_job, "SAMPLE", 100)
    files = {"large": {"n": [float(n) for n in range(5_000)]}}
    assert look(files) == look(files)


def test_numbers_that_are_none_do_not_get_into_quantiles(look: Any) -> None:
    column = look({"a": {"n": [1.0, float("nan"), float("inf"), float("-inf"), 3.0]}})["a"]["n"]
    assert (column.nulls, column.quantiles[0], column.quantiles[-1]) == (0, 1.0, 3.0)
    assert ColumnProfile.model_validate_json(column.model_dump_json()) == column


def test_codes_and_texts_beyond_the_most_values(look: Any) -> None:
    codes = pa.array([n % 25 for n in range(100)], pa.int32())
    flags = [f"<b>{n % 25}" for n in range(100)]
    found = look({"a": {"code": codes, "flag": flags}})["a"]
    assert found["code"].values == {}
    assert len(found["code"].quantiles) == 21
    assert len(found["flag"].values) == 20
    assert (found["code"].counted, found["flag"].counted, found["flag"].untold) == (0, 100, 20)


def test_query_takes_as_many_files_as_it_has_memory_for_and_no_file_is_left_out() -> None:
    rows = [10_000_000, 0, *[200_000] * 12, *[1] * 450]
    sources = [
        SourceResult(bucket="bronze", key=str(place), etag="e", rows_in=count, rows_accepted=count)
        for place, count in enumerate(rows)
    ]
    portions = list(profile_job.portions(sources))
    assert [source for portion in portions for source in portion] == sources
    assert max(map(len, portions)) == profile_job.FILES_AT_ONCE
    for portion in portions:
        assert sum(min(source.rows_accepted, profile_job.SAMPLE) for source in portion) <= profile_job.SAMPLED_AT_ONCE
    assert list(profile_job.portions([])) == []
