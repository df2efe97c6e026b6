"""The Kafka broker: one KRaft node, which lets nobody in without a password."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Iterable
from pathlib import Path

from contracts.errors import SetupError
from contracts.settings import HOST, Settings
from sluice import install
from sluice.secrets import write_private

HEAP = "384m"
LISTENER = "CLIENTS"
OUTSIDE = "OUTSIDE"
OUTSIDE_PORT = 9094
"""Where the second listener is, which only a broker in a container has; see `Settings.kafka_outside_address`."""
HEALTH = "HEALTH"
HEALTH_PORT = 9095
"""Where a broker that speaks TLS listens on its own container's loopback address, for its health check alone: the check
is a few bytes sent by a shell."""
KEYSTORE = "server.pem"
"""Name of the file with the broker's key and certificate."""
BROKER = "admin"
"""The user that the broker is to itself and to the bootstrap."""


def _folder(settings: Settings) -> Path:
    return settings.home / "kafka"


def properties_file(settings: Settings) -> Path:
    """Where `properties` is written, with mode 0600."""
    return _folder(settings) / "server.properties"


def properties(settings: Settings, secrets: Path | None = None) -> str:
    """The broker's server.properties; holds the passwords of all its users, so write it for its owner alone.

    Args:
        secrets: folder with the broker's `KEYSTORE`, where `settings` name a certificate authority.
    """
    ports, login = settings.ports, settings.kafka_login(BROKER)
    listeners = {LISTENER: (ports.kafka, settings.kafka_bootstrap)}
    if settings.kafka_outside_address is not None:
        listeners[OUTSIDE] = (OUTSIDE_PORT, settings.kafka_outside_address)
    if settings.ca_file is not None:
        listeners[HEALTH] = (HEALTH_PORT, f"{HOST}:{HEALTH_PORT}")
    listeners["CONTROLLER"] = (ports.kafka_controller, f"{settings.own_address}:{ports.kafka_controller}")
    clients = [name for name in listeners if name != "CONTROLLER"]
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": listeners["CONTROLLER"][1],
        "listeners": ",".join(
            f"{name}://{HOST if name == HEALTH else settings.listen}:{port}" for name, (port, _) in listeners.items()
        ),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, (_, address) in listeners.items()),
        "listener.security.protocol.map": ",".join(
            f"{name}:{'SASL_PLAINTEXT' if name == HEALTH else login.protocol}" for name in listeners
        ),
        **_certificates(settings, secrets),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": LISTENER,
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        **{
            f"listener.name.{name.lower()}.plain.sasl.jaas.config": _logins(settings, settings.kafka_passwords)
            for name in clients
        },
        # The broker alone speaks to its controller.
        "listener.name.controller.plain.sasl.jaas.config": _logins(settings, [BROKER]),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{BROKER}",
        "log.dirs": _path(_folder(settings) / "data"),
        "auto.create.topics.enable": "false",
        "num.partitions": "3",
        "offsets.topic.num.partitions": "3",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # A listener that comes back has its partitions after 0.2 s instead of 3 s (measured).
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "3000",
        "log.retention.hours": "168",
        "log.segment.bytes": "67108864",
    }
    return _escaped("".join(f"{name}={value}\n" for name, value in values.items()))


def _path(path: Path) -> str:
    return str(path).replace("\\", "\\\\")


def _escaped(text: str) -> str:
    """Text as Java reads it from a file of properties: what is not ASCII as `\\uXXXX`, in units of UTF-16."""
    return "".join(character if character.isascii() else _units(character) for character in text)


def _units(character: str) -> str:
    # A name of a file that is not UTF-8 has half of a pair for each byte that does not fit.
    code = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{unit}" for unit in code.hex(" ", 2).split())


def _certificates(settings: Settings, secrets: Path | None) -> dict[str, str]:
    if settings.ca_file is None or secrets is None:
        return {}
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": _path(secrets / KEYSTORE),
        # For what the broker says to itself.
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": _path(settings.ca_file),
    }


def _logins(settings: Settings, users: Iterable[str]) -> str:
    """JAAS: as whom the broker signs in to itself, and who may sign in with which password."""
    passwords = {user: settings.kafka_passwords[user].get_secret_value() for user in users}
    own = {"username": BROKER, "password": passwords[BROKER]}
    options = own | {f"user_{user}": password for user, password in passwords.items()}
    told = " ".join(f"{name}={_quoted(value)}" for name, value in options.items())
    return f"org.apache.kafka.common.security.plain.PlainLoginModule required {told};"


def _quoted(value: str) -> str:
    # Once for JAAS, once more for the file of properties: a password may come from the environment.
    for_jaas = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + for_jaas.replace("\\", "\\\\") + '"'


def _class_path(settings: Settings) -> str:
    return str(settings.cache / "kafka-jars" / "*")


def argv(settings: Settings, java_home: str, logging: Path) -> list[str]:
    """The broker's command line."""
    return [
        f"{java_home}/bin/java", f"-Xmx{HEAP}", "-Xms128m", *install.QUICK_JVM, "-XX:+ExitOnOutOfMemoryError",
        f"-Dlog4j2.configurationFile={logging}", "-cp", _class_path(settings),
        "kafka.Kafka", str(properties_file(settings)),
    ]  # fmt: skip


def new_cluster_id() -> str:
    """A random id for a cluster: 16 bytes in URL-safe base64, 22 characters.

    None begins with "-", as with Kafka's own `random-uuid`: the storage tool would read it as an option.
    """
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return cluster_id


def prepare(settings: Settings) -> None:
    """Write the properties and format the data folder at the first start.

    Raises:
        SetupError: Java is missing, or the storage tool failed; its last lines are in the message.
    """
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    file = properties_file(settings)
    write_private(file, properties(settings))
    if (folder / "data" / "meta.properties").exists():
        return
    java = install.find_java()
    if java is None:
        raise SetupError("Java 17 or 21 is missing; run: sluice doctor")
    done = subprocess.run(
        [
            str(java.binary), f"-Dlog4j2.configurationFile={install.LOGGING}",
            "-cp", _class_path(settings), "kafka.tools.StorageTool",
            "format", "--standalone", "-t", new_cluster_id(), "-c", str(file),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SetupError(f"Kafka's data folder {folder / 'data'} could not be formatted: {done.stderr[-800:]}")
