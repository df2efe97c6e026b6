"""Dead letters: what the router could not route, as JSON in `lake.dlq`, with enough to send it again."""

from __future__ import annotations

import base64
import re
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict

from consumers.broker import Record
from contracts.errors import SluiceError
from contracts.states import Reason

MAX_VALUE_BYTES = 64 * 1024


class DeadLetter(BaseModel):
    """One message that was not routed."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """A `Reason` of a file, or the kind of error in snake case, for example `bad_event`."""
    detail: str
    """For a person: what was found and what was expected."""
    topic: str
    partition: int
    offset: int
    at: AwareDatetime
    """When the router gave it up."""
    key: str | None
    """The message's key; bytes that are not UTF-8 stand as `\\\\xNN`."""
    value: str | None
    """The message's value in base64, at most its first 64 KiB."""
    value_cut: bool
    """Whether the value was longer; the topic still holds the whole one for its retention time."""

    @property
    def place(self) -> str:
        """`topic[partition]@offset` of the message."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


def dead_letter(record: Record, why: Reason | SluiceError, now: datetime, detail: str = "") -> DeadLetter:
    """Make the dead letter of a message; `detail` is by default what the reason or error says."""
    error = isinstance(why, SluiceError)
    value = record.value
    return DeadLetter(
        reason=_snake(type(why).__name__) if error else str(why),
        detail=detail or (why.message if isinstance(why, SluiceError) else why.advice),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        at=now,
        key=None if record.key is None else record.key.decode("utf-8", errors="backslashreplace"),
        value=None if value is None else base64.b64encode(value[:MAX_VALUE_BYTES]).decode("ascii"),
        value_cut=value is not None and len(value) > MAX_VALUE_BYTES,
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
