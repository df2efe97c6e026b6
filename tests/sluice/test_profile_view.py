"""How a profile looks: pictures, the terminal, and the page in a real headless browser."""

from __future__ import annotations

import html
import io
import re
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from contracts.profile import STEPS, ColumnProfile, Profile
from sluice import profile_view
from sluice.pictures import BARS, blocks, shares, sketch
from sluice.profiles import ProfileFound, write_page
from tests.browser import look_at

HOSTILE = "nyc_yellow/<script>document.title='ran'</script>&\"'\x1b[31m_2025-02.parquet"
NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=STEPS + 1, max_size=STEPS + 1).map(sorted)


def number(name: str, scale: float = 1.0, nulls: int = 0) -> ColumnProfile:
    quantiles = tuple(scale * step**2 for step in range(STEPS + 1))
    return ColumnProfile(
        name=name, type="double", unit="mile", nulls=nulls, minimum="0", maximum=str(quantiles[-1]), quantiles=quantiles
    )


def text(name: str, values: dict[str, int]) -> ColumnProfile:
    return ColumnProfile(name=name, type="string", nulls=0, minimum="a", maximum="b", values=values)


def profile(key: str, *columns: ColumnProfile, rows: int = 1000) -> Profile:
    return Profile(
        bucket="bronze", key=key, etag="abc", dataset="nyc_yellow", snapshot_id=7, rows_in=rows + 100,
        made_at=datetime(2026, 1, 1, tzinfo=UTC), rows_accepted=rows, rows_rejected=100,
        reasons={"negative_amount": 80, "distance_absurd": 30}, columns=columns,
    )  # fmt: skip


@pytest.fixture
def found() -> ProfileFound:
    """A hostile key and values, against a month in which one column was far lower."""
    flags = {"<img src=x onerror=document.title='ran'>": 900, "Y": 100}
    now = profile(HOSTILE, number("fare", 3.0), number("distance", nulls=200), text("flag", flags))
    before = profile("nyc_yellow/a_2025-01.parquet", number("fare"), number("distance"), text("flag", flags))
    return ProfileFound(now, before, "")


def printed(found: ProfileFound, monkeypatch: pytest.MonkeyPatch) -> str:
    told = io.StringIO()
    monkeypatch.setattr(profile_view, "console", Console(file=told, width=160, highlight=False))
    profile_view.show(found)
    return told.getvalue()


@given(NUMBERS, st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_bars_hold_all_values(quantiles: list[float], low: float, wide: float) -> None:
    found = shares(quantiles, low, low + wide)
    assert len(found) in (1, BARS)
    assert sum(found) == pytest.approx(1)
    assert all(share >= -1e-9 for share in found)


def test_highest_bar_is_a_full_block_and_a_few_values_show() -> None:
    assert blocks([0, 0.0001, 0.5, 1]) == " ▁▄█"
    assert blocks([]) == ""


def test_sketch_of_texts_names_the_commonest_values() -> None:
    assert sketch(text("flag", {"N": 99, "Y": 1})) == "N 99%, Y 1%"
    some = ColumnProfile(name="base", type="string", nulls=0, values={"A": 10, "B": 5}, counted=1000)
    assert sketch(some) == "A 1%, B 0%"
    assert sketch(ColumnProfile(name="at", type="timestamp_ntz", nulls=0)) == ""


def test_terminal_tells_rows_rejects_drift_and_pictures(found: ProfileFound, monkeypatch: pytest.MonkeyPatch) -> None:
    told = printed(found, monkeypatch)
    assert "1,100 rows: 1,000 accepted, 100 rejected" in told
    assert re.search(r"negative_amount  █+ 80\n", told)
    assert re.search(r"fare .*█.* (drifted|moved) 0\.\d\d", told)
    assert re.search(r"distance .* 20.0 % .*moved 0.00, nulls \+20%", told)
    assert "Against bronze/nyc_yellow/a_2025-01.parquet: +0.0% rows" in told
    assert "\x1b[31m" not in told


def test_terminal_says_why_there_is_nothing_to_hold_it_against(
    found: ProfileFound, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = printed(ProfileFound(found.profile, None, "its key names no month"), monkeypatch)
    assert "Not held against the month before: its key names no month." in told


def test_json_has_profile_and_drift(found: ProfileFound) -> None:
    record = profile_view.record(found)
    assert Profile.model_validate(record["profile"]) == found.profile
    assert record["before"] == {"key": "nyc_yellow/a_2025-01.parquet", "etag": "abc"}
    assert [column["name"] for column in record["drift"]["columns"]] == ["fare", "distance", "flag"]
    assert profile_view.record(ProfileFound(found.profile, None, "why"))["drift"] is None


def test_page_escapes_whatever_others_wrote(found: ProfileFound) -> None:
    page = profile_view.page(found)
    assert "<script" not in page
    assert "<img" not in page
    assert html.escape("<script>document.title='ran'</script>", quote=False) in page.replace("&#39;", "'")


def test_page_of_a_file_without_accepted_rows_says_so() -> None:
    empty = profile("nyc_yellow/a_2025-02.parquet", rows=0)
    assert "No row was accepted." in profile_view.page(ProfileFound(empty, None, "there is none"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_opens_in_a_real_browser_without_complaint_and_shows_its_pictures(
    found: ProfileFound, tmp_path: Path, dark: bool
) -> None:
    page = tmp_path / "profile.html"
    write_page(page, profile_view.page(found))
    dom, complaints, picture = look_at(page, tmp_path, dark=dark)
    assert complaints == ""
    # A title of "ran" would say that something of the key or of a value was carried out.
    assert "<title>Profile of bronze/nyc_yellow/&lt;script&gt;" in dom
    assert dom.count("<rect") == 2 * BARS
    assert dom.count("<polyline") == 2
    pixels = matplotlib.image.imread(picture)
    colours = {tuple(round(float(part), 2) for part in pixel[:3]) for row in pixels[::7] for pixel in row[::7]}
    assert len(colours) > 5
    background = pixels[5, 5, :3].mean()
    assert background < 0.5 if dark else background > 0.5
