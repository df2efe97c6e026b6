"""Bucket events as MinIO writes them to Kafka, and as Sluice uses them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from contracts.errors import BadEvent

MAX_KEY_BYTES = 1024
"""Of an S3 key in UTF-8."""
EXPIRED = "s3:LifecycleExpiration:Delete"
"""Name of the event of an object that a lifecycle rule removed, as Amazon S3 has it."""
_EXPIRING_AGENT = "Internal: [ILM-Expiry]"


class BucketEvent(BaseModel):
    """One object created in, or removed from, a bucket.

    Source of the shape: the S3 event notification structure; MinIO URL-encodes `s3.object.key`
    (measured: `my+file%2B1.csv` stands for `my file+1.csv`).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    """`s3:ObjectCreated:Put`, `s3:ObjectRemoved:Delete`, …; of an object that expired `EXPIRED`."""
    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{2,62}$")
    key: str = Field(min_length=1)
    """Decoded; at most 1024 bytes in UTF-8. Hostile text: nobody may build a path, SQL or shell line of it."""
    etag: str = Field(default="", pattern=r"^[\x21-\x7e]{0,128}$")
    """Empty for a removal."""
    size: int = Field(default=0, ge=0, lt=2**63)
    """Bytes."""
    at: AwareDatetime
    """When MinIO acknowledged the write."""
    sequencer: str = Field(default="", pattern=r"^[0-9A-F]{0,32}$")
    """Hexadecimal; the larger of two for one key is the later write."""

    @field_validator("key")
    @classmethod
    def _storable(cls, key: str) -> str:
        # Neither S3 nor Postgres takes these; one such message must not stop the others of its poll.
        try:
            length = len(key.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair is no text") from error
        if length > MAX_KEY_BYTES or "\0" in key:
            raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes and no NUL")
        return key

    @field_validator("at")
    @classmethod
    def _plausible(cls, at: datetime) -> datetime:
        if not 1970 <= at.year <= 9000:
            raise ValueError("the year cannot be that of an upload")
        return at

    @property
    def created(self) -> bool:
        """Whether the event tells of new content."""
        return self.name.startswith("s3:ObjectCreated:")

    @property
    def removed(self) -> bool:
        """Whether the event tells of a removal, by whomever."""
        return self.name.startswith("s3:ObjectRemoved:") or self.expired

    @property
    def expired(self) -> bool:
        """Whether a lifecycle rule of the bucket removed the object, and no person or program."""
        return self.name.startswith("s3:LifecycleExpiration:")


def parse_events(value: bytes | None) -> list[BucketEvent]:
    """Parse one Kafka message of a bucket notification topic.

    Args:
        value: the message's value; JSON with a `Records` list.

    Returns:
        One event per record, in order; never empty.

    Raises:
        BadEvent: not JSON, not such a notification, or a field is missing or malformed.
    """
    if not value:
        raise BadEvent("The message is empty; a bucket notification (JSON with 'Records') was expected.")
    try:
        # Three times as fast as the one of the standard library, and it refuses half of a surrogate pair.
        body = from_json(value, cache_strings="keys")
    except ValueError as error:
        raise BadEvent(
            f"The message is not JSON ({type(error).__name__}); a bucket notification was expected."
        ) from error
    records = body.get("Records") if isinstance(body, dict) else None
    if not isinstance(records, list) or not records:
        raise BadEvent("The JSON has no 'Records' list; a bucket notification was expected.")
    return [_event(record) for record in records]


def notification(event: BucketEvent) -> bytes:
    """The message of a bucket notification topic that stands for one event; `parse_events` gives the event back."""
    item = {"key": quote_plus(event.key), "eTag": event.etag, "size": event.size, "sequencer": event.sequencer}
    record = {
        "eventName": event.name,
        "eventTime": event.at.isoformat(),
        "s3": {"bucket": {"name": event.bucket}, "object": item},
    }
    return json.dumps({"Key": f"{event.bucket}/{event.key}", "Records": [record]}).encode()


def _event(record: Any) -> BucketEvent:
    try:
        entity = record["s3"]
        item = entity["object"]
        return BucketEvent(
            name=_name(record),
            bucket=entity["bucket"]["name"],
            key=unquote_plus(item["key"], errors="strict"),
            etag=(item.get("eTag") or "").strip('"'),
            size=item.get("size") or 0,
            at=record["eventTime"],
            sequencer=(item.get("sequencer") or "").upper(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadEvent(f"A record lacks the fields of a bucket notification ({error!r}).") from error
    except UnicodeDecodeError as error:
        raise BadEvent("The object's key is not UTF-8 after URL-decoding.") from error
    except ValidationError as error:
        fields = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors())
        raise BadEvent(f"A record's fields are malformed: {fields}.") from error


def _name(record: dict[str, Any]) -> str:
    """The event's name. For MinIO an object that expired is removed like any other; it says by whom (measured)."""
    name = record["eventName"] if record["eventName"].startswith("s3:") else f"s3:{record['eventName']}"
    source = record.get("source")
    agent = source.get("userAgent") if isinstance(source, dict) else None
    return EXPIRED if agent == _EXPIRING_AGENT and name.startswith("s3:ObjectRemoved:") else name


def later(a: str, b: str) -> bool:
    """Whether sequencer `a` is of a later write than `b`; hexadecimal, compared as numbers.

    Source: Amazon S3's notes on `sequencer`: pad the shorter with zeros, then compare.
    """
    return int(a or "0", 16) > int(b or "0", 16)


def utc_millis(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as every `--json` output has it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
