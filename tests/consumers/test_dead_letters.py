"""Dead letters: how they are made and read, which a command takes, what is sent again."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from consumers.broker import Record
from consumers.dead_letters import (
    MAX_VALUE_BYTES,
    DeadLetter,
    Filed,
    Filter,
    LetterState,
    Settled,
    chosen,
    dead_letter,
    make_letter,
    read_letter,
    redrive,
    refuse_settled,
)
from consumers.headers import ATTEMPT, REDRIVEN_FROM, origin, text_headers
from contracts.errors import BadEvent, UsageError
from contracts.states import Reason
from tests.consumers.samples import NOON, message

BIG = b"x" * (MAX_VALUE_BYTES + 1)


def letter(value: bytes | None = b"value", topic: str = "lake.bronze.events", **changes: object) -> DeadLetter:
    return dead_letter(message(value, offset=7, topic=topic), BadEvent("why"), NOON).model_copy(update=changes)


def filed_in_dlq(value: bytes) -> Record:
    return message(value, offset=3, topic="lake.dlq")


def test_letter_of_an_original_is_its_first_attempt_and_survives_json() -> None:
    made = letter()
    assert (made.reason, made.detail, made.redriven_from, made.attempt) == ("bad_event", "why", None, 1)
    assert read_letter(filed_in_dlq(made.model_dump_json().encode()), NOON) == made


def test_letter_written_before_there_were_attempts_can_still_be_read() -> None:
    fields = json.loads(letter().model_dump_json())
    del fields["redriven_from"], fields["attempt"]
    assert read_letter(filed_in_dlq(json.dumps(fields).encode()), NOON) == letter()


def test_letter_of_a_redriven_message_tells_where_it_came_from() -> None:
    headers = text_headers([(REDRIVEN_FROM, b"12"), (ATTEMPT, b"3")])
    record = Record("lake.bronze.events", 0, 7, NOON, None, b"value", headers)
    made = make_letter(record, "bad_event", "why", NOON)
    assert (made.redriven_from, made.attempt, made.key) == (12, 3, None)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (None, (None, 1)),
        ([], (None, 1)),
        ([("other", b"1")], (None, 1)),
        ([(ATTEMPT, b"9")], (None, 1)),
        ([(REDRIVEN_FROM, b"0"), (ATTEMPT, b"2")], (0, 2)),
        ([(REDRIVEN_FROM, b"5")], (5, 2)),
        ([(REDRIVEN_FROM, b"5"), (ATTEMPT, b"0")], (5, 2)),
        ([(REDRIVEN_FROM, b"-1"), (ATTEMPT, b"2")], (None, 1)),
        ([(REDRIVEN_FROM, None)], (None, 1)),
        ([(REDRIVEN_FROM, b"\xff")], (None, 1)),
        ([(REDRIVEN_FROM, "٣".encode())], (None, 1)),
        ([(REDRIVEN_FROM, b"9" * 5_000)], (None, 1)),
    ],
    ids=str,
)
def test_headers_that_are_not_ours_count_as_none(pairs: object, expected: tuple[int | None, int]) -> None:
    assert origin(text_headers(pairs)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"not json",
        b"[]",
        b'{"reason": "x"}',
        b"[" * 100_000,
        b'"\\ud800"',
        letter(offset=-1).model_dump_json().encode(),
        letter().model_dump_json().replace("dmFsdWU=", "no base64!").encode(),
    ],
    ids=["empty", "text", "list", "half", "deep", "surrogate", "negative-offset", "not-base64"],
)
def test_message_that_is_no_dead_letter_is_shown_as_one_of_itself(value: bytes) -> None:
    found = read_letter(filed_in_dlq(value), NOON)
    assert (found.place, found.reason, found.content) == ("lake.dlq[0]@3", "bad_work", value[:MAX_VALUE_BYTES])
    with pytest.raises(UsageError, match="nothing is redriven to"):
        redrive(3, found)


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (Filter(), [0, 2]),
        (Filter(reason="bad_event"), [0]),
        (Filter(topic="lake.silver.work"), [2]),
        (Filter(reason="bad_event", topic="lake.silver.work"), []),
        (Filter(since=NOON), [0, 2]),
        (Filter(since=NOON + timedelta(seconds=1)), [2]),
    ],
    ids=str,
)
def test_open_letters_are_chosen_by_reason_topic_and_time(only: Filter, expected: list[int]) -> None:
    late = {"reason": str(Reason.UNKNOWN_DATASET), "at": NOON + timedelta(minutes=1)}
    letters = [(0, letter()), (1, letter()), (2, letter(topic="lake.silver.work", **late))]
    settled = {1: Settled(LetterState.DISCARDED, NOON)}
    assert [filed.id for filed in chosen(letters, settled, only)] == expected


def test_settled_letters_are_chosen_on_demand_and_say_their_state() -> None:
    settled = {1: Settled(LetterState.REDRIVEN, NOON)}
    found = list(chosen([(0, letter()), (1, letter())], settled, Filter(), with_settled=True))
    assert [filed.state for filed in found] == [LetterState.OPEN, LetterState.REDRIVEN]


def test_settled_letter_is_refused_with_its_fate() -> None:
    refuse_settled(Filed(1, letter()))
    with pytest.raises(UsageError, match="Dead letter 1 was discarded at 2025-01-02T12:00:00"):
        refuse_settled(Filed(1, letter(), Settled(LetterState.DISCARDED, NOON)))


def test_redriven_message_is_the_original_and_counts_its_attempts() -> None:
    sent = redrive(9, letter(b"\xff\x00 value", attempt=2))
    assert (sent.topic, sent.key, sent.value) == ("lake.bronze.events", "bronze/key", b"\xff\x00 value")
    assert origin(sent.headers) == (9, 3)


def test_empty_message_is_redriven_as_it_was() -> None:
    assert redrive(9, letter(b"")).value == b""


def test_cut_message_is_redriven_whole() -> None:
    assert redrive(9, letter(BIG), BIG).value == BIG


@pytest.mark.parametrize(
    "held", [None, b"", BIG[:-1], b"y" + BIG], ids=["gone", "tombstone", "no-longer", "another-message"]
)
def test_cut_message_that_kafka_lost_is_refused(held: bytes | None) -> None:
    with pytest.raises(UsageError, match=r"no longer holds the whole one at lake\.bronze\.events\[0\]@7"):
        redrive(9, letter(BIG), held)


def test_message_without_a_value_can_only_be_discarded() -> None:
    with pytest.raises(UsageError, match="without a value"):
        redrive(9, letter(None))


def test_letter_cannot_have_its_message_sent_to_a_topic_of_its_choice() -> None:
    with pytest.raises(UsageError, match="nothing is redriven to"):
        redrive(9, letter(topic="__consumer_offsets"))


def test_letter_is_small_enough_for_kafka_whatever_was_said_of_whatever_key() -> None:
    record = Record("lake.bronze.events", 0, 7, NOON, b"\xff" * 300_000, BIG, {})
    made = make_letter(record, "bad_event", "why" * 300_000, NOON)
    assert len(made.model_dump_json().encode()) < 200_000
    assert made.detail.startswith("whywhy")
    assert (made.key or "").startswith("\\xff\\xff")
