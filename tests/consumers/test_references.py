"""Reference datasets: they end in silver, and a changed one takes to gold once more what had read the old one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumers import reconciler, router
from consumers.ledger import Ledger
from consumers.reconcile import STANDS_STILL, Finding
from consumers.replay import REFRESH, content_changed, plan_refresh, plan_replay, readers, refresh_version
from consumers.routing import Work, plan, route
from consumers.rows import FileRow, KnownFiles
from contracts.events import BucketEvent
from contracts.loading import load_contracts
from contracts.states import FileState, Hop, Layer, Reason
from contracts.work import WorkItem, make_batch
from tests.consumers.samples import NOON, accepted, arrival, marker, put, removal
from tests.consumers.sets import DATASETS, Line, _result, listing, reconcile_pass, write_contract

CONTRACTS = load_contracts(DATASETS)
SILVER, GOLD = Layer.SILVER, Layer.GOLD
ZONES = "taxi_zones/taxi_zone_lookup.parquet"
MAY, JUNE, GREEN = "nyc_yellow/2025-05.parquet", "nyc_yellow/2025-06.parquet", "nyc_green/2025-05.parquet"
BATCHES_OF_LATER = "UPDATE ledger.batches SET created_at = created_at + interval '1 minute'"


def zones_marker(snapshot: int = 7, sequence: int = 2, **source: Any) -> Any:
    done = accepted(ZONES).model_copy(update={"depth": SILVER} | source)
    fields = {"dataset": "taxi_zones", "table": "silver.taxi_zones", "sequence_number": sequence}
    return marker(done, snapshot=snapshot).model_copy(update=fields)


# Decisions


@pytest.mark.parametrize("deleted", [False, True], ids=["put", "deleted"])
def test_work_of_a_reference_goes_no_further_than_silver(deleted: bool) -> None:
    retracting = {"taxi_zones": CONTRACTS["taxi_zones"].model_copy(update={"on_delete": "retract"})}
    row = FileRow("bronze", ZONES, "a1", "10", FileState.DONE, dataset="taxi_zones", version="10", depth=SILVER)
    event, known = (removal(ZONES), KnownFiles([row])) if deleted else (put(ZONES), KnownFiles())
    found = route(event, retracting, known)
    assert isinstance(found, Work)
    assert (found.item.depth, found.item.deleted) == (SILVER, deleted)


def test_ledger_row_of_a_reference_says_that_silver_is_its_last_layer() -> None:
    events = [arrival(put(key)) for key in (ZONES, MAY)]
    _, changes = plan(events, CONTRACTS, KnownFiles(), NOON)
    assert [(row.dataset, row.depth) for row in changes.files.values()] == [
        ("taxi_zones", SILVER),
        ("nyc_yellow", GOLD),
    ]


def test_replay_to_gold_of_a_reference_ends_in_silver() -> None:
    row = FileRow("bronze", ZONES, "a1", "10", FileState.DONE, dataset="taxi_zones")
    trips = replace(row, key=MAY, dataset="nyc_yellow")
    found = plan_replay([row, trips], CONTRACTS, GOLD, "replay-1")
    assert [work.item.depth for work in found.work] == [SILVER, GOLD]


def test_datasets_that_name_a_reference_are_its_readers() -> None:
    assert readers(CONTRACTS, "taxi_zones") == ["nyc_green", "nyc_yellow"]
    assert readers(CONTRACTS, "nyc_yellow") == []


@pytest.mark.parametrize(
    ("source", "before", "changed"),
    [
        ({}, {}, True),
        ({}, {("bronze", ZONES): ("a1", 8)}, False),
        ({}, {("bronze", ZONES): ("a0", 8)}, True),
        ({}, {("bronze", ZONES): ("a1", 0)}, True),
        ({"rows_in": 2, "rows_accepted": 0}, {("bronze", ZONES): ("a0", 8)}, True),
        ({"rows_in": 2, "rows_accepted": 0}, {}, False),
        ({"refused": Reason.NO_ROWS, "etag": "a2"}, {("bronze", ZONES): ("a1", 8)}, False),
    ],
    ids=["first", "same", "corrected", "put-back", "taken-away", "never-had-rows", "refused"],
)
def test_content_of_a_reference_changed_or_not(source: Any, before: Any, changed: bool) -> None:
    assert content_changed(zones_marker(**source).sources, before) is changed


def test_same_commit_makes_the_same_work_and_what_was_started_is_only_sent_again() -> None:
    version = refresh_version(zones_marker())
    assert version == refresh_version(zones_marker()) == f"{REFRESH}7"
    fresh = FileRow("bronze", MAY, "a1", "10", FileState.DONE, dataset="nyc_yellow", version="10", size=7)
    begun = replace(fresh, key=JUNE, state=FileState.RUNNING, version=version)
    found = plan_refresh([fresh, begun], "nyc_yellow", version)
    assert [work.item.key for work in found.start] == [MAY]
    assert [work.item.key for work in found.again] == [JUNE]
    item = found.start[0].item
    assert (item.version, item.cause, item.depth, item.size) == (version, version, GOLD, 7)


# On a real ledger


class Files(Line):
    """Files of any dataset, by their keys."""

    commits = itertools.count(1)

    def put(self, *keys: str, etag: str = "") -> list[BucketEvent]:
        events = []
        for key in keys:
            number = next(self._numbers)
            events.append(put(key, etag or f"e{number}", f"{number:X}"))
        self.tell(*events)
        return events

    def claim(self, layer: Layer, *keys: str) -> Any:
        newest = {item.key: item for item in self.work(layer)}
        items = [newest[key] for key in keys]
        batch = make_batch(layer, keys[0].split("/")[0], items)
        assert self.ledger.claim(batch)
        self.ledger.handed_over(batch.batch_id)
        return batch

    def commit_batch(self, batch: Any, tell: bool = True, rows: int = 10, **change: Any) -> BucketEvent:
        own = [_result(item, rows, change) for item in batch.items]
        contract = CONTRACTS[batch.dataset]
        table = contract.silver.name if batch.layer == SILVER else contract.features.name
        found = marker(*own, layer=batch.layer, batch_id=batch.batch_id, snapshot=next(self._numbers)).model_copy(
            update={
                "dataset": batch.dataset,
                "table": table,
                "sequence_number": next(self.commits),
                "committed_at": datetime.now(UTC),
            }
        )
        self.objects[batch.layer, found.key] = (found.model_dump_json().encode(), "m")
        event = put(found.key, bucket=batch.layer)
        if tell:
            self.tell(event)
        return event

    def pass_through(self, *keys: str, layers: tuple[Layer, ...] = (SILVER, GOLD), **change: Any) -> None:
        for layer in layers:
            self.commit_batch(self.claim(layer, *keys), **change)

    def zones(self, tell: bool = True, **change: Any) -> BucketEvent:
        self.put(ZONES)
        return self.commit_batch(self.claim(SILVER, ZONES), tell, **change)

    def to_gold(self) -> list[WorkItem]:
        """The refreshes that were handed on."""
        return [item for item in self.work(GOLD) if item.version.startswith(REFRESH)]

    def of(self, key: str) -> Any:
        found = self.ledger.story("bronze", key)
        assert found is not None
        return found

    def later(self) -> None:
        """What was claimed by now was claimed well after whatever was recorded by now."""
        self.ledger._run(lambda connection: connection.execute(BATCHES_OF_LATER))


@pytest.fixture
def files(ledger: Ledger) -> Files:
    return Files(ledger, DATASETS)


def standing(line: Line, repair: bool = True, contracts: Path = DATASETS) -> list[tuple[Any, str]]:
    """What a pass of reconcile finds standing still, long after all of it, and sends again."""
    known = load_contracts(contracts)
    one = reconcile_pass(line, known, datetime.now(UTC) + 2 * STANDS_STILL, repair)
    reconciler._standing(one, {name for name, own in known.items() if own.completeness})
    return one.findings


@pytest.mark.services
def test_file_of_a_reference_is_done_when_silver_has_it_and_makes_no_work_for_gold(files: Files) -> None:
    files.zones()
    story = files.of(ZONES)
    assert (story.state, [layer.layer for layer in story.layers]) == (FileState.DONE, [SILVER])
    assert files.work(GOLD) == []
    assert standing(files) == []
    assert files.ledger.waiting() == {}


@pytest.mark.services
def test_deleted_reference_that_is_taken_back_ends_as_retracted_and_makes_gold_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    for path in DATASETS.glob("*.yaml"):
        text = path.read_text("utf-8")
        (tmp_path / path.name).write_text(text.replace("onDelete, value: keep", "onDelete, value: retract"), "utf-8")
    files = Files(ledger, tmp_path)
    files.zones()
    files.put(MAY)
    files.pass_through(MAY)
    files.tell(removal(ZONES, "FF"))
    files.commit_batch(files.claim(SILVER, ZONES), rows=0)
    assert (files.of(ZONES).state, files.of(ZONES).reason) == (FileState.IGNORED, Reason.RETRACTED)
    assert [item.key for item in files.to_gold()] == [MAY]


@pytest.mark.services
def test_first_and_corrected_reference_take_every_file_in_gold_there_once_more(files: Files) -> None:
    files.put(MAY, JUNE, GREEN)
    files.pass_through(MAY, JUNE)
    files.pass_through(GREEN)
    for number in (1, 2):
        files.zones()
        sent = files.to_gold()[3 * (number - 1) :]
        assert sorted(item.key for item in sent) == [GREEN, MAY, JUNE]
        assert len({item.version for item in sent}) == 1
        assert files.of(MAY).state == FileState.RUNNING
        files.commit_batch(files.claim(GOLD, MAY, JUNE))
        files.commit_batch(files.claim(GOLD, GREEN))
        assert {files.of(key).state for key in (MAY, JUNE, GREEN)} == {FileState.DONE}
        assert "silver.taxi_zones changed" in [p.detail for p in files.of(MAY).timeline if p.hop == Hop.REPLAYED][-1]
    assert len(files.to_gold()) == 6


@pytest.mark.services
def test_same_content_of_a_reference_changes_nothing(files: Files) -> None:
    files.zones()
    files.put(MAY)
    files.pass_through(MAY)
    (event,) = files.put(ZONES, etag=files.of(ZONES).etag)
    assert (files.of(ZONES).etag, len(files.work(SILVER))) == (event.etag, 2)
    row = files.ledger.newest_of_keys([("bronze", ZONES)])
    started = files.ledger.replay(plan_replay(row, CONTRACTS, GOLD, "replay-1").work)
    batch = make_batch(SILVER, "taxi_zones", [work.item for work in started])
    files.ledger.claim(batch)
    files.commit_batch(batch)
    assert files.of(ZONES).state == FileState.DONE
    assert files.to_gold() == []


@pytest.mark.services
def test_marker_told_again_takes_nothing_to_gold_that_read_the_new_reference(files: Files) -> None:
    files.put(MAY)
    files.pass_through(MAY)
    event = files.zones()
    files.commit_batch(files.claim(GOLD, MAY))
    files.put(JUNE)
    files.pass_through(JUNE)
    files.later()
    before = len(files.work(GOLD))
    files.tell(event, router=files.start(DATASETS))
    assert len(files.work(GOLD)) == before
    assert {files.of(key).state for key in (MAY, JUNE)} == {FileState.DONE}


@pytest.mark.services
def test_file_whose_gold_run_began_before_the_reference_changed_goes_once_more(files: Files) -> None:
    files.put(MAY, JUNE)
    files.pass_through(MAY, JUNE, layers=(SILVER,))
    under_way = files.claim(GOLD, MAY)
    files.zones()
    # June's run has yet to begin, and will read the new reference by itself.
    assert [item.key for item in files.to_gold()] == [MAY]
    files.commit_batch(under_way)
    assert files.of(MAY).state == FileState.RUNNING, "the result of the older run ends nothing"
    files.commit_batch(files.claim(GOLD, MAY))
    assert files.of(MAY).state == FileState.DONE


@pytest.mark.services
def test_files_refused_or_in_silver_alone_or_put_anew_are_left_alone(files: Files) -> None:
    files.put(MAY, JUNE, GREEN)
    files.pass_through(MAY, layers=(SILVER,), refused=Reason.NO_ROWS)
    files.pass_through(JUNE, layers=(SILVER,), depth=SILVER)
    files.pass_through(GREEN)
    files.put(GREEN)
    files.zones()
    assert files.to_gold() == []
    assert files.of(GREEN).state == FileState.RECEIVED


@pytest.mark.services
def test_deleted_file_whose_rows_were_kept_goes_once_more_since_gold_needs_silver_alone(files: Files) -> None:
    files.put(MAY)
    files.pass_through(MAY)
    files.tell(removal(MAY, "FF"))
    files.zones()
    assert [item.key for item in files.to_gold()] == [MAY]
    files.commit_batch(files.claim(GOLD, MAY))
    assert files.of(MAY).state == FileState.DONE


@pytest.mark.services
def test_refresh_that_nobody_took_is_sent_again_to_gold_and_is_no_work_of_silver(files: Files) -> None:
    files.put(MAY)
    files.pass_through(MAY)
    files.zones()
    assert files.ledger.waiting() == {("nyc_yellow", GOLD): 1}
    files.sent.clear()
    assert standing(files) == [(Finding.WORK_NOT_TAKEN, f"bronze/{MAY}")]
    assert files.work(SILVER) == []
    (again,) = files.to_gold()
    assert (again.key, again.cause, again.depth, again.rows) == (MAY, again.version, GOLD, 10)
    files.commit_batch(files.claim(GOLD, MAY))
    assert standing(files) == []


@pytest.mark.services
def test_refresh_of_a_file_of_a_set_waits_for_no_set_and_keeps_the_set_complete(ledger: Ledger, tmp_path: Path) -> None:
    contracts = write_contract(tmp_path)
    files = Files(ledger, contracts)
    folder = "nyc_yellow/2025/"
    files.drop("a", "b")
    files.pass_through(f"{folder}a.parquet", f"{folder}b.parquet", layers=(SILVER,))
    files.list_files(a=10, b=10)
    files.pass_through(f"{folder}a.parquet", f"{folder}b.parquet", layers=(GOLD,))
    files.zones()
    assert sorted(item.key for item in files.to_gold()) == [f"{folder}a.parquet", f"{folder}b.parquet"]
    files.tell(files.event("manifest.json", listing(a=10, b=10)))
    assert files.story("manifest.json").detail is None, "refreshed files count"
    assert len(files.work(GOLD)) == 4
    files.sent.clear()
    standing(files, contracts=contracts)
    assert len(files.to_gold()) == len(files.work(GOLD)) == 2


@pytest.mark.services
def test_many_files_go_in_pieces_each_of_which_kafka_has_before_the_next(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "REFRESHED_AT_ONCE", 2)
    keys = [f"nyc_yellow/{number}.parquet" for number in range(5)]
    files.put(*keys)
    files.pass_through(*keys)
    flushes: list[int] = []
    flush = files.flush
    monkeypatch.setattr(files, "flush", lambda: (flushes.append(len(files._unsent)), flush()))
    files.zones()
    assert sorted(item.key for item in files.to_gold()) == keys
    # Green has none; then the poll's own flush, of nothing; before them, that of the reference's own work.
    assert flushes == [1, 0, 1, 1, 1, 0]


class Killed(BaseException):
    """As a SIGKILL: nothing of the process goes on."""


class KilledFiles(Files):
    """Killed at one step of the ledger, the store or Kafka."""

    def __init__(self, whole: Files, kill_at: int) -> None:
        self.kill_at, self.steps, self.moved = 0, 0, False
        super().__init__(whole.ledger, DATASETS)
        self.real, self.ledger = self.ledger, self  # type: ignore[assignment]
        self.objects, self.sent, self._numbers = whole.objects, whole.sent, whole._numbers
        self.router, self.kill_at = self.start(DATASETS), kill_at

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.real, name)

        def between_steps(*arguments: Any, **named: Any) -> Any:
            self._step()
            answer = method(*arguments, **named)
            self._step()
            return answer

        return between_steps

    def flush(self) -> None:
        for sent in self._unsent:
            self._step()
            self.sent.append(sent)
        self._unsent = []
        self._step()

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._step()
        assert {item.key for item in self.to_gold()} == {GREEN, MAY, JUNE}, "durable before the offset moves"
        self.moved = True


@pytest.mark.services
def test_router_killed_between_any_two_steps_takes_every_file_to_gold_once_more(
    emptied: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "REFRESHED_AT_ONCE", 1)
    for kill_at in itertools.count(1):
        assert kill_at < 100
        whole = Files(emptied(), DATASETS)
        whole.put(MAY, JUNE, GREEN)
        whole.pass_through(MAY, JUNE)
        whole.pass_through(GREEN)
        event = whole.zones(tell=False)
        killed = KilledFiles(whole, kill_at)
        try:
            killed.tell(event)
        except Killed:
            killed.tell(event, router=killed.start(DATASETS))
        assert killed.moved
        sent = {(item.key, item.version) for item in whole.to_gold()}
        assert {key for key, _ in sent} == {GREEN, MAY, JUNE}
        assert len(sent) == 3, "a repeat is the same work"
        hops = [passage.hop for passage in whole.of(MAY).timeline if passage.hop == Hop.REPLAYED]
        assert (whole.of(MAY).state, hops) == (FileState.RUNNING, [Hop.REPLAYED])
        if killed.steps < kill_at:
            break
    assert kill_at > 15
