"""A backfill's decisions, with a store and a ledger in memory; `tests/chain/test_backfill.py` has the real ones."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.dataset import Period
from contracts.errors import ServiceUnavailable
from contracts.loading import load_contracts
from contracts.settings import load_settings
from contracts.states import FileState, Hop
from contracts.story import FileStory, Passage
from ingest.backfill import Wanted
from sluice import backfilling
from sluice.backfilling import Outcome, _all, _One, _tells, exit_code
from sluice.progress import Quiet
from tests.ingest.fakes import FakeStore

SETTINGS = load_settings()
CONTRACT = load_contracts(SETTINGS.contracts_dir)["nyc_yellow"]
MONTH = Period(year=2023, month=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def story(key: str, etag: str, state: FileState, *arrived: datetime) -> FileStory:
    timeline = tuple(Passage(hop=Hop.PUT, at=at) for at in arrived)
    return FileStory(
        bucket="bronze", key=key, etag=etag, size=1, dataset="nyc_yellow", state=state, reason=None, detail=None,
        timeline=timeline, layers=(),
    )  # fmt: skip


@dataclass
class FakeLedger:
    """Every file ends at once."""

    store: FakeStore
    state: FileState = FileState.DONE
    away: bool = False
    stopping: threading.Event | None = None
    asked: list[str] = field(default_factory=list)

    def story(self, bucket: str, key: str, etag: str) -> FileStory:
        self.asked.append(key)
        if self.away:
            raise ServiceUnavailable("The ledger does not answer.")
        if self.stopping is not None:
            self.stopping.set()
        return story(key, etag, self.state, datetime.now(UTC))


def run(ledger: FakeLedger, files: list[Wanted], stopping: threading.Event) -> list[Outcome]:
    one: Any = _One(SETTINGS, CONTRACT, ledger.store, ledger, stopping, Quiet())  # type: ignore[arg-type]
    return _all(one, files, 1, stopping)


@pytest.fixture
def files(tmp_path: Path) -> list[Wanted]:
    made = []
    for number in range(4):
        path = tmp_path / f"{number}_2023-01.parquet"
        path.write_bytes(bytes([number]))
        made.append(Wanted(MONTH, f"nyc_yellow/{path.name}", path))
    return made


def test_each_file_is_put_once_and_one_that_is_there_not_again(files: list[Wanted]) -> None:
    store = FakeStore()
    assert [outcome.put for outcome in run(FakeLedger(store), files, threading.Event())] == [True] * 4
    assert [outcome.put for outcome in run(FakeLedger(store), files, threading.Event())] == [False] * 4
    assert store.puts == 4


def test_after_a_signal_no_file_is_begun_and_one_that_has_ended_is_told_as_ended(files: list[Wanted]) -> None:
    store, stopping = FakeStore(), threading.Event()
    states = [outcome.state for outcome in run(FakeLedger(store, stopping=stopping), files, stopping)]
    assert states == ["done", "not begun", "not begun", "not begun"]
    assert store.puts == 1


def test_file_that_is_under_way_at_the_signal_is_told_so(files: list[Wanted]) -> None:
    store, stopping = FakeStore(), threading.Event()
    found = run(FakeLedger(store, FileState.RUNNING, stopping=stopping), files, stopping)
    assert [outcome.state for outcome in found] == ["under way", "not begun", "not begun", "not begun"]


def test_server_that_stays_away_ends_the_whole_backfill(files: list[Wanted], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfilling, "PATIENCE", 0.0)
    store = FakeStore()
    found = run(FakeLedger(store, away=True), files, threading.Event())
    assert [outcome.state for outcome in found] == ["under way", "not begun", "not begun", "not begun"]
    assert found[0].detail == "The ledger does not answer."
    assert exit_code(found) == 1


def test_server_that_is_away_is_not_waited_for_when_the_backfill_is_to_end(files: list[Wanted]) -> None:
    stopping = threading.Event()

    class AwayLedger(FakeLedger):
        def story(self, bucket: str, key: str, etag: str) -> FileStory:
            stopping.set()
            self.asked.append(key)
            assert len(self.asked) < 3, "it is asked again and again"
            raise ServiceUnavailable("The ledger does not answer.")

    found = run(AwayLedger(FakeStore()), files, stopping)
    assert [(outcome.state, outcome.detail) for outcome in found] == [("under way", "")] + [("not begun", "")] * 3
    assert exit_code(found) == 130
    # The other file is the one that tells why.
    gave_up = Outcome(MONTH, "key", "under way", detail="The ledger does not answer.")
    assert exit_code([gave_up, *found]) == 1


def test_file_that_cannot_be_read_stops_no_other(files: list[Wanted]) -> None:
    assert files[1].path is not None
    files[1].path.unlink()
    files[1].path.mkdir()
    states = [outcome.state for outcome in run(FakeLedger(FakeStore()), files, threading.Event())]
    assert states == ["done", "failed", "done", "done"]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([], 0),
        (["done"], 0),
        (["done", "quarantined"], 4),
        (["done", "missing"], 1),
        (["ignored"], 1),
        (["quarantined", "missing"], 4),
        (["done", "not begun"], 130),
        (["under way", "quarantined"], 130),
        (["failed", "not begun"], 1),
    ],
)
def test_exit_code_tells_what_is_left(states: list[str], code: int) -> None:
    assert exit_code([Outcome(MONTH, "key", state) for state in states]) == code


def test_story_of_the_same_content_before_does_not_count_for_a_new_put() -> None:
    store = FakeStore()
    store.objects["bronze", "k"] = b"x"
    info = store.stat("bronze", "k")
    assert info is not None
    old = story("k", info.etag, FileState.DONE, info.last_modified - timedelta(minutes=1))
    new = story("k", info.etag, FileState.DONE, info.last_modified - timedelta(minutes=1), info.last_modified)
    assert not _tells(old, info, put=True)
    assert _tells(old, info, put=False)
    assert _tells(new, info, put=True)
