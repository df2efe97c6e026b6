"""Buckets, users, policies and notification rules, against a real MinIO."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import tenacity
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin
from pydantic import SecretStr

from contracts.errors import NotRunning, ServiceUnavailable, StoreRefused
from contracts.events import BucketEvent, later, parse_events
from contracts.settings import Settings
from ingest.bootstrap import bootstrap_store
from ingest.notifications import RULES, notification_environment
from ingest.store import NotifyRule, Store, store_for


def client(settings: Settings, user: str, secret: SecretStr) -> boto3.client:
    """Another S3 client than ours, as one of the store's users."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{settings.s3_endpoint}",
        aws_access_key_id=user,
        aws_secret_access_key=secret.get_secret_value(),
        region_name=settings.s3_region,
        config=Config(retries={"max_attempts": 1}),
    )


def rules_of(settings: Settings) -> dict[str, object]:
    s3 = client(settings, settings.minio_root_user, settings.minio_root_password)
    found = {}
    for bucket in ("bronze", "silver", "gold", "quarantine"):
        answer = s3.get_bucket_notification_configuration(Bucket=bucket)
        answer.pop("ResponseMetadata")
        found[bucket] = answer
    return found


def test_bootstrap_twice_is_the_same_as_once(ready: Settings) -> None:
    once = rules_of(ready)
    bootstrap_store(ready)
    assert rules_of(ready) == once


def test_rules_are_those_of_the_design(ready: Settings) -> None:
    rules = rules_of(ready)
    assert rules["quarantine"] == {}
    bronze = rules["bronze"]["QueueConfigurations"]
    assert [(rule["QueueArn"], sorted(rule["Events"]), rule.get("Filter")) for rule in bronze] == [
        (f"arn:minio:sqs:us-east-1:{target}:kafka", ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"], None)
        for target in ("BRONZE", "BRONZE_NOW")
    ]
    for bucket in ("silver", "gold"):
        configured = rules[bucket]["QueueConfigurations"]
        assert [rule["QueueArn"].split(":")[-2] for rule in configured] == [bucket.upper(), f"{bucket.upper()}_NOW"]
        for rule in configured:
            assert rule["Events"] == ["s3:ObjectCreated:*"]
            filters = {item["Name"]: item["Value"] for item in rule["Filter"]["Key"]["FilterRules"]}
            assert filters == {"prefix": "_commits/", "suffix": ".json"}


def test_bootstrap_sets_a_changed_secret(ready: Settings) -> None:
    changed = ready.model_copy(update={"spark_secret_key": SecretStr("another-secret-for-tests")})
    bootstrap_store(changed)
    try:
        assert store_for(changed, "spark").stat("bronze", "nothing") is None
        with pytest.raises(ServiceUnavailable, match="SignatureDoesNotMatch"):
            store_for(ready, "spark").stat("bronze", "nothing")
    finally:
        bootstrap_store(ready)


def test_only_a_marker_makes_an_event_in_silver(ready: Settings, spark: Store) -> None:
    queue = Path(notification_environment(ready, ready.home / "queue")["MINIO_NOTIFY_KAFKA_QUEUE_DIR_SILVER"])
    name = uuid.uuid4().hex
    spark.put_bytes("silver", f"nyc_yellow/data/{name}.parquet", b"x")
    spark.put_bytes("silver", f"nyc_yellow/metadata/{name}.json", b"x")
    spark.put_bytes("silver", f"_commits/nyc_yellow/{name}.json", b"x")

    # No Kafka is there to take the events, so they stay in the queue's files, in the order of the writes.
    wait = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda keys: not keys),
        stop=tenacity.stop_after_delay(20),
        wait=tenacity.wait_fixed(0.05),
    )
    assert wait(_queued, queue, name) == [f"_commits%2Fnyc_yellow%2F{name}.json"]


def _queued(queue: Path, name: str) -> list[str]:
    """Keys of the queued events that contain `name`."""
    contents = [path.read_text("utf-8") for path in queue.rglob("*.event")]
    return [json.loads(content)["s3"]["object"]["key"] for content in contents if name in content]


@pytest.fixture
def keeping(ready: Settings, tmp_path: Path) -> Iterator[Settings]:
    """The same store, whose contract of yellow trips says how long files stay."""
    kept = [
        {"property": "retention", "value": days, "unit": "d", "element": bucket}
        for bucket, days in (("bronze", 30), ("quarantine", 7))
    ]
    contracts = tmp_path / "contracts"
    shutil.copytree(ready.contracts_dir, contracts)
    path = contracts / "nyc_yellow.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump(values | {"slaProperties": kept}), "utf-8")
    yield ready.model_copy(update={"contracts_dir": contracts})
    for bucket in ("bronze", "quarantine"):
        store_for(ready, "root").set_lifecycle(bucket, "")


def lifecycle_of(settings: Settings, bucket: str) -> list[dict[str, Any]]:
    """A bucket's rules, as another client reads them."""
    s3 = client(settings, settings.minio_root_user, settings.minio_root_password)
    try:
        rules: list[dict[str, Any]] = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchLifecycleConfiguration":
            return []
        raise
    return rules


def test_files_expire_as_contracts_say_and_rules_of_others_stay(keeping: Settings, ready: Settings) -> None:
    theirs = (
        "<LifecycleConfiguration><Rule><ID>theirs</ID><Status>Enabled</Status><Filter><And><ObjectSizeGreaterThan>100"
        "</ObjectSizeGreaterThan><Prefix>x/</Prefix></And></Filter><Expiration><Days>3</Days></Expiration></Rule>"
        "</LifecycleConfiguration>"
    )
    root = store_for(ready, "root")
    root.set_lifecycle("bronze", theirs)
    for _ in range(2):
        bootstrap_store(keeping)
        other, own = lifecycle_of(ready, "bronze")
        assert other["Filter"]["And"]["ObjectSizeGreaterThan"] == 100
        assert (own["ID"], own["Status"]) == ("sluice-nyc_yellow", "Enabled")
        assert (own["Filter"]["Prefix"], own["Expiration"]) == ("nyc_yellow/", {"Days": 30})
        (copies,) = lifecycle_of(ready, "quarantine")
        assert (copies["Filter"]["Prefix"], copies["Expiration"]) == ("nyc_yellow/", {"Days": 7})
    # No contract asks for them any more.
    bootstrap_store(ready)
    assert root.lifecycle("bronze") == theirs
    assert lifecycle_of(ready, "quarantine") == []


def test_object_that_expires_makes_an_event_that_says_so(ready: Settings, root: Store) -> None:
    queue = Path(notification_environment(ready, ready.home / "queue")["MINIO_NOTIFY_KAFKA_QUEUE_DIR_BRONZE"])
    name = uuid.uuid4().hex
    rule = (
        f"<LifecycleConfiguration><Rule><ID>{name}</ID><Status>Enabled</Status><Filter><Prefix>{name}/</Prefix></Filter>"
        # A rule of days would take a day.
        "<Expiration><Date>2024-01-01T00:00:00Z</Date></Expiration></Rule></LifecycleConfiguration>"
    )
    for key in (f"{name}/expires.parquet", f"deleted-{name}.parquet"):
        root.put_bytes("bronze", key, b"x")
    root.set_lifecycle("bronze", rule)
    try:
        # MinIO removes what it is asked for at once; otherwise it comes by when it scans the bucket.
        assert root.stat("bronze", f"{name}/expires.parquet") is None
        secret = ready.minio_root_password
        client(ready, ready.minio_root_user, secret).delete_object(Bucket="bronze", Key=f"deleted-{name}.parquet")
        wait = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda events: len(events) < 4),
            stop=tenacity.stop_after_delay(30),
            wait=tenacity.wait_fixed(0.1),
        )
        events = wait(_events, queue, name)
    finally:
        root.set_lifecycle("bronze", "")
    written = {event.key: event.sequencer for event in events if event.created}
    removed = {event.key: event for event in events if event.removed}
    assert {key: event.expired for key, event in removed.items()} == {
        f"{name}/expires.parquet": True,
        f"deleted-{name}.parquet": False,
    }
    assert all(later(event.sequencer, written[key]) for key, event in removed.items())


def _events(queue: Path, name: str) -> list[BucketEvent]:
    """The queued events of keys that contain `name`."""
    contents = [path.read_text("utf-8") for path in queue.rglob("*.event")]
    bodies = [json.dumps({"Records": [json.loads(content)]}).encode() for content in contents if name in content]
    return [event for body in bodies for event in parse_events(body)]


def test_unknown_target_is_said_with_the_variable_to_set(root: Store, ready: Settings) -> None:
    with pytest.raises(ServiceUnavailable, match="MINIO_NOTIFY_KAFKA_ENABLE_NOWHERE=on"):
        root.set_notifications("quarantine", [NotifyRule("NOWHERE", ("s3:ObjectCreated:*",))])


def test_bootstrap_without_a_server_gives_up_after_its_patience(down: Settings) -> None:
    with pytest.raises(ServiceUnavailable):
        bootstrap_store(down, patience=0)


def test_policy_that_a_starting_server_does_not_know_yet_is_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    attach = MinioAdmin.policy_set

    def forgets(self: MinioAdmin, name: str, **whose: str) -> str:
        asked.append(name)
        if len(asked) == 1:
            raise MinioAdminException("404", '{"Code":"XMinioAdminNoSuchPolicy"}')
        return str(attach(self, name, **whose))

    monkeypatch.setattr(MinioAdmin, "policy_set", forgets)
    bootstrap_store(settings)
    assert len(asked) == 5


def test_bootstrap_without_secrets_says_that_the_stack_was_never_started() -> None:
    with pytest.raises(NotRunning):
        bootstrap_store(Settings())


def test_environment_has_a_queue_folder_and_topic_for_each_layer(tmp_path: Path) -> None:
    environment = notification_environment(Settings(port_base=20_000), tmp_path)
    assert environment["MINIO_NOTIFY_KAFKA_TOPIC_GOLD"] == "lake.gold.events"
    assert environment["MINIO_NOTIFY_KAFKA_BROKERS_BRONZE"] == "127.0.0.1:20002"
    folders = {environment[f"MINIO_NOTIFY_KAFKA_QUEUE_DIR_{rule.target}"] for rule, _ in RULES.values()}
    assert len(folders) == 3
    assert all(Path(folder).is_absolute() for folder in folders)
    assert not any(f"MINIO_NOTIFY_KAFKA_QUEUE_DIR_{rule.target}" in environment for _, rule in RULES.values())


ALLOWED = {
    "ingest": {"put bronze", "get bronze", "list bronze"},
    "reader": {
        f"{action} {place}"
        for action in ("get", "list")
        for place in ("silver", "gold", "silver/_commits", "gold/_commits")
    },
    "spark": {"get bronze", "list bronze"}
    | {f"{action} {bucket}" for action in ("put", "get", "list", "delete") for bucket in ("silver", "gold")}
    | {f"{action} {bucket}/_commits" for action in ("put", "get", "list", "delete") for bucket in ("silver", "gold")}
    | {"put quarantine"},
    "consumers": {"get bronze", "list bronze"}
    | {f"{action} {bucket}/_commits" for action in ("get", "list") for bucket in ("silver", "gold")},
}
PLACES = {
    "bronze": ("bronze", ""),
    "silver": ("silver", ""),
    "silver/_commits": ("silver", "_commits/"),
    "gold": ("gold", ""),
    "gold/_commits": ("gold", "_commits/"),
    "quarantine": ("quarantine", ""),
}


@pytest.mark.parametrize("role", ALLOWED)
def test_user_may_do_what_its_part_needs_and_nothing_else(ready: Settings, root: Store, role: str) -> None:
    user = getattr(ready, f"{role}_access_key")
    s3 = client(ready, user, getattr(ready, f"{role}_secret_key"))
    done, refusals = set(), set()
    for place, (bucket, prefix) in PLACES.items():
        key = f"{prefix}{uuid.uuid4().hex}"
        root.put_bytes(bucket, key, b"x")
        calls = {
            "get": lambda b=bucket, k=key: s3.get_object(Bucket=b, Key=k),
            "put": lambda b=bucket, k=key: s3.put_object(Bucket=b, Key=k, Body=b"y"),
            "list": lambda b=bucket, p=prefix: s3.list_objects_v2(Bucket=b, Prefix=p),
            "delete": lambda b=bucket, k=key: s3.delete_object(Bucket=b, Key=k),
        }
        for action, call in calls.items():
            try:
                call()
            except ClientError as error:
                refusals.add(error.response["Error"]["Code"])
            else:
                done.add(f"{action} {place}")
    assert done == ALLOWED[role]
    assert refusals == {"AccessDenied"}


def test_consumers_learn_that_a_marker_is_gone(consumers: Store) -> None:
    assert consumers.stat("silver", "_commits/nyc_yellow/none.json") is None


def test_denied_request_names_user_and_object(ingest: Store) -> None:
    with pytest.raises(StoreRefused, match=r"sluice-ingest .* silver/'x'"):
        ingest.put_bytes("silver", "x", b"")
