"""The listener's dead letters, with a fake in place of its Kafka producer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from sluice_listener import topic as module
from sluice_listener.topic import DeadLetters, Message, WorkTopic

from consumers.dead_letters import DeadLetter
from contracts.errors import ServiceUnavailable


class FakeKafka:
    """Producer, consumer and their hooks at once."""

    def __init__(self, *_: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.waiting: list[Any] = []
        self.error: str | None = None
        self.own = [0, 1, 2]
        self.paused: set[int] = set()

    def get_producer(self) -> FakeKafka:
        return self

    get_consumer = get_producer

    def produce(self, topic: str, on_delivery: Callable[..., None], **message: Any) -> None:
        self.sent.append({"topic": topic, **message})
        on_delivery(self.error, None)

    def flush(self, timeout: float) -> int:
        return 0

    def poll(self, timeout: float) -> Any:
        return self.waiting.pop(0) if self.waiting else None

    def consume(self, most: int, timeout: float) -> list[Any]:
        found, self.waiting = self.waiting, []
        return found

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("lake.bronze.work", partition) for partition in self.own]

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}


class Raw:
    """A message as confluent-kafka gives it."""

    def __init__(self, headers: list[tuple[str, bytes]] | None) -> None:
        self._headers = headers

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._headers

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "lake.bronze.work"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return 2

    def key(self) -> bytes:
        return b"key"

    value = key


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()
    monkeypatch.setattr(module, "PlainProducerHook", lambda *_: fake)
    monkeypatch.setattr(module, "GroupConsumerHook", lambda *_: fake)
    return fake


def test_dead_letter_of_a_redriven_work_message_keeps_its_history(kafka: FakeKafka) -> None:
    headers = {"sluice-redriven-from": "7", "sluice-attempt": "3"}
    message = Message("lake.bronze.work", 1, 2, b"\xff" * 70_000, b"nyc", headers)
    DeadLetters("lake.dlq", "kafka").send(message, "bad_work", "why")
    (sent,) = kafka.sent
    letter = DeadLetter.model_validate_json(sent["value"])
    assert (letter.place, letter.reason, letter.detail) == ("lake.bronze.work[1]@2", "bad_work", "why")
    assert (letter.redriven_from, letter.attempt) == (7, 3)
    assert (letter.key, letter.content, letter.value_cut) == ("nyc", b"\xff" * 65_536, True)
    assert sent["headers"] == {"reason": "bad_work", "source": "lake.bronze.work[1]@2"}
    assert sent["key"] == b"nyc"


def test_message_without_key_and_value_has_neither_in_its_dead_letter(kafka: FakeKafka) -> None:
    DeadLetters("lake.dlq", "kafka").send(Message("lake.bronze.work", 1, 2, None), "bad_work", "why")
    fields = json.loads(kafka.sent[0]["value"])
    assert (fields["key"], fields["value"], fields["value_cut"]) == (None, None, False)


def test_dead_letter_that_kafka_did_not_take_is_told(kafka: FakeKafka) -> None:
    kafka.error = "no space"
    with pytest.raises(ServiceUnavailable, match="no space"):
        DeadLetters("lake.dlq", "kafka").send(Message("lake.bronze.work", 1, 2, b"x"), "bad_work", "why")


def test_messages_are_read_with_their_headers(kafka: FakeKafka) -> None:
    kafka.waiting = [Raw(None), Raw([("sluice-attempt", b"2")])]
    read = WorkTopic("lake.bronze.work", "kafka", "group").read(0.1)
    assert [message.headers for message in read] == [{}, {"sluice-attempt": "2"}]


def test_only_partitions_that_are_to_wait_are_paused_and_again_when_they_come_back(kafka: FakeKafka) -> None:
    topic = WorkTopic("lake.bronze.work", "kafka", "group")
    topic.hold({1})
    assert kafka.paused == {1}
    # Another member had it meanwhile, so Kafka's client fetches it as if nothing had been said.
    kafka.paused, kafka.own = set(), [1]
    topic.hold({1, 2})
    assert kafka.paused == {1}
    topic.hold(set())
    assert kafka.paused == set()
