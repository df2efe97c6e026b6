"""Bucket events as MinIO writes them."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadEvent
from contracts.events import EXPIRED, MAX_KEY_BYTES, later, parse_events, utc_millis


def notification(key: str = "d/a.parquet", **changes: Any) -> dict[str, Any]:
    item = {"key": quote_plus(key, errors="surrogatepass"), "size": 7, "eTag": "9f1c", "sequencer": "17ab"}
    record = {
        "eventName": "s3:ObjectCreated:Put",
        "eventTime": "2025-01-02T03:04:05.678Z",
        "s3": {"bucket": {"name": "bronze"}, "object": item | changes},
    }
    return {"EventName": "s3:ObjectCreated:Put", "Key": f"bronze/{key}", "Records": [record]}


def message(**changes: Any) -> bytes:
    return json.dumps(notification(**changes)).encode()


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200)


@given(TEXT)
def test_any_key_comes_back_as_it_was_put(key: str) -> None:
    (event,) = parse_events(message(key=key))
    assert event.key == key


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        pytest.param("d/my+file%2B1.csv", "d/my file+1.csv", id="plus-and-space"),
        pytest.param("d/100%2525.parquet", "d/100%25.parquet", id="percent-is-decoded-once"),
        pytest.param("d/%C3%A4.parquet", "d/ä.parquet", id="umlaut"),
        pytest.param("d/a%0A%09b", "d/a\n\tb", id="control-characters"),
    ],
)
def test_key_is_decoded_once(encoded: str, key: str) -> None:
    body = notification()
    body["Records"][0]["s3"]["object"]["key"] = encoded
    assert parse_events(json.dumps(body).encode())[0].key == key


@pytest.mark.parametrize(
    ("name", "agent", "told"),
    [
        pytest.param("s3:ObjectRemoved:Delete", "Internal: [ILM-Expiry]", EXPIRED, id="minio"),
        pytest.param("LifecycleExpiration:Delete", "x", EXPIRED, id="amazon"),
        pytest.param("s3:ObjectRemoved:Delete", "mc/1", "s3:ObjectRemoved:Delete", id="person"),
        pytest.param("s3:ObjectRemoved:Delete", None, "s3:ObjectRemoved:Delete", id="nobody-said"),
        pytest.param("s3:ObjectCreated:Put", "Internal: [ILM-Expiry]", "s3:ObjectCreated:Put", id="put"),
    ],
)
def test_object_that_expired_is_told_from_one_that_somebody_deleted(name: str, agent: str | None, told: str) -> None:
    body = notification(eTag="")
    body["Records"][0] |= {"eventName": name, "source": {"userAgent": agent} if agent else None}
    (event,) = parse_events(json.dumps(body).encode())
    assert (event.name, event.expired) == (told, told == EXPIRED)
    assert event.removed or event.created


def test_fields_of_an_event_are_those_of_the_record() -> None:
    (event,) = parse_events(message(eTag='"9f1c-2"'))
    assert (event.bucket, event.etag, event.size, event.sequencer) == ("bronze", "9f1c-2", 7, "17AB")
    assert event.created
    assert not event.removed
    assert utc_millis(event.at) == "2025-01-02T03:04:05.678Z"


def test_every_record_of_a_message_is_an_event() -> None:
    body = notification()
    body["Records"] *= 3
    assert len(parse_events(json.dumps(body).encode())) == 3


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="tombstone"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="binary"),
        pytest.param(b"{", id="cut-short"),
        pytest.param(b"[" * 100_000, id="deep-nesting"),
        pytest.param(b"7" * 10_000, id="huge-number"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"Records": {}}', id="records-no-list"),
        pytest.param(b'{"Records": [null]}', id="record-null"),
        pytest.param(message(key="a" * (MAX_KEY_BYTES + 1)), id="key-too-long"),
        pytest.param(message(key="a\0b"), id="nul-in-key"),
        pytest.param(message(key="\ud800"), id="half-a-surrogate-pair"),
        pytest.param(message(size=-1), id="negative-size"),
        pytest.param(message(size=2**70), id="size-beyond-64-bits"),
        pytest.param(message(eTag="a\0"), id="nul-in-etag"),
        pytest.param(message(eTag=["a"]), id="etag-no-text"),
        pytest.param(message(sequencer="xyz"), id="sequencer-not-hexadecimal"),
        pytest.param(message(sequencer="F" * 33), id="sequencer-too-long"),
        pytest.param(message().replace(b"2025-01-02", b"0001-01-01"), id="impossible-year"),
        pytest.param(message().replace(b"05.678Z", b"05.678"), id="time-without-zone"),
        pytest.param(message().replace(b'"bronze"', b'"br onze"'), id="bucket-name"),
        pytest.param(message().replace(b"d%2Fa", b"d%FF"), id="key-not-utf-8"),
    ],
)
def test_what_is_no_event_is_a_bad_event(value: bytes | None) -> None:
    with pytest.raises(BadEvent):
        parse_events(value)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_bad_event(value: bytes) -> None:
    with pytest.raises(BadEvent):
        parse_events(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(["key", "size", "eTag", "sequencer"]), JSON)
def test_no_field_raises_anything_but_bad_event(name: str, value: object) -> None:
    body = notification()
    body["Records"][0]["s3"]["object"][name] = value
    with contextlib.suppress(BadEvent):
        parse_events(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("2", "1", True), ("1", "1", False), ("10", "F", True), ("00F", "F", False), ("1", "", True)],
)
def test_sequencers_compare_as_numbers(a: str, b: str, expected: bool) -> None:
    assert later(a, b) is expected
