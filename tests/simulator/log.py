"""Kafka in memory: topics with offsets, groups that move their partitions about, and what an offset stands for."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from zlib import crc32

from sluice_listener.topic import Message

from consumers.broker import Record
from consumers.topics import DEAD_LETTERS, PARTITIONS, WORK_TOPICS
from contracts.errors import BadEvent, BadWork, ServiceUnavailable
from contracts.events import parse_events
from contracts.states import Layer
from contracts.work import WorkItem, parse_work
from tests.simulator.world import World

KAFKA = "kafka"
SESSION = 6.0
"""Seconds without a sign of life after which a group goes on without a member."""

Place = tuple[str, int]
CheckCommit = Callable[[str, Sequence[Record]], None]


class Group:
    """A consumer group."""

    def __init__(self) -> None:
        self.committed: dict[Place, int] = {}
        self.generation = 0
        self.members: list[Member] = []


class Log:
    """The broker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topics: dict[Place, list[Record]] = {(t, p): [] for t, count in PARTITIONS.items() for p in range(count)}
        self.groups: dict[str, Group] = {}
        self.check: CheckCommit = lambda group, records: None
        self.work: dict[Layer, set[tuple[str, ...]]] = {layer: set() for layer in Layer}
        """(bucket, key, etag, version) of all work that was ever sent."""
        self.dead_places: set[str] = set()
        self.dead_keys: set[str] = set()

    def group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group())

    def append(
        self, topic: str, key: str | None, value: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Make a message durable."""
        partition = crc32((key or "").encode()) % PARTITIONS[topic]
        records = self.topics[topic, partition]
        name = None if key is None else key.encode()
        records.append(Record(topic, partition, len(records), self.world.now, name, value, dict(headers or {})))
        self._learn(topic, value)
        self.world.tell(topic)

    def _learn(self, topic: str, value: bytes | None) -> None:
        if topic == DEAD_LETTERS:
            letter = json.loads(value or b"")
            self.dead_places.add(f"{letter['topic']}[{letter['partition']}]@{letter['offset']}")
            try:
                events = parse_events(base64.b64decode(letter["value"] or ""))
            except BadEvent:
                return
            self.dead_keys |= {event.key for event in events}
        for layer, name in WORK_TOPICS.items():
            if name == topic:
                try:
                    self.work[layer] |= {identity(item) for item in parse_work(value).items}
                except BadWork:
                    return

    def commit(self, group: str, offsets: Mapping[Place, int]) -> None:
        """Move offsets, having checked that what is passed is durable elsewhere (I6)."""
        own = self.group(group)
        for place, offset in sorted(offsets.items()):
            before = own.committed.get(place, 0)
            if offset > before:
                self.check(group, self.topics[place][before:offset])
            own.committed[place] = offset

    def lag(self, group: str, topic: str) -> int:
        """Messages that a group has not committed."""
        own = self.group(group)
        return sum(len(r) - own.committed.get(place, 0) for place, r in self.topics.items() if place[0] == topic)

    def oldest_unread(self, group: str, topic: str) -> datetime | None:
        """As `consumers.broker.oldest_unread`."""
        own = self.group(group)
        unread = (r[own.committed.get(place, 0) :] for place, r in self.topics.items() if place[0] == topic)
        return min((records[0].at for records in unread if records), default=None)


def identity(item: WorkItem) -> tuple[str, ...]:
    return item.bucket, item.key, item.etag, item.version


class Member:
    """A consumer in a group; both the router's and the listener's kind."""

    def __init__(
        self, log: Log, group: str, topics: Sequence[str], waits_for: Callable[[], float] | None = None
    ) -> None:
        self._log = log
        self._world = log.world
        self._group = log.group(group)
        self._name = group
        self._places = [place for place in log.topics if place[0] in topics]
        self._topics = topics
        self._waits_for = waits_for or (lambda: 600.0)
        self._generation = -1
        self._positions: dict[Place, int] = {}
        actor = self._world.current
        if actor is not None:
            actor.on_pause.append(self._stands_still)
        try:
            self._world.do(f"join {group}", self._join, service=KAFKA)
        except ServiceUnavailable:
            # Should it have joined all the same, nobody hears of it any more.
            self._world.after(SESSION, self.expire)
            raise

    # ---- as consumers.broker.Consumer

    def poll(self, timeout_ms: int, max_records: int) -> list[Record]:
        """The next messages; waits until there are some."""
        found = self._world.do("poll", self._take, max_records, service=KAFKA)
        if not found:
            self._world.wait(self._waits_for(), *self._topics, "rebalance", "airflow")
        return found

    def commit(self, offsets: Mapping[Place, int]) -> None:
        told = ", ".join(f"{topic}[{part}]@{offset}" for (topic, part), offset in offsets.items())
        if not self._world.do(f"commit {told}", self._commit, offsets, service=KAFKA):
            raise ServiceUnavailable("The group gave the partitions to another.")

    def close(self) -> None:
        self._world.do(f"leave {self._name}", self.expire)

    # ---- inside

    def _join(self) -> None:
        self._group.members.append(self)
        self._rebalance()

    def expire(self) -> None:
        """The group goes on without this member."""
        if self in self._group.members:
            self._group.members.remove(self)
            self._rebalance()

    def _rebalance(self) -> None:
        self._group.generation += 1
        self._world.counts["rebalances"] += 1
        self._world.tell("rebalance")

    def _stands_still(self, seconds: float) -> None:
        if seconds > SESSION:
            self._world.after(SESSION, self.expire)

    def _take(self, most: int) -> list[Record]:
        group = self._group
        if self not in group.members:
            self._join()
        if self._generation != group.generation:
            self._generation = group.generation
            mine, count = group.members.index(self), len(group.members)
            own = [place for number, place in enumerate(self._places) if number % count == mine]
            self._positions = {place: group.committed.get(place, 0) for place in own}
        found: list[Record] = []
        for place, position in self._positions.items():
            some = self._log.topics[place][position:]
            if some:
                # A fetch brings some of a partition, as chance has it.
                some = some[: self._world.random.randint(1, max(1, min(most, 30)))]
                self._positions[place] = position + len(some)
                found += some
        return found

    def _commit(self, offsets: Mapping[Place, int]) -> bool:
        if self not in self._group.members or self._generation != self._group.generation:
            self._world.counts["commits refused"] += 1
            self._world.note("the commit is refused")
            return False
        self._log.commit(self._name, offsets)
        return True


class WorkReader:
    """The listener's consumer: `sluice_listener.handover.Topic` by way of a member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._held = False

    def read(self, timeout: float) -> list[Message]:
        if self._held:
            return []
        return [Message(r.topic, r.partition, r.offset, r.value, r.key, r.headers) for r in self._member.poll(0, 500)]

    def hold(self, partitions: Collection[int]) -> None:
        self._held = bool(partitions)

    def commit(self, offsets: Mapping[Place, int]) -> bool:
        try:
            self._member.commit(offsets)
        except ServiceUnavailable:
            return False
        return True


class Producer:
    """As `consumers.broker.Producer`: killed or refused while it flushes, Kafka has some of the messages."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._queued: list[tuple[str, str | None, bytes, Mapping[str, str] | None]] = []

    def send(self, topic: str, key: str | None, value: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._queued.append((topic, key, value, headers))

    def flush(self) -> None:
        queued, self._queued = self._queued, []
        for message in queued:
            self._log.world.do(f"send to {message[0]}", self._log.append, *message, service=KAFKA)

    def close(self) -> None:
        self._queued = []
