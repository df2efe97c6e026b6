"""Which files of a set go on to gold."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.completeness import Due, KnownSet, Listed, Outcome, Place, place_of, standing, weigh
from consumers.routing import Work
from contracts.dataset import Completeness
from contracts.states import FileState, Hop, Layer, Reason
from contracts.work import WorkItem
from tests.consumers.samples import NOON

PLACE = Place("bronze", "trips/2025/")
RULES = Completeness(time_limit=timedelta(hours=6), on_time_limit="release")
A = Listed("trips/2025/a", 10, FileState.RUNNING, rows_in=10)
B = Listed("trips/2025/b", 1000)
IN_TIME, TOO_LATE = NOON + timedelta(hours=5), NOON + timedelta(hours=6)


def due(name: str = "a", **change: Any) -> Due:
    item = WorkItem(bucket="bronze", key=PLACE.folder + name, etag="e", version="1", cause="1")
    return replace(Due(Work("trips", item), detail=None, since=NOON, released=False, newest=True), **change)


def names(works: tuple[Work, ...]) -> list[str]:
    return [work.item.key.removeprefix(PLACE.folder) for work in works]


def test_set_of_a_key_is_its_folder() -> None:
    assert place_of("bronze", "trips/2025/a.parquet") == PLACE
    assert PLACE.dataset == place_of("bronze", "trips/a.parquet").dataset == "trips"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"state": FileState.DONE}, None),
        ({"rows": None, "rows_in": 3}, None),
        ({"state": None, "rows_in": None}, "has not arrived"),
        ({"removed": True}, "was deleted"),
        ({"state": FileState.RECEIVED, "rows_in": None}, "is not in silver yet"),
        ({"state": FileState.RUNNING, "rows_in": None}, "is not in silver yet"),
        ({"rows": 1000, "rows_in": 990}, "990 rows came, 1,000 are listed"),
        ({"rows": 1, "rows_in": 0}, "0 rows came, 1 are listed"),
        ({"state": FileState.QUARANTINED, "reason": Reason.NOT_PARQUET}, "is quarantined (not_parquet)"),
        ({"state": FileState.IGNORED, "reason": Reason.OBJECT_GONE}, "is ignored (object_gone)"),
    ],
)
def test_listed_file_counts_when_it_is_in_silver_with_its_rows(change: dict[str, Any], why: str | None) -> None:
    found = standing([replace(A, **change)])
    assert found.missing == ((("a", why),) if why else ())
    assert found.complete == (why is None)


def test_sentence_names_what_is_missing_and_counts_what_it_does_not_name() -> None:
    wrong = replace(A, key="trips/2025/c", rows=1000, rows_in=990)
    assert str(standing([A, B, wrong])) == (
        "waiting for 2 of 3 files: b (has not arrived), c (990 rows came, 1,000 are listed)"
    )
    many = str(standing([Listed(f"t/{number}", None) for number in range(1025)]))
    assert many.startswith("waiting for 1,025 of 1,025 files: 0 (has not arrived)")
    assert many.endswith("19 (has not arrived) and 1,005 more")


def test_complete_set_goes_on_and_only_files_that_waited_tell_so() -> None:
    known = KnownSet((A, replace(A, key=PLACE.folder + "b")), (due("a", detail="waiting"), due("b")))
    outcome = weigh(PLACE, RULES, known)
    assert names(outcome.released) == ["a", "b"]
    assert [(c.hop, c.released, c.detail) for c in outcome.changes] == [(Hop.RELEASED, True, None), (None, True, None)]
    assert outcome.note is None


def test_incomplete_set_waits_and_a_file_tells_once_that_it_is_held() -> None:
    known = KnownSet((A, B), (due("a"),))
    outcome = weigh(PLACE, RULES, known)
    sentence = "waiting for 1 of 2 files: b (has not arrived)"
    assert outcome.released == ()
    assert [(c.hop, c.detail) for c in outcome.changes] == [(Hop.HELD, sentence)]
    assert outcome.note == sentence
    later = weigh(PLACE, RULES, replace(known, due=(due("a", detail="waiting for more"),)))
    assert [(c.hop, c.detail) for c in later.changes] == [(None, sentence)]
    assert weigh(PLACE, RULES, replace(known, due=(due("a", detail=sentence),))).changes == ()


def test_files_without_manifest_wait_for_it() -> None:
    (change,) = weigh(PLACE, RULES, KnownSet(None, (due(),))).changes
    assert change.detail == "waiting for trips/2025/manifest.json"


def test_file_that_is_not_listed_waits_though_the_set_is_complete() -> None:
    outcome = weigh(PLACE, RULES, KnownSet((A,), (due("a"), due("x"))))
    assert names(outcome.released) == ["a"]
    assert outcome.changes[-1].detail == "waiting, as it is not listed in trips/2025/manifest.json"


def test_version_that_was_replaced_while_it_waited_never_goes_to_gold() -> None:
    for listed in (None, (A,), (A, B)):
        outcome = weigh(PLACE, RULES, KnownSet(listed, (due("a", newest=False),)), TOO_LATE)
        assert outcome.released == ()
        assert [(c.state, c.reason) for c in outcome.changes] == [(FileState.IGNORED, Reason.SUPERSEDED)]


def test_released_work_is_handed_on_again_and_not_held_whatever_became_of_the_set() -> None:
    outcome = weigh(PLACE, RULES, KnownSet((A, B), (due("a", released=True),)), TOO_LATE)
    assert (names(outcome.again), outcome.released, outcome.changes, outcome.timed_out) == (["a"], (), (), False)


@pytest.mark.parametrize(("now", "over"), [(None, False), (IN_TIME, False), (TOO_LATE, True)])
def test_time_limit_counts_from_the_file_that_waits_longest(now: Any, over: bool) -> None:
    known = KnownSet((A, B), (due("a"), due("x", since=IN_TIME)))
    outcome = weigh(PLACE, RULES, known, now)
    assert outcome.timed_out is over
    assert names(outcome.released) == (["a", "x"] if over else [])


def test_time_limit_releases_with_what_was_missing_in_the_history() -> None:
    known = KnownSet((A, B), (due("a", detail="waiting"), due("x", detail="waiting")))
    assert [(c.hop, c.told) for c in weigh(PLACE, RULES, known, TOO_LATE).changes] == [
        (Hop.RELEASED, "after 6:00:00, though waiting for 1 of 2 files: b (has not arrived)"),
        (Hop.RELEASED, "after 6:00:00, though waiting, as it is not listed in trips/2025/manifest.json"),
    ]


def test_time_limit_quarantines_with_what_was_missing() -> None:
    rules = RULES.model_copy(update={"on_time_limit": "quarantine"})
    outcome = weigh(PLACE, rules, KnownSet((A, B), (due("a"),)), TOO_LATE)
    assert (outcome.released, outcome.timed_out) == ((), True)
    (change,) = outcome.changes
    assert (change.state, change.reason) == (FileState.QUARANTINED, Reason.SET_INCOMPLETE)
    assert change.detail == "After 6:00:00 still waiting for 1 of 2 files: b (has not arrived)."


LISTED = st.builds(
    Listed,
    key=st.sampled_from("abc").map(PLACE.folder.__add__),
    rows=st.sampled_from([None, 1, 2]),
    state=st.none() | st.sampled_from(FileState),
    removed=st.booleans(),
    rows_in=st.sampled_from([None, 1, 2]),
)
DUE = st.builds(
    due,
    st.sampled_from("abcx"),
    detail=st.sampled_from([None, "waiting"]),
    released=st.booleans(),
    newest=st.booleans(),
)


@given(
    st.none() | st.lists(LISTED, min_size=1, unique_by=lambda file: file.key).map(tuple),
    st.lists(DUE, unique_by=lambda file: file.work.item.key).map(tuple),
    st.sampled_from([None, IN_TIME, TOO_LATE]),
    st.sampled_from(["release", "quarantine"]),
)
def test_every_due_file_has_one_fate_and_a_second_look_changes_nothing(
    listed: tuple[Listed, ...] | None, files: tuple[Due, ...], now: Any, on_time_limit: Any
) -> None:
    rules = RULES.model_copy(update={"on_time_limit": on_time_limit})
    first = weigh(PLACE, rules, KnownSet(listed, files), now)
    changed = {change.work.item.key: change for change in first.changes}
    assert len(changed) == len(first.changes)
    again = [
        replace(file, detail=change.detail, released=change.released)
        for file in files
        if (change := changed.get(file.work.item.key)) and change.state is FileState.RUNNING
    ]
    again += [file for file in files if file.work.item.key not in changed]
    second: Outcome = weigh(PLACE, rules, KnownSet(listed, tuple(again)), now)
    assert (second.released, second.changes) == ((), ())
    assert {work.item.key for work in second.again} == {work.item.key for work in (*first.released, *first.again)}
    assert all(work.item.depth == Layer.GOLD for work in second.again)
