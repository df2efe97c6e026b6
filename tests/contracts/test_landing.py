"""What a CSV is called once it has landed."""

from __future__ import annotations

import pytest

from contracts.landing import is_csv, landed_name


@pytest.mark.parametrize(
    ("name", "landed"),
    [
        ("x.csv", "x.parquet"),
        ("x.CSV", "x.parquet"),
        ("x.csv.gz", "x.parquet"),
        ("x.csv.GZ", "x.parquet"),
        ("d/2019/x.y.csv", "d/2019/x.y.parquet"),
        ("x.csv.csv", "x.csv.parquet"),
        ("x.parquet", None),
        ("x.csv.zip", None),
        ("xcsv", None),
        ("x.gz", None),
    ],
)
def test_only_names_that_say_csv_change(name: str, landed: str | None) -> None:
    assert is_csv(name) == (landed is not None)
    assert landed_name(name) == (landed or name)
