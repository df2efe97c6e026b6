"""Which events of which bucket MinIO tells Kafka of, and the environment that it needs for that. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.markers import PREFIX
from contracts.settings import Settings
from ingest.policies import BRONZE, GOLD, SILVER

# Events that wait in files while Kafka is down; beyond this MinIO drops them, and reconcile has to find the objects.
QUEUE_LIMIT = 1_000_000


@dataclass(frozen=True)
class NotifyRule:
    """Which events of a bucket go to which notification target."""

    target: str
    """The target's name in MinIO, for example `BRONZE`."""
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""


_MARKERS = {"prefix": PREFIX, "suffix": ".json"}
_CREATED = ("s3:ObjectCreated:*",)
_CHANGED = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
# Each bucket has two targets. The one with a queue on disk loses nothing while Kafka is down, but MinIO empties that
# queue every 3 s only (internal/store/store.go, retryInterval); the other sends at once and keeps nothing. The router
# drops the second delivery.
RULES: dict[str, tuple[NotifyRule, NotifyRule]] = {
    BRONZE: (NotifyRule("BRONZE", _CHANGED), NotifyRule("BRONZE_NOW", _CHANGED)),
    # Part files and table metadata wake nobody; one marker a commit does.
    SILVER: (NotifyRule("SILVER", _CREATED, **_MARKERS), NotifyRule("SILVER_NOW", _CREATED, **_MARKERS)),
    GOLD: (NotifyRule("GOLD", _CREATED, **_MARKERS), NotifyRule("GOLD_NOW", _CREATED, **_MARKERS)),
}


def notification_environment(settings: Settings, queue_root: Path) -> dict[str, str]:
    """The environment that MinIO must be started with so that it knows the targets of `RULES`; holds a password.

    Args:
        queue_root: folder that outlives MinIO; each target keeps its unsent events in a folder of its own there.
    """
    login = settings.kafka_login("minio")
    signs_in = {
        "SASL": "on",
        "SASL_MECHANISM": "plain",
        "SASL_USERNAME": login.user or "",
        "SASL_PASSWORD": login.password.get_secret_value(),
    }
    if login.ca_file is not None:
        # Against the authorities in the folder of its certificates.
        signs_in |= {"TLS": "on", "TLS_SKIP_VERIFY": "off"}
    environment: dict[str, str] = {}
    for bucket, (durable, prompt) in RULES.items():
        values = {"ENABLE": "on", "BROKERS": login.bootstrap, "TOPIC": f"lake.{bucket}.events", **signs_in}
        queue = {"QUEUE_DIR": str(queue_root.resolve() / bucket), "QUEUE_LIMIT": str(QUEUE_LIMIT)}
        environment |= _target(prompt.target, values) | _target(durable.target, values | queue)
    return environment


def _target(target: str, values: dict[str, str]) -> dict[str, str]:
    return {f"MINIO_NOTIFY_KAFKA_{name}_{target}": value for name, value in values.items()}
