"""Edge: the listener's Kafka consumer and dead-letter producer, made by the Kafka provider's hooks."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow.providers.apache.kafka.hooks.consume import KafkaConsumerHook
from airflow.providers.apache.kafka.hooks.produce import KafkaProducerHook
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from consumers.dead_letters import MAX_TEXT, make_letter
from consumers.headers import text_headers
from contracts.errors import ServiceUnavailable

log = logging.getLogger(__name__)

READ_AT_MOST = 500
_CONSUMER_ONLY = (
    "group.id",
    "enable.auto.commit",
    "auto.offset.reset",
    "session.timeout.ms",
    "heartbeat.interval.ms",
)


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message with its place."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """`topic[partition]@offset`, for logs."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


class GroupConsumerHook(KafkaConsumerHook):
    """The provider's consumer hook with a group of its own, so that one connection serves every listener."""

    def __init__(self, topics: list[str], kafka_config_id: str, group: str) -> None:
        super().__init__(topics=topics, kafka_config_id=kafka_config_id)
        self.group = group

    def _get_client(self, config: dict[str, Any]) -> Consumer:
        return super()._get_client({**config, "group.id": self.group, "enable.auto.commit": False})


class PlainProducerHook(KafkaProducerHook):
    """The provider's producer hook without the connection's consumer settings, idempotent and acknowledged by all."""

    def _get_client(self, config: dict[str, Any]) -> Producer:
        plain = {name: value for name, value in config.items() if name not in _CONSUMER_ONLY}
        return super()._get_client({**plain, "enable.idempotence": True, "delivery.timeout.ms": 10_000})


class WorkTopic:
    """A consumer of one topic. Not safe for threads: call it from one thread only."""

    def __init__(self, topic: str, connection_id: str, group: str) -> None:
        self._consumer = GroupConsumerHook([topic], connection_id, group).get_consumer()
        self._held: frozenset[int] = frozenset()

    def read(self, timeout: float) -> list[Message]:
        """Wait up to `timeout` seconds for a message, then take along what is there already.

        Raises:
            ServiceUnavailable: the client gave up for good; a new consumer is needed.
        """
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        return [
            Message(raw.topic(), raw.partition(), raw.offset(), raw.value(), raw.key(), text_headers(raw.headers()))
            for raw in (first, *self._consumer.consume(READ_AT_MOST, 0))
            if not self._is_error(raw)
        ]

    def hold(self, partitions: Collection[int]) -> None:
        """Fetch nothing of some partitions, and of the others as always, while `read` keeps the membership alive."""
        if not partitions and not self._held:
            return
        own = self._consumer.assignment()
        # Said anew each time: a partition that went away and came back is fetched from again.
        if paused := [place for place in own if place.partition in partitions]:
            self._consumer.pause(paused)
        if free := [place for place in own if place.partition in self._held and place.partition not in partitions]:
            self._consumer.resume(free)
        self._held = frozenset(partitions)

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Commit the next offsets to read. False when the group refused: their messages come again."""
        places = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            log.warning("Offsets %s stay uncommitted (%s); their messages come again.", dict(offsets), error)
            return False
        return True

    def close(self) -> None:
        """Leave the group, so that the next member gets the partitions at once."""
        self._consumer.close()

    @staticmethod
    def _is_error(raw: Any) -> bool:
        error = raw.error()
        if error is None:
            return False
        if error.fatal():
            raise ServiceUnavailable(f"The Kafka consumer gave up: {error}.")
        log.warning("Kafka reports for %s[%s]: %s", raw.topic(), raw.partition(), error)
        return True


class DeadLetters:
    """Writes what nobody can process to the dead-letter topic."""

    def __init__(self, topic: str, connection_id: str) -> None:
        self._topic = topic
        self._producer = PlainProducerHook(connection_id).get_producer()

    def send(self, message: Message, reason: str, detail: str) -> None:
        """Write one message with its reason; it is durable on return.

        Raises:
            ServiceUnavailable: Kafka did not acknowledge it.
        """
        failures: list[str] = []
        letter = make_letter(message, reason, detail, datetime.now(UTC))
        self._producer.produce(
            self._topic,
            value=letter.model_dump_json().encode(),
            key=None if message.key is None else message.key[:MAX_TEXT],
            headers=letter.headers,
            on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        )
        if self._producer.flush(15) or failures:
            raise ServiceUnavailable(f"Kafka did not take the dead letter of {message.place}: {failures}.")
