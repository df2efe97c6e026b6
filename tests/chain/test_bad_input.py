"""Bad input on the real servers: it ends with a name for what is wrong, and delays nobody."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.broker import Producer, client_options
from consumers.ledger import Ledger
from consumers.topics import BRONZE_EVENTS, DEAD_LETTERS, WORK_TOPICS
from contracts.events import BucketEvent
from contracts.states import FileState, Layer, Reason
from contracts.story import FileStory
from contracts.work import WorkItem, WorkMessage
from ingest.store import store_for
from sluice.files import wait_for_end
from spark_jobs.quarantine import quarantine_key
from tests.chain.conftest import WAIT_SECONDS, Drop, DropAll, MakeMonth, Query, sql_text
from tests.conftest import Stack
from tests.consumers.samples import body as event_body
from tests.spark_jobs.bad_files import as_parquet, claiming_rows, encrypted, inflating, twice

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]
MONTH = 2025, 5

HOSTILE = [
    "a%2Fb%252F+c d.parquet",
    "'; DROP TABLE silver.nyc_yellow; --.parquet",
    '" OR "1"="1.parquet',
    "$(touch pwned)`touch pwned`; rm -rf ~ | cat && true > x.parquet",
    "--conf spark.master=local.parquet",
    "${HOME}{{ ds }}%(x)s.parquet",
    "\U0001f600 \U0001f1ea\U0001f1fa.parquet",
    "at 12:30:00.parquet",
]


def _long_key(folder: str) -> str:
    """A key of 1,024 bytes, in parts that the store's file system takes."""
    start = f"{folder}/" + "/".join(["é" * 100] * 4) + "/"
    end = ".parquet"
    return start + "k" * (1024 - len(start.encode()) - len(end)) + end


BAD = {
    "encrypted": (lambda: encrypted(plaintext_footer=False), Reason.ENCRYPTED_PARQUET),
    "encrypted-columns": (lambda: encrypted(plaintext_footer=True), Reason.ENCRYPTED_PARQUET),
    "twice": (lambda: as_parquet(twice("fare_amount", 1.0)), Reason.DUPLICATE_COLUMNS),
    "inflating": (inflating, Reason.OVER_LIMIT),
    "billions-of-rows": (lambda: claiming_rows(True), Reason.OVER_LIMIT),
    "at [12:30]": (lambda: as_parquet(twice("fare_amount", 2.0)), Reason.UNREADABLE_KEY),
}
"""Name of the file -> its content, and why it is refused. Hadoop's paths cannot name the last."""


@dataclass(frozen=True)
class Dropped:
    """Files of a folder that were dropped at once."""

    folder: str
    bodies: dict[str, bytes]
    stories: dict[str, FileStory]
    """By their keys."""


@pytest.fixture(scope="module")
def dropped(put_all: DropAll, month: MakeMonth) -> Dropped:
    """Bad files of every kind, and good ones with hostile names."""
    folder = f"nyc_yellow/{uuid.uuid4().hex[:10]}"
    good = [*(f"{folder}/{name}" for name in HOSTILE), _long_key(folder)]
    bodies = {key: month(60 + number, seed=30 + number) for number, key in enumerate(good)}
    bodies |= {f"{folder}/{name}.parquet": make() for name, (make, _) in BAD.items()}
    bodies[_long_key(f"{folder}/bad")] = b"no parquet"
    return Dropped(folder, bodies, put_all(bodies))


def test_text_in_a_key_is_never_more_than_text(dropped: Dropped, query: Query) -> None:
    keys = [*(f"{dropped.folder}/{name}" for name in HOSTILE), _long_key(dropped.folder)]
    assert len(keys[-1].encode()) == 1024
    for number, key in enumerate(keys):
        story = dropped.stories[key]
        assert story.state is FileState.DONE, story
        silver, gold = story.layers
        assert silver.rows_in == 60 + number == silver.rows_accepted + silver.rows_rejected
        held = query(f"select count(*) from {gold.table} where _source_key = {sql_text(key)}")
        assert held == [(silver.rows_accepted,)]


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_quarantined_with_its_reason_and_kept_byte_by_byte(
    dropped: Dropped, stack: Stack, name: str
) -> None:
    key = f"{dropped.folder}/{name}.parquet"
    story, content = dropped.stories[key], dropped.bodies[key]
    assert (story.state, story.reason) == (FileState.QUARANTINED, BAD[name][1]), story
    assert story.detail
    kept = quarantine_key(WorkItem(bucket="bronze", key=key, etag=story.etag, version="1"))
    assert store_for(stack.settings, "root").get_range("quarantine", kept, 0, len(content) + 1) == content


def test_long_key_of_a_bad_file_is_kept_under_its_digest(dropped: Dropped, stack: Stack) -> None:
    story = dropped.stories[_long_key(f"{dropped.folder}/bad")]
    assert (story.state, story.reason) == (FileState.QUARANTINED, Reason.NOT_PARQUET)
    kept = quarantine_key(WorkItem(bucket="bronze", key=story.key, etag=story.etag, version="1"))
    assert kept.startswith(f"{story.dataset}/_long/")
    assert store_for(stack.settings, "root").get_range("quarantine", kept, 0, 100) == b"no parquet"


def test_forged_event_of_an_object_that_is_not_there_is_ignored(stack: Stack, ledger: Ledger, unique: str) -> None:
    key, etag = f"nyc_yellow/{unique}/forged_2025-05.parquet", "0" * 32
    event = BucketEvent(
        name="s3:ObjectCreated:Put", bucket="bronze", key=key, etag=etag, size=7, at=datetime.now(UTC), sequencer="10"
    )
    _send(stack, BRONZE_EVENTS, f"bronze/{key}", event_body(event))
    story = wait_for_end(lambda: ledger.story("bronze", key, etag), key, 0, WAIT_SECONDS)
    assert (story.state, story.reason) == (FileState.IGNORED, Reason.OBJECT_GONE)


def test_megabytes_of_json_go_to_the_dead_letters_and_the_next_file_is_not_delayed(
    stack: Stack, put: Drop, month: MakeMonth, unique: str
) -> None:
    from kafka import KafkaProducer

    value = json.dumps({"Records": [{"nonsense": unique, "n": number} for number in range(150_000)]}).encode()
    assert len(value) > 5_000_000
    # The broker's limit is for what is sent, and that is compressed.
    admin = client_options(stack.settings.kafka_login("admin"))
    producer = KafkaProducer(**admin, compression_type="gzip", max_request_size=20_000_000)
    producer.send(BRONZE_EVENTS, key=f"bronze/{unique}".encode(), value=value).get(timeout=30)
    producer.close()
    story = put(f"nyc_yellow/{unique}/after_2025-05.parquet", month(80, seed=43))
    assert story.state is FileState.DONE
    letter = dead_letter_of(stack, unique)
    assert (letter["reason"], letter["value_cut"]) == ("bad_event", True)


def test_work_of_a_newer_schema_goes_to_the_dead_letters(
    stack: Stack, put: Drop, month: MakeMonth, unique: str
) -> None:
    item = WorkItem(bucket="bronze", key=f"nyc_yellow/{unique}/newer.parquet", etag=unique, version="10")
    message = WorkMessage(
        schema_version=99, layer=Layer.SILVER, dataset="nyc_yellow", items=(item,), at=datetime.now(UTC)
    )
    _send(stack, WORK_TOPICS[Layer.SILVER], unique, message.model_dump_json().encode())
    letter = dead_letter_of(stack, unique)
    assert letter["reason"] == "bad_work"
    assert "99" in letter["detail"]
    assert put(f"nyc_yellow/{unique}/after_2025-05.parquet", month(50, seed=44)).state is FileState.DONE


def _send(stack: Stack, topic: str, key: str, value: bytes) -> None:
    producer = Producer(stack.settings.kafka_login("admin"))
    producer.send(topic, key, value)
    producer.flush()
    producer.close()


def dead_letter_of(stack: Stack, text: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
    """The dead letter of the message whose value holds a text; waits for it."""
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        DEAD_LETTERS,
        **client_options(stack.settings.kafka_login("operator")),
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    limit = time.monotonic() + seconds
    try:
        while time.monotonic() < limit:
            for messages in consumer.poll(timeout_ms=500).values():
                for message in messages:
                    letter: dict[str, Any] = json.loads(message.value)
                    if text.encode() in base64.b64decode(letter["value"] or ""):
                        return letter
    finally:
        consumer.close()
    raise AssertionError(f"no dead letter holds {text!r}")
