"""What a terminal of 80 columns shows."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from contracts.states import Hop, Layer
from contracts.story import LayerResult, Passage
from sluice import render
from tests.sluice.stories import make_story

PASSWORD = "f" * 40
RUN = "yellow_tripdata_2025-01.parquet__45357dfa595e"
SNAPSHOT = 3862954202917998577


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(render, "console", Console(width=80, file=written, highlight=False))
    return written


def test_password_is_on_one_line_to_be_copied_whole(screen: io.StringIO) -> None:
    render.key_values([("Airflow UI", f"http://127.0.0.1:8080  login admin / {PASSWORD}"), ("stop", "sluice down")])
    first, second = screen.getvalue().splitlines()
    assert first.endswith(f"login admin / {PASSWORD}")
    assert first.index("http") == second.index("sluice")


def test_story_keeps_tables_runs_and_snapshots_whole(screen: io.StringIO) -> None:
    layers = [
        LayerResult(
            layer=layer,
            table=table,
            dag_id=f"nyc_yellow_to_{layer}",
            run_id=RUN,
            snapshot_id=SNAPSHOT,
            rows_in=3_000_000,
            rows_accepted=2_898_365,
            rows_rejected=101_635,
        )
        for layer, table in ((Layer.SILVER, "silver.nyc_yellow"), (Layer.GOLD, "gold.nyc_yellow_features"))
    ]
    put = Passage(hop=Hop.PUT, at=datetime(2025, 2, 1, tzinfo=UTC))
    render.story(make_story(put, layers=tuple(layers)))
    shown = screen.getvalue()
    for whole in ("gold.nyc_yellow_features", "3,000,000", "101,635", RUN, str(SNAPSHOT), "nyc_yellow_to_gold"):
        assert any(whole in line for line in shown.splitlines()), whole


def test_headings_break_between_their_words_before_values_do(screen: io.StringIO) -> None:
    names = "pickup_date pickup_hour pickup_location_id trips revenue mean_duration_minutes mean_speed_mph tip_share"
    render.rows(names.split(), [["2025-01-11", "18:00", 236, 406, 10301.82, 15.16, 9.2, 0.13]])
    assert "2025-01-11  18:00" in screen.getvalue().splitlines()[-1]


def test_rows_that_fit_keep_their_headings(screen: io.StringIO) -> None:
    render.rows(["trip_count"], [[3]])
    assert screen.getvalue().splitlines()[0].strip() == "trip_count"


def test_an_answer_without_rows_shows_its_headings(screen: io.StringIO) -> None:
    render.rows(["trip_count", "zone"], [])
    assert screen.getvalue().split() == ["trip_count", "zone"]
