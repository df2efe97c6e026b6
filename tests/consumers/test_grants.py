"""Who may do what in Kafka: each user tries all of it on a real broker, with a client that is not ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import confluent_kafka
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from kafka import KafkaAdminClient
from kafka.errors import AuthorizationError

from consumers.broker import Producer, Reader, client_options, ensure_grants, ensure_topics, topics_retention
from consumers.grants import GRANTS, Grant
from consumers.topics import PARTITIONS, retention_days
from contracts.errors import ServiceUnavailable
from contracts.settings import HOST, KafkaLogin, Settings
from sluice import kafka_server
from tests.servers import running_kafka, settings_in

pytestmark = pytest.mark.services

EVENTS = ("lake.bronze.events", "lake.silver.events", "lake.gold.events")
WORK = ("lake.bronze.work", "lake.silver.work")
GROUPS = ("sluice-router", "sluice-listen-bronze", "sluice-listen-silver", "somebody")
# Written out once more, and not made of GRANTS: user -> what it may do.
ALLOWED = {
    "minio": {f"write {topic}" for topic in EVENTS},
    "router": {
        *(f"read {topic}" for topic in EVENTS),
        *(f"write {topic}" for topic in (*WORK, "lake.dlq")),
        "be in sluice-router",
        "look at sluice-router",
    },
    "listener": {
        *(f"read {topic}" for topic in WORK),
        "write lake.dlq",
        *(
            f"{what} {group}"
            for what in ("be in", "look at")
            for group in ("sluice-listen-bronze", "sluice-listen-silver")
        ),
    },
    "reconcile": {
        *(f"{what} {topic}" for what in ("read", "write") for topic in (*EVENTS, *WORK)),
        *(f"look at {group}" for group in GROUPS if group != "somebody"),
    },
    "operator": {
        *(f"{what} {topic}" for what in ("read", "write") for topic in (*EVENTS, *WORK)),
        "read lake.dlq",
        *(f"look at {group}" for group in GROUPS if group != "somebody"),
    },
}
TOPIC_REFUSED, GROUP_REFUSED = KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED
Client = dict[str, object]
PROPERTIES = kafka_server.properties


def _as_older_versions_had_it(settings: Settings) -> str:
    """A broker that asks nobody who they are."""
    address = f"PLAINTEXT://127.0.0.1:{settings.ports.kafka},CONTROLLER://127.0.0.1:{settings.ports.kafka_controller}"
    lines = [
        line
        for line in PROPERTIES(settings).splitlines()
        if not any(word in line.partition("=")[0] for word in ("sasl", "listeners", "inter.broker", "authorizer"))
        and not line.startswith(("listener.security", "super.users"))
    ]
    older = [
        f"listeners={address}",
        f"advertised.listeners={address}",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names=CONTROLLER",
        "inter.broker.listener.name=PLAINTEXT",
    ]
    return "\n".join([*lines, *older]) + "\n"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A bootstrapped broker, whose data folder and one message in each topic are of a version that knew no users."""
    settings = settings_in(tmp_path_factory.mktemp("kafka"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_server, "properties", _as_older_versions_had_it)
        with running_kafka(settings):
            anybody = KafkaLogin(bootstrap=settings.kafka_bootstrap)
            ensure_topics(anybody, dict.fromkeys(PARTITIONS, 1))
            old = Producer(anybody)
            for topic in PARTITIONS:
                old.send(topic, None, b"from before")
            old.flush()
            old.close()
    with running_kafka(settings):
        admin = settings.kafka_login("admin")
        # What an older version granted goes.
        ensure_grants(admin, {Grant("minio", "READ", "TOPIC", "lake.dlq"), *GRANTS})
        ensure_grants(admin)
        ensure_topics(admin, retention_days(settings))
        yield settings


def _client(settings: Settings, user: str, password: str | None = None) -> Client:
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": settings.kafka_passwords[user].get_secret_value() if password is None else password,
        "socket.timeout.ms": 10_000,
        "log_level": 0,
    }


def _writes(client: Client) -> dict[str, int]:
    """What came of a write to each topic: 0, or the error's code."""
    codes: dict[str, int] = {}
    producer = confluent_kafka.Producer({**client, "delivery.timeout.ms": 15_000, "enable.idempotence": True})
    for topic in PARTITIONS:
        told = partial(_tell, codes, f"write {topic}")
        try:
            producer.produce(topic, b"x", on_delivery=told)
        except KafkaException as error:
            told(error.args[0], None)
        assert producer.flush(20) == 0
    return codes


def _tell(codes: dict[str, int], what: str, error: KafkaError | None, _message: object) -> None:
    codes[what] = error.code() if error else 0


def _reads(client: Client) -> dict[str, int]:
    """What came of a read of each topic; each holds a message."""
    codes: dict[str, int] = {}
    for topic, partitions in PARTITIONS.items():
        consumer = Consumer({**client, "group.id": "nobody", "enable.auto.commit": False})
        refused = consumer.list_topics(topic, timeout=20).topics[topic].error
        if refused is not None:
            codes[f"read {topic}"] = refused.code()
        else:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
            limit = time.monotonic() + 30
            while f"read {topic}" not in codes and time.monotonic() < limit:
                message = consumer.poll(1)
                # What is about no topic is about the group, which a reader of given partitions does not need.
                if message is not None and message.topic() is not None:
                    codes[f"read {topic}"] = message.error().code() if message.error() else 0
        consumer.close()
    return codes


def _memberships(client: Client) -> dict[str, int]:
    """What came of joining each group."""
    codes = {}
    for group in GROUPS:
        joined: list[object] = []
        consumer = Consumer({**client, "group.id": group, "enable.auto.commit": False})
        consumer.subscribe(list(PARTITIONS), on_assign=lambda _, parts, joined=joined: joined.append(parts))
        limit = time.monotonic() + 30
        error = None
        while not joined and error is None and time.monotonic() < limit:
            message = consumer.poll(0.5)
            if message is not None and message.error() and message.error().code() != TOPIC_REFUSED:
                error = message.error()
        assert joined or error, f"nothing came of joining {group}"
        codes[f"be in {group}"] = 0 if joined else error.code()
        consumer.close()
    return codes


def _looks(login: KafkaLogin) -> dict[str, int]:
    """What came of asking about each group; librdkafka would ask again and again."""
    codes = {}
    admin = KafkaAdminClient(**client_options(login))
    for group in GROUPS:
        try:
            admin.list_group_offsets([group])
            codes[f"look at {group}"] = 0
        except AuthorizationError as error:
            codes[f"look at {group}"] = error.errno
    admin.close()
    return codes


@pytest.mark.parametrize("user", ALLOWED)
def test_user_may_do_what_its_part_needs_and_nothing_else(broker: Settings, user: str) -> None:
    client = _client(broker, user)
    codes = _writes(client) | _reads(client) | _memberships(client) | _looks(broker.kafka_login(user))
    assert len(codes) == 2 * len(PARTITIONS) + 2 * len(GROUPS)
    assert {what for what, code in codes.items() if code == 0} == ALLOWED[user]
    assert {code for code in codes.values() if code} == {TOPIC_REFUSED, GROUP_REFUSED}


@pytest.mark.parametrize("user", [*ALLOWED, "admin"])
def test_only_the_admin_makes_and_deletes_topics_and_says_who_may_what(broker: Settings, user: str) -> None:
    login, name = broker.kafka_login(user), f"made-by-{user}"
    admin = KafkaAdminClient(**client_options(login))
    calls = [
        lambda: admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}}),
        lambda: admin.delete_topics([name if user == "admin" else "lake.dlq"]),
    ]
    try:
        for call in calls:
            with nullcontext() if user == "admin" else pytest.raises(AuthorizationError):
                call()
    finally:
        admin.close()
    with nullcontext() if user == "admin" else pytest.raises(ServiceUnavailable, match=f"its user {user}"):
        ensure_grants(login)


def test_nobody_gets_in_without_the_right_name_and_password(broker: Settings) -> None:
    wrong = [("router", "wrong"), ("router", ""), ("nobody", "wrong"), ("admin", "router-for-tests")]
    logins = [KafkaLogin(bootstrap=broker.kafka_bootstrap, user=user, password=word) for user, word in wrong]  # type: ignore[arg-type]
    logins += [KafkaLogin(bootstrap=f"{HOST}:{port}") for port in (broker.ports.kafka, broker.ports.kafka_controller)]
    # At once, since each client tries for some seconds before it gives up.
    with ThreadPoolExecutor(len(logins)) as pool:
        assert list(pool.map(_is_let_in, logins)) == [False] * len(logins)
    assert _is_let_in(broker.kafka_login("operator"))


def _is_let_in(login: KafkaLogin) -> bool:
    try:
        with Reader(login) as reader:
            reader.bounds("lake.dlq", 0)
    except ServiceUnavailable:
        return False
    return True


def _kept(login: KafkaLogin, expected: dict[str, float | None]) -> bool:
    """Whether the broker keeps messages for so many days; the controller tells it a moment later."""
    limit = time.monotonic() + 20
    while (found := topics_retention(login)) != expected and time.monotonic() < limit:
        time.sleep(0.1)
    return found == expected


def test_topics_keep_messages_as_long_as_the_settings_say_also_those_that_were_there(broker: Settings) -> None:
    admin, operator = broker.kafka_login("admin"), broker.kafka_login("operator")
    assert _kept(operator, {topic: 365 if topic == "lake.dlq" else 7 for topic in PARTITIONS})
    changed = broker.model_copy(update={"kafka_retention_days": 3, "dead_letter_retention_days": 30})
    for _ in range(2):
        ensure_topics(admin, retention_days(changed))
        assert _kept(operator, {topic: 30 if topic == "lake.dlq" else 3 for topic in PARTITIONS})
    ensure_topics(admin, retention_days(broker))
    assert _kept(operator, {topic: 365 if topic == "lake.dlq" else 7 for topic in PARTITIONS})
    # Who may not ask about a topic is told nothing.
    assert topics_retention(broker.kafka_login("minio")) == {}


@pytest.mark.parametrize("topic", PARTITIONS)
def test_messages_of_before_there_were_users_are_still_there(broker: Settings, topic: str) -> None:
    with Reader(broker.kafka_login("operator")) as reader:
        values = [m.value for part in range(PARTITIONS[topic]) for m in reader.read(topic, part, 0, 10**9)]
    assert values.count(b"from before") == 1


def test_file_with_the_passwords_is_its_owner_s_alone_and_the_log_has_none(broker: Settings) -> None:
    file = broker.home / "kafka" / "server.properties"
    assert file.stat().st_mode & 0o777 == 0o600
    log = (broker.home / "kafka.log").read_text()
    assert "lake.bronze.work" in log
    assert not any(password.get_secret_value() in log for password in broker.kafka_passwords.values())
