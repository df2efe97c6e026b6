"""On the real servers: a file's profile, held against the tables and against the month before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.generator import generate_month
from tests.browser import look_at
from tests.chain.conftest import Drop, Query, sql_text, wait_until
from tests.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]


def profile(stack: Stack, key: str) -> dict[str, Any]:
    """The answer of `sluice profile`, once it is there."""
    wait_until(lambda: stack.run("profile", f"bronze/{key}").returncode == 0, f"there is a profile of {key}")
    return dict(stack.json("profile", f"bronze/{key}"))


def test_profile_tells_what_silver_holds_and_how_far_it_is_from_the_month_before(
    stack: Stack, put: Drop, query: Query, unique: str, tmp_path: Path
) -> None:
    keys = [f"nyc_yellow/{unique}/yellow <b>_2025-{month:02d}.parquet" for month in (1, 2)]
    for month, (key, rows) in enumerate(zip(keys, (2000, 3000), strict=True), start=1):
        path = tmp_path / f"{month}.parquet"
        generate_month(path, 2025, month, rows, month)
        assert put(key, path.read_bytes()).state == "done"
    first, second = (profile(stack, key) for key in keys)
    assert (first["before"], first["drift"]) == (None, None)
    assert "2024-12" in first["no_drift"]
    assert second["before"]["key"] == keys[0]
    assert second["drift"]["rows"] == pytest.approx(0.5)

    told = second["profile"]
    story = stack.json("why", f"bronze/{keys[1]}")["layers"][0]
    for name in ("rows_in", "rows_accepted", "rows_rejected", "reasons", "snapshot_id"):
        assert told[name] == story[name]
    columns = {column["name"]: column for column in told["columns"]}
    mine = f"from silver.nyc_yellow where _source_key = {sql_text(keys[1])}"
    for name, column in columns.items():
        nulls, lowest, highest = query(f"select count(*) - count({name}), min({name}), max({name}) {mine}")[0]
        expected = [None if bound is None else str(bound) for bound in (lowest, highest)]
        found = [column["minimum"], column["maximum"]]
        assert column["nulls"] == nulls
        assert [bound and bound.lower() for bound in found] == [bound and bound.lower() for bound in expected]
    middle = query(f"select quantile_disc(total_amount, 0.5)::double {mine}")[0][0]
    assert columns["total_amount"]["quantiles"][10] == pytest.approx(middle)
    flags = query(f"select store_and_fwd_flag, count(*) {mine} and store_and_fwd_flag is not null group by 1")
    assert columns["store_and_fwd_flag"]["values"] == dict(flags)

    shown = stack.run("profile", f"bronze/{keys[1]}").stdout
    assert "3,000 rows" in shown
    assert f"Against bronze/{keys[0]}: +50.0% rows" in shown
    page = tmp_path / "page.html"
    assert stack.run("profile", f"bronze/{keys[1]}", "--html", str(page)).returncode == 0
    dom, complaints, _ = look_at(page, tmp_path)
    assert complaints == ""
    assert "yellow &lt;b&gt;_2025-02.parquet" in dom


def test_file_that_was_refused_has_no_profile_and_the_answer_says_where_to_look(
    stack: Stack, put: Drop, unique: str
) -> None:
    key = f"nyc_yellow/{unique}/text_2025-01.parquet"
    assert put(key, b"no parquet").state == "quarantined"
    done = stack.run("profile", f"bronze/{key}")
    assert done.returncode == 2
    assert f"sluice why bronze/{key}" in done.stderr
    assert stack.run("profile", f"bronze/{unique}").returncode == 2
