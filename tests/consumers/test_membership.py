"""The router's membership of its Kafka group, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.coordinator.consumer import ConsumerCoordinator

from consumers import broker
from consumers.broker import Consumer, Producer, Record, client_options, ensure_topics
from consumers.topics import EVENT_TOPICS, PARTITIONS, ROUTER_GROUP
from contracts.errors import ServiceUnavailable
from contracts.settings import KafkaLogin
from tests.servers import running_kafka, settings_in

pytestmark = pytest.mark.services

LIMIT_SECONDS = 60.0


@pytest.fixture
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaLogin]:
    """Login of a broker with our topics and a message in one of them."""
    settings = settings_in(tmp_path_factory.mktemp("kafka"))
    with running_kafka(settings):
        admin = settings.kafka_login("admin")
        ensure_topics(admin, dict.fromkeys(PARTITIONS, 1))
        producer = Producer(admin)
        producer.send(EVENT_TOPICS[0], None, b"waits")
        producer.flush()
        producer.close()
        yield admin


def read(consumer: Consumer) -> list[Record]:
    """What comes first."""
    limit = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < limit:
        if found := consumer.poll(250, 10):
            return found
    raise AssertionError(f"nothing came within {LIMIT_SECONDS} s")


def test_reader_that_is_stuck_on_its_way_into_the_group_says_so_and_the_next_one_reads(
    login: KafkaLogin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "JOIN_SECONDS", LIMIT_SECONDS)
    stuck = Consumer(login, ROUTER_GROUP, EVENT_TOPICS)
    assert [record.value for record in read(stuck)] == [b"waits"]
    with monkeypatch.context() as patch:
        patch.setattr(broker, "JOIN_SECONDS", 4.0)
        patch.setattr(ConsumerCoordinator, "_perform_assignment", slowly(ConsumerCoordinator._perform_assignment))
        more_partitions(login)
        stuck._consumer._cluster.request_update()
        with pytest.raises(ServiceUnavailable, match="on its way into its Kafka group"):
            read(stuck)
    stuck.close()
    consumer = Consumer(login, ROUTER_GROUP, EVENT_TOPICS)
    assert [record.value for record in read(consumer)] == [b"waits"]
    consumer.close()


def slowly(assign: Callable[..., Any]) -> Callable[..., Any]:
    """As on a machine that is so busy that a poll ends while the leader has done its half of a rebalance."""

    def wrapper(*arguments: Any) -> Any:
        made = assign(*arguments)
        time.sleep(0.5)
        return made

    return wrapper


def more_partitions(login: KafkaLogin) -> None:
    """Give the first topic one more partition: metadata that begin a rebalance."""
    admin = KafkaAdminClient(**client_options(login))
    admin.create_partitions({EVENT_TOPICS[0]: PARTITIONS[EVENT_TOPICS[0]] + 1})
    admin.close()
