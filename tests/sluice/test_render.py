"""What a terminal of 80 columns shows."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from consumers.dead_letters import Filed, LetterState, Settled, dead_letter
from consumers.reconcile import Finding, counts
from consumers.reconciler import Report
from contracts.errors import BadEvent
from contracts.states import FileState, Hop, Layer
from contracts.story import CommitSource, LayerResult, Passage
from sluice import render
from sluice.letters import Outcome, Shown
from tests.consumers.samples import NOON, message
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


def checked(**told: object) -> LayerResult:
    return LayerResult.model_validate(
        {
            "layer": Layer.SILVER, "table": "silver.nyc_yellow", "dag_id": None, "run_id": None, "snapshot_id": 1,
            "rows_in": 3, "rows_accepted": 2, "rows_rejected": 1, **told,
        }
    )  # fmt: skip


def test_story_tells_reasons_warnings_and_columns_kept_aside_below_the_layers(screen: io.StringIO) -> None:
    reasons = {"distance_absurd": 88, "negative_amount": 1_204}
    layer = checked(reasons=reasons, warnings={"no_tip": 7}, rescued=["a", "b"], left_out=["c"])
    render.story(make_story(layers=(layer,)))
    lines = screen.getvalue().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("silver"))
    assert lines[start + 1 : start + 5] == [
        "rejected: 1,204 negative_amount, 88 distance_absurd",
        "warned: 7 no_tip",
        "kept in _rescued: columns a, b",
        "left in the file, of types unknown to Spark: columns c",
    ]


def test_story_without_reasons_says_nothing_of_them(screen: io.StringIO) -> None:
    render.story(make_story(layers=(checked(),)))
    assert not any(word in screen.getvalue() for word in ("rejected:", "warned:", "_rescued"))


def test_reasons_keep_their_numbers_beside_them_on_80_columns(screen: io.StringIO) -> None:
    reasons = {f"a_rule_of_some_length_{n}": 1_000_000 + n for n in range(14)}
    names = [f"column with blanks {n:02d}" for n in range(20)]
    render.story(make_story(layers=(checked(reasons=reasons, rescued=names),)))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for whole in ("1,000,013 a_rule_of_some_length_13", "1,000,002 a_rule_of_some_length_2", "column with blanks 11"):
        assert any(whole in line for line in lines), whole
    assert "a_rule_of_some_length_1," not in screen.getvalue(), "those of fewest rows are left out"
    assert any(line.endswith("… 2 more") for line in lines)
    assert any(line.endswith("… 8 or more") for line in lines), "a marker names 20 at most"


def test_story_of_a_file_that_waits_tells_what_for(screen: io.StringIO) -> None:
    waits = make_story(state=FileState.RUNNING).model_copy(update={"detail": "waiting for 2 of 5 files: b, c"})
    render.story(waits)
    assert "state running\nwaiting for 2 of 5 files: b, c\n" in screen.getvalue()


def held(key: str, rows: int) -> CommitSource:
    return CommitSource(
        snapshot_id=SNAPSHOT,
        table_name="gold.nyc_yellow_features",
        batch_id="b1",
        run_id=None,
        committed_at=NOON,
        bucket="bronze",
        key=key,
        etag="e1",
        rows_in=rows,
        rows_accepted=rows,
        rows_rejected=0,
    )


def test_files_of_a_snapshot_are_shown_with_their_rows_and_the_snapshot_that_wrote_them(screen: io.StringIO) -> None:
    render.held(SNAPSHOT + 1, [held("nyc_yellow/[a].parquet", 2_898_365), held("nyc_yellow/b.parquet", 1)])
    first, rows, _, *files = screen.getvalue().splitlines()
    assert first == f"gold.nyc_yellow_features at snapshot {SNAPSHOT + 1}"
    assert rows == "2,898,366 rows of 2 file(s)"
    assert files[0].split() == ["2,898,365", str(SNAPSHOT), "bronze/nyc_yellow/[a].parquet"]


def test_snapshot_that_holds_no_file_is_shown_so(screen: io.StringIO) -> None:
    render.held(SNAPSHOT, [])
    assert screen.getvalue().splitlines() == [f"snapshot {SNAPSHOT}", "0 rows of 0 file(s)"]


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


HOSTILE = "[red]x[/red][link=file:///][/] \x1b[2J\x9b1A\u202e"


def test_name_of_a_column_is_shown_without_anything_that_a_terminal_would_obey(screen: io.StringIO) -> None:
    render.story(make_story(layers=(checked(rescued=[HOSTILE]),)))
    assert not {"\x1b", "\x9b", "\u202e"} & set(screen.getvalue())
    assert "columns [red]x[/red][link=file:///][/]" in screen.getvalue()


def test_dead_letter_is_shown_without_anything_that_a_terminal_would_obey(screen: io.StringIO) -> None:
    made = dead_letter(message(HOSTILE.encode()), BadEvent(f"why {HOSTILE}"), NOON)
    filed = Filed(3, made.model_copy(update={"key": HOSTILE, "reason": HOSTILE, "topic": HOSTILE}))
    render.letters([filed])
    render.letter(Shown(filed, (4, 5)))
    render.outcome("redriven", Outcome([3], {4: HOSTILE}))
    shown = screen.getvalue()
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
    assert "[red]x[/red]" in shown
    assert "4, 5" in shown


def test_dead_letter_as_json_has_its_message_its_state_and_its_chain() -> None:
    made = dead_letter(message(b"\xff line\n"), BadEvent("why"), NOON)
    shown = render.shown_letter(Shown(Filed(3, made, Settled(LetterState.REDRIVEN, NOON)), (4,)))
    assert (shown["id"], shown["state"], shown["settled_at"]) == (3, "redriven", "2025-01-02T12:00:00.000Z")
    assert (shown["value"], shown["value_cut"], shown["redriven_to"]) == ("\\xff line\n", False, [4])
    assert (shown["source"], shown["attempt"], shown["redriven_from"]) == ("lake.bronze.events[0]@0", 1, None)


def test_long_message_is_cut_on_the_terminal(screen: io.StringIO) -> None:
    render.letter(Shown(Filed(3, dead_letter(message(b"y" * 70_000), BadEvent("why"), NOON)), ()))
    assert screen.getvalue().count("y") < 5_000
    assert "--json prints the first 64 KiB" in screen.getvalue()


def test_report_of_reconcile_names_what_it_found_and_what_waits(screen: io.StringIO) -> None:
    named = ((Finding.OBJECT_WITHOUT_ROW, "bronze/nyc_yellow/[red]a.parquet"), (Finding.STAGE_PAUSED, "x_to_silver"))
    report = Report(full=False, repaired=False, objects=7, found=counts(named), named=named, waiting={"x_to_silver": 3})
    render.reconciled(report)
    shown = screen.getvalue()
    assert "object_without_row: bronze/nyc_yellow/[red]a.parquet" in shown
    assert "3 file(s) wait for x_to_silver" in shown
    assert "no result" not in shown, "what was not found is left out"
    assert "nothing was mended" in shown


def test_report_of_reconcile_says_that_all_is_well(screen: io.StringIO) -> None:
    render.reconciled(Report(full=True, repaired=True, objects=7, found=counts([]), named=(), waiting={}))
    assert "bucket, ledger and runs agree" in screen.getvalue()
