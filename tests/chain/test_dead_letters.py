"""Dead letters on the real servers, as users and their scripts see them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consumers.broker import Producer, Reader
from consumers.dead_letters import MAX_VALUE_BYTES
from consumers.topics import BRONZE_EVENTS
from tests.chain.conftest import WAIT_SECONDS
from tests.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

Send = Callable[[bytes], None]
Found = Callable[..., dict[str, Any]]


@pytest.fixture
def send(stack: Stack, unique: str) -> Iterator[Send]:
    """Write a message to the bronze events, with a key of the test's own."""
    producer = Producer(stack.settings.kafka_login("admin"))

    def write(value: bytes) -> None:
        producer.send(BRONZE_EVENTS, f"bronze/{unique}", value)
        producer.flush()

    yield write
    producer.close()


@pytest.fixture
def found(stack: Stack, unique: str) -> Found:
    """Wait for the test's open dead letter of an attempt, as the list shows it."""

    def look(attempt: int = 1) -> dict[str, Any]:
        limit = time.monotonic() + WAIT_SECONDS
        while True:
            for letter in stack.json("dlq", "list", "--reason", "bad_event", "--topic", BRONZE_EVENTS):
                if (letter["key"], letter["attempt"]) == (f"bronze/{unique}", attempt):
                    return dict(letter)
            assert time.monotonic() < limit, f"no dead letter of attempt {attempt}"
            time.sleep(0.5)

    return look


def test_message_that_is_no_event_is_listed_shown_and_discarded(stack: Stack, send: Send, found: Found) -> None:
    send(b"[bold]no event[/bold] \x1b[2J")
    letter = found()
    letter_id = str(letter["id"])
    assert (letter["state"], letter["topic"], letter["redriven_from"]) == ("open", BRONZE_EVENTS, None)

    shown = stack.json("dlq", "show", letter_id)
    assert shown["value"] == "[bold]no event[/bold] \x1b[2J"
    assert {**shown, **letter} == shown
    printed = stack.run("dlq", "show", letter_id).stdout
    assert "[bold]no event[/bold]" in printed
    assert "\x1b[2J" not in printed

    assert stack.json("dlq", "discard", letter_id) == {"discarded": [letter["id"]], "left": []}
    assert letter["id"] not in {item["id"] for item in stack.json("dlq", "list")}
    since = letter["at"].removesuffix("Z").partition(".")[0]
    states = {item["id"]: item["state"] for item in stack.json("dlq", "list", "--all", "--since", since)}
    assert states[letter["id"]] == "discarded"
    for command in ("redrive", "discard"):
        refused = stack.json("dlq", command, letter_id, code=2)
        assert "was discarded at" in refused["message"]


def test_cut_message_is_redriven_whole_and_comes_back_as_the_next_attempt(
    stack: Stack, send: Send, found: Found
) -> None:
    whole = b"no event " + b"x" * MAX_VALUE_BYTES
    send(whole)
    first = found()
    shown = stack.json("dlq", "show", str(first["id"]))
    assert (shown["value_cut"], shown["value"]) == (True, whole[:MAX_VALUE_BYTES].decode())

    assert stack.json("dlq", "redrive", str(first["id"])) == {"redriven": [first["id"]], "left": []}
    second = found(attempt=2)
    assert second["redriven_from"] == first["id"]
    assert second["offset"] != first["offset"] or second["partition"] != first["partition"]
    assert _whole(stack, second) == whole

    settled = stack.json("dlq", "show", str(first["id"]))
    assert (settled["state"], settled["redriven_to"]) == ("redriven", [second["id"]])
    assert "was redriven at" in stack.json("dlq", "redrive", str(first["id"]), code=2)["message"]
    stack.json("dlq", "discard", str(second["id"]))


def test_filter_discards_only_what_it_takes(stack: Stack, send: Send, found: Found) -> None:
    send(b"no event")
    letter = found()
    options = ["--reason", "unknown_dataset", "--since", letter["at"].removesuffix("Z").partition(".")[0]]
    stack.json("dlq", "discard", *options)
    assert found()["id"] == letter["id"]
    assert stack.json("dlq", "list", "--since", "2100-01-01") == []
    stack.json("dlq", "discard", str(letter["id"]))


def test_dead_letter_that_there_is_not_is_wrong_usage(stack: Stack) -> None:
    refused = stack.json("dlq", "show", "999999999999999999999", code=2)
    assert "There is no dead letter" in refused["message"]


def _whole(stack: Stack, letter: dict[str, Any]) -> bytes | None:
    """The message of a dead letter as its topic holds it."""
    with Reader(stack.settings.kafka_login("operator")) as reader:
        place = letter["topic"], letter["partition"], letter["offset"]
        (record,) = reader.read(*place, place[2] + 1)
    return record.value
