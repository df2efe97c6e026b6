"""Dead letters: what nobody could process, as JSON in `lake.dlq`, with enough to send it again. No I/O.

A dead letter's id is its offset in `lake.dlq`, which has one partition.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from consumers.headers import ATTEMPT, REDRIVEN_FROM, origin
from consumers.topics import EVENT_TOPICS, WORK_TOPICS
from contracts.errors import BadWork, SluiceError, UsageError
from contracts.states import Reason

MAX_VALUE_BYTES = 64 * 1024
MAX_TEXT = 4096
"""Characters of a letter's key and detail at most; a key of ours has its bucket's name and up to 1,024 bytes."""
SOURCES = frozenset((*EVENT_TOPICS, *WORK_TOPICS.values()))
"""The topics that messages may be sent to again: whoever can write a letter must not choose any other."""


class Message(Protocol):
    """What a dead letter tells of a Kafka message, whichever client read it."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class DeadLetter(BaseModel):
    """One message that was not processed."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """A `Reason` of a file, or the kind of error in snake case, for example `bad_event`."""
    detail: str
    """For a person: what was found and what was expected."""
    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    at: AwareDatetime
    """When it was given up."""
    key: str | None
    """The message's key; bytes that are not UTF-8 stand as `\\\\xNN`."""
    value: str | None
    """The message's value in base64, at most its first 64 KiB."""
    value_cut: bool
    """Whether the value was longer; the topic still holds the whole one for its retention time."""
    redriven_from: int | None = None
    """Id of the dead letter that this message was sent again from."""
    attempt: int = Field(default=1, ge=1)
    """How many times the message has been sent."""

    @field_validator("value")
    @classmethod
    def _base64(cls, value: str | None) -> str | None:
        base64.b64decode(value or "", validate=True)  # Raises a ValueError.
        return value

    @property
    def place(self) -> str:
        """`topic[partition]@offset` of the message."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def content(self) -> bytes | None:
        """The message's value, at most its first 64 KiB."""
        return None if self.value is None else base64.b64decode(self.value)

    @property
    def headers(self) -> dict[str, str]:
        """Of the message in `lake.dlq`, for those who look with Kafka's own tools."""
        return {"reason": self.reason, "source": self.place}


class LetterState(StrEnum):
    """What became of a dead letter."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Settled:
    """That somebody dealt with a dead letter, and when."""

    state: LetterState
    at: datetime


@dataclass(frozen=True, slots=True)
class Filed:
    """A dead letter as `lake.dlq` and the ledger tell of it."""

    id: int
    letter: DeadLetter
    settled: Settled | None = None

    @property
    def state(self) -> LetterState:
        """Open until somebody dealt with it."""
        return self.settled.state if self.settled else LetterState.OPEN


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters a command is about; a field that is None takes all."""

    reason: str | None = None
    topic: str | None = None
    """That the message came from."""
    since: datetime | None = None

    @property
    def takes_all(self) -> bool:
        """Whether nothing is filtered."""
        return self.reason is None and self.topic is None and self.since is None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether the command is about this one."""
        return (
            self.reason in (None, letter.reason)
            and self.topic in (None, letter.topic)
            and (self.since is None or letter.at >= self.since)
        )


@dataclass(frozen=True, slots=True)
class Redrive:
    """A message to be sent again."""

    topic: str
    key: str | None
    value: bytes
    headers: dict[str, str]


def dead_letter(record: Message, why: Reason | SluiceError, now: datetime, detail: str = "") -> DeadLetter:
    """Make the dead letter of a message; `detail` is by default what the reason or error says."""
    if isinstance(why, SluiceError):
        return make_letter(record, _snake(type(why).__name__), detail or why.message, now)
    return make_letter(record, str(why), detail or why.advice, now)


def make_letter(message: Message, reason: str, detail: str, now: datetime) -> DeadLetter:
    """Make the dead letter of a message; one that was sent again keeps its history."""
    value = message.value
    redriven_from, attempt = origin(message.headers)
    return DeadLetter(
        reason=reason,
        detail=detail[:MAX_TEXT],
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        at=now,
        key=None if message.key is None else message.key.decode("utf-8", errors="backslashreplace")[:MAX_TEXT],
        value=None if value is None else base64.b64encode(value[:MAX_VALUE_BYTES]).decode("ascii"),
        value_cut=value is not None and len(value) > MAX_VALUE_BYTES,
        redriven_from=redriven_from,
        attempt=attempt,
    )


def read_letter(message: Message, at: datetime) -> DeadLetter:
    """The dead letter that a message of `lake.dlq` holds.

    What is none, since somebody wrote it by hand, is shown as a dead letter of itself: nobody else would look at it.

    Args:
        at: when Kafka got the message.
    """
    try:
        return DeadLetter.model_validate_json(message.value or b"")
    except ValidationError:
        return dead_letter(message, BadWork("The message of the dead-letter topic is no dead letter. Discard it."), at)


def chosen(
    letters: Iterable[tuple[int, DeadLetter]], settled: Mapping[int, Settled], only: Filter, with_settled: bool = False
) -> Iterator[Filed]:
    """The dead letters that a command is about, in their order: the open ones, or all."""
    for letter_id, letter in letters:
        if only.takes(letter) and (with_settled or letter_id not in settled):
            yield Filed(letter_id, letter, settled.get(letter_id))


def refuse_settled(filed: Filed) -> None:
    """Check that nobody has dealt with a dead letter yet.

    Raises:
        UsageError: somebody has; says when.
    """
    if filed.settled is not None:
        at = filed.settled.at.isoformat(timespec="seconds")
        raise UsageError(f"Dead letter {filed.id} was {filed.state} at {at}; only open ones can be dealt with.")


def redrive(letter_id: int, letter: DeadLetter, whole: bytes | None = None) -> Redrive:
    """The message to be sent for a dead letter.

    Args:
        whole: for a letter that holds only the beginning of its message, what its topic still holds at its place.

    Raises:
        UsageError: it cannot be sent again; says why.
    """
    value = letter.content
    if letter.topic not in SOURCES:
        raise UsageError(f"Dead letter {letter_id} is of {letter.topic!r}, where nothing is redriven to. Discard it.")
    if value is None:
        raise UsageError(f"Dead letter {letter_id} is of a message without a value, which cannot be used. Discard it.")
    if letter.value_cut:
        if whole is None or len(whole) <= len(value) or not whole.startswith(value):
            raise UsageError(
                f"Dead letter {letter_id} holds the first {len(value) // 1024} KiB of its message, and Kafka no longer "
                f"holds the whole one at {letter.place}. Drop the file again, then discard the letter."
            )
        value = whole
    headers = {REDRIVEN_FROM: str(letter_id), ATTEMPT: str(letter.attempt + 1)}
    return Redrive(letter.topic, letter.key, value, headers)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
