"""Decision: what each user of Kafka may do. No I/O.

Nothing is allowed that is not here; `admin`, the broker's own user and the bootstrap's, may do anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from consumers.topics import DEAD_LETTERS, EVENT_TOPICS, LISTENER_GROUPS, PARTITIONS, ROUTER_GROUP, WORK_TOPICS

Operation = Literal["READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"]
"""Kafka's words. READ and WRITE include DESCRIBE; READ of a group is to be a member of it and to move its offsets.
DESCRIBE_CONFIGS of a topic is to see how long it keeps messages."""
_WORK = tuple(WORK_TOPICS.values())
_GROUPS = (ROUTER_GROUP, *LISTENER_GROUPS.values())


@dataclass(frozen=True, slots=True)
class Grant:
    """One thing that a user may do."""

    user: str
    operation: Operation
    kind: Literal["TOPIC", "GROUP"]
    name: str


def _grants(
    user: str, operation: Operation, *, topics: tuple[str, ...] = (), groups: tuple[str, ...] = ()
) -> set[Grant]:
    """One operation on some topics and groups."""
    return {
        *(Grant(user, operation, "TOPIC", name) for name in topics),
        *(Grant(user, operation, "GROUP", name) for name in groups),
    }


GRANTS: frozenset[Grant] = frozenset(
    # MinIO tells of objects, and reads nothing.
    _grants("minio", "WRITE", topics=EVENT_TOPICS)
    # The router makes work of events.
    | _grants("router", "READ", topics=EVENT_TOPICS, groups=(ROUTER_GROUP,))
    | _grants("router", "WRITE", topics=(*_WORK, DEAD_LETTERS))
    # The listeners make runs of work.
    | _grants("listener", "READ", topics=_WORK, groups=tuple(LISTENER_GROUPS.values()))
    | _grants("listener", "WRITE", topics=(DEAD_LETTERS,))
    # Reconcile looks what nobody has read yet, and tells of what no event told of.
    | _grants("reconcile", "READ", topics=(*EVENT_TOPICS, *_WORK))
    | _grants("reconcile", "DESCRIBE", groups=_GROUPS)
    | _grants("reconcile", "WRITE", topics=(*EVENT_TOPICS, *_WORK))
    # A person's commands: look at everything, replay files, send dead letters again.
    | _grants("operator", "READ", topics=(*EVENT_TOPICS, *_WORK, DEAD_LETTERS))
    | _grants("operator", "DESCRIBE", groups=_GROUPS)
    | _grants("operator", "DESCRIBE_CONFIGS", topics=tuple(PARTITIONS))
    | _grants("operator", "WRITE", topics=(*EVENT_TOPICS, *_WORK))
)
