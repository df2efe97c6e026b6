"""Reading ranges of a partition, from the broker in this process that librdkafka has for tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import confluent_kafka
import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndTimestamp

from consumers import broker
from consumers.broker import Reader
from contracts.errors import ServiceUnavailable
from contracts.settings import KafkaLogin

TOPIC = "lake.dlq"
MESSAGES = 5
LARGE = 900_000


@pytest.fixture(scope="module")
def login() -> Iterator[KafkaLogin]:
    """Login of a broker that asks nobody who they are and holds a few messages, the last of them large."""
    producer = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "made by the line before"})
    (server,) = producer.list_topics(timeout=10).brokers.values()
    for number in range(MESSAGES - 1):
        headers = {"sluice-attempt": b"2", "odd": b"\xff"}
        producer.produce(TOPIC, partition=0, key=b"key", value=b"%d" % number, headers=headers)
    producer.produce(TOPIC, partition=0, value=b"x" * LARGE)
    assert producer.flush(10) == 0
    yield KafkaLogin(bootstrap=f"{server.host}:{server.port}")
    del producer  # The broker ends with it.


@pytest.fixture
def reader(login: KafkaLogin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    # The broker for tests knows old requests only.
    monkeypatch.setattr(broker, "KafkaConsumer", partial(broker.KafkaConsumer, api_version=(1, 0, 0)))
    with Reader(login) as reader:
        yield reader


@pytest.mark.parametrize(
    ("start", "end", "offsets"),
    [
        pytest.param(0, 5, [0, 1, 2, 3, 4], id="all"),
        pytest.param(1, 3, [1, 2], id="in-between"),
        pytest.param(3, 10**30, [3, 4], id="end-beyond-the-last"),
        pytest.param(-7, 1, [0], id="start-before-the-first"),
        pytest.param(2, 2, [], id="nothing"),
        pytest.param(5, 6, [], id="not-there-yet"),
        pytest.param(10**30, 10**30 + 1, [], id="never"),
    ],
)
def test_range_gives_what_the_partition_holds_of_it_and_ends(
    reader: Reader, start: int, end: int, offsets: list[int]
) -> None:
    assert [record.offset for record in reader.read(TOPIC, 0, start, end)] == offsets


def test_record_has_its_headers_as_text_whatever_they_are(reader: Reader) -> None:
    first, last = reader.read(TOPIC, 0, 3, 5)
    assert (first.key, first.value, first.headers) == (b"key", b"3", {"sluice-attempt": "2", "odd": "\\xff"})
    assert (last.key, len(last.value or b""), last.headers) == (None, LARGE, {})


def test_next_range_is_right_after_one_that_was_not_read_to_its_end(reader: Reader) -> None:
    assert next(reader.read(TOPIC, 0, 0, 5)).offset == 0
    assert [record.offset for record in reader.read(TOPIC, 0, 2, 4)] == [2, 3]
    assert reader.bounds(TOPIC, 0) == (0, MESSAGES)


class FakeConsumer:
    """Answers when a message was written, which the broker for tests cannot."""

    def offsets_for_times(self, asked: dict[TopicPartition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        assert min(asked.values()) >= 0
        return {part: OffsetAndTimestamp(3, 2_000, -1) if moment <= 2_000 else None for part, moment in asked.items()}

    def close(self, **_: object) -> None: ...


@pytest.mark.parametrize(("seconds", "offset"), [(-10.0, 3), (1.5, 3), (2.0, 3), (2.001, None)])
def test_offset_since_a_moment_is_of_the_first_message_written_then_or_later(
    monkeypatch: pytest.MonkeyPatch, seconds: float, offset: int | None
) -> None:
    monkeypatch.setattr(broker, "KafkaConsumer", lambda **_: FakeConsumer())
    with Reader(KafkaLogin(bootstrap="nowhere")) as reader:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        assert reader.offset_since(TOPIC, 0, moment) == offset


def test_no_broker_is_service_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "BOOTSTRAP_MS", 200)
    with pytest.raises(ServiceUnavailable):
        Reader(KafkaLogin(bootstrap="127.0.0.1:1"))
