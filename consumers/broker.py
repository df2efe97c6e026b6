"""Edge: Kafka. The only import of kafka-python.

Every function and method raises `ServiceUnavailable` when the broker does not answer, or not yet, and
`BadWork` for a message that Kafka will never take.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    OffsetSpec,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    NoError,
    TopicAlreadyExistsError,
)
from kafka.structs import MemberState, OffsetAndMetadata
from pydantic import BaseModel, ConfigDict

from consumers.grants import GRANTS, Grant
from consumers.headers import text_headers
from consumers.topics import PARTITIONS
from contracts.errors import BadWork, ServiceUnavailable
from contracts.settings import KafkaLogin

# It warns at each connection that a password goes over the wire; the wire is the loopback address, or encrypted.
logging.getLogger("kafka.net.sasl.plain").setLevel(logging.ERROR)

BOOTSTRAP_MS = 5_000
FLUSH_SECONDS = 30.0
STALL_SECONDS = 30.0
"""Without any message of a range that Kafka says to hold."""
CLOSE_MS = 3_000
JOIN_SECONDS = 10.0
"""How long a member may be on its way into its group. A killed one's partitions pass on within 6 s."""
_RETENTION = "retention.ms"
_DAY_MS = 24 * 3600 * 1000
GRANTS_KNOWN = 20.0
"""Seconds that the broker has to learn of a change of who may do what."""


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka message."""

    topic: str
    partition: int
    offset: int
    at: datetime
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """`topic[partition]@offset`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


class TopicOverview(BaseModel):
    """A topic, and how far its readers are behind."""

    model_config = ConfigDict(frozen=True)

    topic: str
    partitions: int
    messages: int
    """Between the earliest and the latest offset."""
    lag: dict[str, int]
    """Consumer group -> messages that it has not committed."""


def client_options(login: KafkaLogin) -> dict[str, Any]:
    """What each of kafka-python's clients needs to reach the broker and to sign in; holds the password."""
    options: dict[str, Any] = {"bootstrap_servers": login.bootstrap, "bootstrap_timeout_ms": BOOTSTRAP_MS}
    if login.ca_file is not None:
        options |= {"security_protocol": "SSL", "ssl_cafile": str(login.ca_file)}
    if login.user is None:
        return options
    return options | {
        "security_protocol": login.protocol,
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": login.user,
        "sasl_plain_password": login.password.get_secret_value(),
    }


class Producer:
    """Sends messages; they are durable once `flush` has returned. Connects at the first message.

    After a failure it starts anew at the next message, since an idempotent producer may not recover by itself.
    """

    def __init__(self, login: KafkaLogin) -> None:
        self._login = login
        self._producer: Any = None
        self._sent: list[Any] = []

    def send(self, topic: str, key: str | None, value: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Queue one message."""
        encoded = [(name, text.encode()) for name, text in (headers or {}).items()]
        with self._restarting():
            if self._producer is None:
                self._producer = self._connect()
            name = None if key is None else key.encode()
            self._sent.append(self._producer.send(topic, key=name, value=value, headers=encoded))

    def flush(self) -> None:
        """Wait until Kafka holds every message sent since the last call; forget them if it does not."""
        sent, self._sent = self._sent, []
        if self._producer is None:
            return
        with self._restarting():
            self._producer.flush(timeout=FLUSH_SECONDS)
            for future in sent:
                future.get(timeout=0)

    def close(self) -> None:
        """Close the connection; what was not flushed may be lost."""
        producer, self._producer, self._sent = self._producer, None, []
        if producer is not None:
            producer.close(timeout=CLOSE_MS / 1000)

    @contextmanager
    def _restarting(self) -> Iterator[None]:
        try:
            with _errors(self._login):
                yield
        except ServiceUnavailable:
            self.close()
            raise

    def _connect(self) -> KafkaProducer:
        return KafkaProducer(
            **client_options(self._login),
            client_id="sluice-router",
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            # Short of FLUSH_SECONDS, so that a message that does not get through fails before the flush does.
            delivery_timeout_ms=25_000,
            request_timeout_ms=10_000,
            max_block_ms=10_000,
            reconnect_backoff_max_ms=1_000,
        )


class Consumer:
    """Reads topics as a member of a group; offsets move only by `commit`."""

    def __init__(self, login: KafkaLogin, group: str, topics: Sequence[str]) -> None:
        with _errors(login):
            self._consumer = KafkaConsumer(
                *topics,
                **client_options(login),
                group_id=group,
                client_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                # The broker answers as soon as it has one byte; this only bounds how long an idle fetch hangs.
                fetch_max_wait_ms=200,
                # A killed router's partitions pass on in seconds (45 s by default).
                session_timeout_ms=6_000,
                heartbeat_interval_ms=1_500,
                request_timeout_ms=15_000,
                reconnect_backoff_max_ms=1_000,
                metadata_max_age_ms=30_000,
            )
        self._login = login
        self._member_at = time.monotonic()

    def poll(self, timeout_ms: int, max_records: int) -> list[Record]:
        """The next messages, in order per partition; none after `timeout_ms`.

        Raises:
            ServiceUnavailable: also when this reader is stuck on its way into the group; only a new one will get in.
        """
        with _errors(self._login):
            found = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
            member = self._consumer.group_metadata().state == MemberState.STABLE
        if member:
            self._member_at = time.monotonic()
        elif time.monotonic() - self._member_at > JOIN_SECONDS:
            # A poll that ends between the two halves of a rebalance that new metadata began leaves kafka-python 3.0.12
            # there for good: no heartbeat, no partition, no error, and a loop that takes a core.
            raise ServiceUnavailable(
                f"This reader has been on its way into its Kafka group for {JOIN_SECONDS:.0f} s; a new one begins."
            )
        return [_record(message) for messages in found.values() for message in messages]

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Store for the group from where to go on, per (topic, partition)."""
        positions = {TopicPartition(*source): OffsetAndMetadata(offset, "", -1) for source, offset in offsets.items()}
        with _errors(self._login):
            self._consumer.commit(positions, timeout_ms=10_000)

    def close(self) -> None:
        """Leave the group, so that its partitions pass on at once."""
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)


class Reader:
    """Reads ranges of one partition at a time, as no group, so nobody is disturbed. A context manager."""

    def __init__(self, login: KafkaLogin) -> None:
        with _errors(login):
            self._consumer = KafkaConsumer(
                **client_options(login),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                fetch_max_wait_ms=200,
                request_timeout_ms=15_000,
            )
        self._login = login

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that a partition holds, and the one that its next message will have."""
        part = TopicPartition(topic, partition)
        with _errors(self._login):
            return self._consumer.beginning_offsets([part])[part], self._consumer.end_offsets([part])[part]

    def offset_since(self, topic: str, partition: int, moment: datetime) -> int | None:
        """The first offset that was written at a moment or later; None when nothing was."""
        part = TopicPartition(topic, partition)
        with _errors(self._login):
            found = self._consumer.offsets_for_times({part: max(0, int(moment.timestamp() * 1000))})[part]
        return None if found is None else int(found.offset)

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        """The messages of a partition from offset `start` to before `end`, as far as Kafka holds them by now.

        One range at a time: the next call ends the one before.
        """
        first, last = self.bounds(topic, partition)
        position, end = max(start, first), min(end, last)
        if position >= end:
            return
        part = TopicPartition(topic, partition)
        with _errors(self._login):
            self._consumer.assign([part])
            self._consumer.seek(part, position)
        limit = time.monotonic() + STALL_SECONDS
        while position < end:
            with _errors(self._login):
                found = self._consumer.poll(timeout_ms=500).get(part, [])
            if found:
                limit = time.monotonic() + STALL_SECONDS
            elif time.monotonic() > limit:
                raise ServiceUnavailable(
                    f"Kafka at {self._login.bootstrap} holds {topic} but does not give it; is it up?"
                )
            for message in found:
                if message.offset >= end:
                    return
                position = message.offset + 1
                yield _record(message)


def ensure_topics(login: KafkaLogin, days: Mapping[str, int], partitions: Mapping[str, int] = PARTITIONS) -> None:
    """Make the topics that are not there yet, wait until they can be used, and set how long they keep messages.

    Args:
        days: topic to the days that its messages are kept, also where the topic is there already.
    """
    with _admin(login) as admin:
        missing = sorted(set(partitions) - set(admin.list_topics()))
        for topic in missing:
            configs = {_RETENTION: str(days[topic] * _DAY_MS)}
            wanted = {"num_partitions": partitions[topic], "replication_factor": -1, "configs": configs}
            try:
                admin.create_topics({topic: wanted})
            except TopicAlreadyExistsError:
                continue  # Another bootstrap was quicker.
        admin.wait_for_topics(sorted(partitions))
        kept = _retention_ms(admin, partitions)
        wanted_ms = {topic: days[topic] * _DAY_MS for topic in partitions}
        changed = {topic: str(ms) for topic, ms in wanted_ms.items() if kept.get(topic) != ms}
        if changed:
            wish = [ConfigResource(ConfigResourceType.TOPIC, topic, {_RETENTION: ms}) for topic, ms in changed.items()]
            (done,) = admin.alter_configs(wish, raise_on_unknown=False).values()
            refused = {topic: said for topic, said in done.items() if said != "OK"}
            if refused:
                raise ServiceUnavailable(f"Kafka at {login.bootstrap} did not take how long topics keep: {refused}")


def topics_retention(login: KafkaLogin, topics: Collection[str] = tuple(PARTITIONS)) -> dict[str, float | None]:
    """Topic to the days that its messages are kept, as the broker says; None: for ever.

    A topic that is not there, or that this user may not ask about, is left out.
    """
    with _admin(login) as admin:
        return {topic: ms / _DAY_MS if ms >= 0 else None for topic, ms in _retention_ms(admin, topics).items()}


def _retention_ms(admin: KafkaAdminClient, topics: Collection[str]) -> dict[str, int]:
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, {_RETENTION: None}) for topic in topics]
    # All, not those that were changed alone: a topic of an older version has the broker's own.
    (found,) = admin.describe_configs(asked, config_filter="all").values()
    return {topic: int(configs[_RETENTION]["value"]) for topic, configs in found.items() if _RETENTION in configs}


def ensure_grants(login: KafkaLogin, grants: Collection[Grant] = GRANTS) -> None:
    """Allow the users of `grants` just that; what else they were allowed before is taken back.

    Raises:
        ServiceUnavailable: the broker does not know of it after `GRANTS_KNOWN`.
    """
    wanted = {_acl(grant) for grant in grants}
    users = {f"User:{grant.user}" for grant in grants}
    with _admin(login) as admin:

        def granted() -> set[ACL]:
            return {acl for acl in admin.describe_acls(_ANY_ACL)[0] if acl.principal in users}

        found = granted()
        failed = admin.create_acls(list(wanted - found))["failed"] if wanted - found else []
        taken_back = admin.delete_acls([_filter(acl) for acl in found - wanted]) if found - wanted else []
        failed += [error for _, _, error in taken_back if error is not NoError]
        for error in failed:
            raise error(f"while setting who may do what in Kafka at {login.bootstrap}")
        # The controller has it by now, and tells the broker a moment later.
        limit = time.monotonic() + GRANTS_KNOWN
        while granted() != wanted:
            if time.monotonic() > limit:
                raise ServiceUnavailable(
                    f"Kafka at {login.bootstrap} does not know who may do what after {GRANTS_KNOWN:.0f} s. "
                    "Run the bootstrap again."
                )
            time.sleep(0.05)


def topics_overview(login: KafkaLogin) -> list[TopicOverview]:
    """The topics of the broker by name, without Kafka's own."""
    with _admin(login) as admin:
        names = sorted(name for name in admin.list_topics() if not name.startswith("__"))
        described = {topic["name"]: topic["partitions"] for topic in admin.describe_topics(names)} if names else {}
        parts = [TopicPartition(name, p["partition_index"]) for name in names for p in described[name]]
        first = admin.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.EARLIEST)) if parts else {}
        last = admin.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.LATEST)) if parts else {}
        groups = sorted(group["group_id"] for group in admin.list_groups())
        committed = admin.list_group_offsets(groups) if groups else {}
    overview = []
    for name in names:
        own = [part for part in parts if part.topic == name]
        lag = {}
        for group in groups:
            read = {part: committed[group][part].offset for part in own if part in committed.get(group, {})}
            if any(offset >= 0 for offset in read.values()):
                lag[group] = sum(last[part].offset - max(read.get(part, 0), first[part].offset) for part in own)
        messages = sum(last[part].offset - first[part].offset for part in own)
        overview.append(TopicOverview(topic=name, partitions=len(own), messages=messages, lag=lag))
    return overview


def oldest_unread(login: KafkaLogin, group: str, topic: str) -> datetime | None:
    """When the oldest message of a topic that a group has not committed was written; None when it committed all."""
    with _admin(login) as admin:
        partitions = [
            part["partition_index"] for found in admin.describe_topics([topic]) for part in found["partitions"]
        ]
        committed = admin.list_group_offsets([group]).get(group, {})
    places = ((part, committed.get(TopicPartition(topic, part))) for part in partitions)
    with Reader(login) as reader:
        unread = (
            next(reader.read(topic, part, max(0, read.offset) if read else 0, sys.maxsize), None)
            for part, read in places
        )
        return min((record.at for record in unread if record is not None), default=None)


def follow(login: KafkaLogin, topics: Sequence[str]) -> Iterator[Record]:
    """The messages that come into some topics from now on, without end; reads as no group, so nobody is disturbed."""
    with _errors(login):
        consumer = KafkaConsumer(
            **client_options(login),
            group_id=None,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
        )
    try:
        with _errors(login):
            parts = [TopicPartition(name, p) for name in topics for p in consumer.partitions_for_topic(name) or ()]
            consumer.assign(parts)
            for part, offset in consumer.end_offsets(parts).items():
                # A fixed position: `seek_to_end` is carried out at the first poll, which may come later.
                consumer.seek(part, offset)
        while True:
            with _errors(login):
                found = consumer.poll(timeout_ms=500)
            for messages in found.values():
                yield from map(_record, messages)
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_MS)


@contextmanager
def _admin(login: KafkaLogin) -> Iterator[KafkaAdminClient]:
    with _errors(login):
        admin = KafkaAdminClient(**client_options(login))
        try:
            yield admin
        finally:
            admin.close()


@contextmanager
def _errors(login: KafkaLogin) -> Iterator[None]:
    """Turn kafka-python's errors into ours."""
    try:
        yield
    except MessageSizeTooLargeError as error:
        raise BadWork("A message is larger than Kafka takes (1 MB).") from error
    except CommitFailedError as error:
        raise ServiceUnavailable(
            "Kafka gave this reader's partitions to another one before it committed; they are read again."
        ) from error
    except AuthorizationError as error:
        raise ServiceUnavailable(
            f"Kafka does not let its user {login.user} do that ({type(error).__name__}). `sluice up` grants it.",
            user=login.user,
        ) from error
    except (KafkaError, OSError) as error:
        raise ServiceUnavailable(
            f"Kafka at {login.bootstrap} gave no proper answer ({type(error).__name__}). "
            "Is it up? `sluice status` tells."
        ) from error


def _record(message: Any) -> Record:
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        at=datetime.fromtimestamp(message.timestamp / 1000, UTC),
        key=message.key,
        value=message.value,
        headers=text_headers(message.headers),
    )


_ANY_ACL = ACLFilter(
    principal=None,
    host=None,
    operation=ACLOperation.ANY,
    permission_type=ACLPermissionType.ANY,
    resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)


def _acl(grant: Grant) -> ACL:
    return ACL(
        principal=f"User:{grant.user}",
        host="*",
        operation=ACLOperation[grant.operation],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(ResourceType[grant.kind], grant.name),
    )


def _filter(acl: ACL) -> ACLFilter:
    return ACLFilter(acl.principal, acl.host, acl.operation, acl.permission_type, acl.resource_pattern)
