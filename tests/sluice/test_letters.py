"""The commands on dead letters, with fakes in place of Kafka and the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from consumers.broker import Record
from consumers.dead_letters import MAX_VALUE_BYTES, DeadLetter, Filter, LetterState, Settled, dead_letter
from consumers.headers import origin
from contracts.errors import BadEvent, BadWork, ServiceUnavailable, UsageError
from sluice import letters as module
from sluice.letters import DeadLetterBox, filter_of
from tests.consumers.samples import NOON, message

EVENTS = "lake.bronze.events"
BIG = b"x" * (MAX_VALUE_BYTES + 1)
ALL = Filter()
BAD = Filter(reason="bad_event")


class Servers:
    """Kafka and the ledger at once, writing down in one list what happened in which order."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {"lake.dlq": [], EVENTS: []}
        self.settled: dict[int, Settled] = {}
        self.unsent: list[tuple[str, str | None, bytes, dict[str, str]]] = []
        self.sent: list[tuple[str, str | None, bytes, dict[str, str]]] = []
        self.order: list[str] = []
        self.read_from: list[int] = []
        self.down = ""
        self.too_large = b""

    def file(self, letter: DeadLetter) -> None:
        offset = len(self.topics["lake.dlq"])
        self.topics["lake.dlq"].append(message(letter.model_dump_json().encode(), offset, "lake.dlq"))

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.topics[topic])

    def offset_since(self, topic: str, partition: int, moment: datetime) -> int | None:
        return 1 if moment <= NOON + timedelta(hours=1) else None

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        self.read_from.append(start)
        return iter(self.topics[topic][start:end])

    def send(self, topic: str, key: str | None, value: bytes, headers: dict[str, str]) -> None:
        if value == self.too_large:
            raise BadWork("too large")
        self.unsent.append((topic, key, value, headers))

    def flush(self) -> None:
        if self.down == "flush":
            raise ServiceUnavailable("down")
        self.order.append("flush")
        self.sent += self.unsent
        self.unsent = []

    def first_open_letter(self) -> int:
        return next(n for n in range(1_000) if n not in self.settled)

    def settled_letters(self, start: int, end: int) -> dict[int, Settled]:
        return {n: settled for n, settled in self.settled.items() if start <= n < end}

    def settle_letters(self, ids: Iterable[int], state: LetterState) -> None:
        self.order.append(str(state))
        self.settled = {**dict.fromkeys(ids, Settled(state, NOON)), **self.settled}

    def states(self) -> dict[int, str]:
        return {n: str(settled.state) for n, settled in self.settled.items()}


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def box(servers: Servers) -> DeadLetterBox:
    fake: Any = servers
    return DeadLetterBox(fake, fake, fake, fake)


def letter(value: bytes | None = b"value", offset: int = 0, **changes: object) -> DeadLetter:
    return dead_letter(message(value, offset), BadEvent("why"), NOON).model_copy(update=changes)


def test_ledger_closes_a_letter_only_after_kafka_holds_its_message(box: DeadLetterBox, servers: Servers) -> None:
    servers.file(letter())
    outcome = box.redrive([0], ALL)
    assert (outcome.done, outcome.left) == ([0], {})
    assert servers.order == ["flush", "redriven"]
    ((topic, key, value, headers),) = servers.sent
    assert (topic, key, value, origin(headers)) == (EVENTS, "bronze/key", b"value", (0, 2))


def test_letter_stays_open_when_kafka_does_not_take_its_message(box: DeadLetterBox, servers: Servers) -> None:
    servers.file(letter())
    servers.down = "flush"
    with pytest.raises(ServiceUnavailable):
        box.redrive([0], ALL)
    assert servers.settled == {}


def test_filter_takes_all_that_are_open_in_several_rounds(
    box: DeadLetterBox, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    for offset in range(5):
        servers.file(letter(offset=offset))
    servers.file(letter(reason="unknown_dataset"))
    servers.settle_letters([1], LetterState.DISCARDED)
    assert box.redrive([], BAD).done == [0, 2, 3, 4]
    assert servers.states() == {0: "redriven", 1: "discarded", 2: "redriven", 3: "redriven", 4: "redriven"}
    assert box.redrive([], BAD).done == []


def test_what_a_filter_takes_but_cannot_be_sent_stays_open_and_says_why(box: DeadLetterBox, servers: Servers) -> None:
    servers.too_large = b"huge"
    for value in (None, BIG, b"huge", b"value"):
        servers.file(letter(value, offset=9))
    outcome = box.redrive([], BAD)
    assert outcome.done == [3]
    assert set(outcome.left) == {0, 1, 2}
    assert servers.states() == {3: "redriven"}


@pytest.mark.parametrize("value", [None, BIG], ids=["tombstone", "cut-and-gone"])
def test_id_that_cannot_be_redriven_stops_all_but_can_be_discarded(
    box: DeadLetterBox, servers: Servers, value: bytes | None
) -> None:
    servers.file(letter())
    servers.file(letter(value, offset=9))
    with pytest.raises(UsageError, match="letter 1 "):
        box.redrive([0, 1], ALL)
    assert servers.sent == []
    assert box.discard([1], ALL).done == [1]
    assert servers.states() == {1: "discarded"}


def test_cut_message_is_read_whole_from_its_topic(box: DeadLetterBox, servers: Servers) -> None:
    servers.topics[EVENTS] = [message(b"other", 0), message(BIG, 1)]
    servers.file(letter(BIG, offset=1))
    assert box.redrive([0], ALL).done == [0]
    assert servers.sent[0][2] == BIG


@pytest.mark.parametrize("command", ["redrive", "discard"])
def test_settled_or_unknown_letter_is_refused_and_nothing_is_done(
    box: DeadLetterBox, servers: Servers, command: str
) -> None:
    servers.file(letter())
    servers.file(letter())
    servers.settle_letters([1], LetterState.DISCARDED)
    for ids, what in (([0, 1], "1 was discarded"), ([0, 2], "no dead letter 2")):
        with pytest.raises(UsageError, match=what):
            getattr(box, command)(ids, ALL)
    assert servers.states() == {1: "discarded"}
    assert servers.sent == []


@pytest.mark.parametrize(("ids", "only"), [([], ALL), ([0], BAD)], ids=["neither", "both"])
def test_either_ids_or_a_filter_is_needed(box: DeadLetterBox, ids: list[int], only: Filter) -> None:
    for command in (box.redrive, box.discard):
        with pytest.raises(UsageError, match="by their ids, or"):
            command(ids, only)


def test_id_named_twice_is_sent_once(box: DeadLetterBox, servers: Servers) -> None:
    servers.file(letter())
    assert box.redrive([0, 0], ALL).done == [0]
    assert len(servers.sent) == 1


def test_list_begins_where_something_is_open(box: DeadLetterBox, servers: Servers) -> None:
    for _ in range(6):
        servers.file(letter())
    servers.settle_letters([0, 1, 2, 4], LetterState.DISCARDED)
    assert [filed.id for filed in box.matching(ALL)] == [3, 5]
    assert [filed.id for filed in box.matching(ALL, with_settled=True)] == list(range(6))
    assert [filed.id for filed in box.matching(Filter(since=NOON), with_settled=True)] == [1, 2, 3, 4, 5]
    assert servers.read_from == [3, 0, 1]
    assert list(box.matching(Filter(since=NOON + timedelta(days=1)))) == []


def test_topic_that_there_is_not_is_wrong_usage(box: DeadLetterBox) -> None:
    with pytest.raises(UsageError, match="No such topic"):
        box.matching(Filter(topic="lake.nothing"))


def test_chain_is_shown_in_both_directions(box: DeadLetterBox, servers: Servers) -> None:
    servers.file(letter())
    servers.file(letter(attempt=2, redriven_from=0))
    servers.file(letter())
    assert box.show(0).redriven_to == ()
    servers.settle_letters([0], LetterState.REDRIVEN)
    assert box.show(0).redriven_to == (1,)
    assert box.show(1).filed.letter.redriven_from == 0


def test_moment_without_a_zone_is_of_utc() -> None:
    assert filter_of(None, None, NOON.replace(tzinfo=None)) == Filter(since=NOON)
