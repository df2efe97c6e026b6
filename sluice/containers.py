"""What a container of the compose stack starts with: the secrets of its part, then the part's process.

`python -m sluice.containers init` runs first and once: it makes the passwords and hands each part its own. So it does
with certificates where compose/tls.yaml names the file of their authority.
`python -m sluice.containers SERVICE` becomes the process of a service, with those.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contracts.errors import SluiceError
from contracts.settings import SECRETS_FILE, SPARK_BEHIND_TLS_PORT, Settings, load_settings
from ingest.notifications import notification_environment
from sluice import kafka_server, tls_front
from sluice.airflow_config import connections
from sluice.secrets import SECRETS, ensure_secrets, write_private
from sluice.services import BY_NAME, CELERY_WORKER, Service

SERVICES: Mapping[str, Service] = {**BY_NAME, CELERY_WORKER.name: CELERY_WORKER}

MINIO_DATA = Path("/data")
KAFKA_HOME = Path("/var/lib/sluice")
MOUNTED = Path("/run/secrets")
"""Where a container finds the secrets of its part, in a folder of the part's name."""


@dataclass(frozen=True)
class Part:
    """Who reads a folder of secrets, and what is in it."""

    uid: int | None
    """User id of the part's process in its container; None: whoever owns the folder, which is a person's."""
    settings: tuple[str, ...] = ()
    """Names of the secret settings that the part needs, for its `secrets.env`."""
    files: Callable[[Settings], Mapping[str, str]] = lambda settings: {}
    """Files for a server that is not ours: name to text."""


def _for_minio(settings: Settings) -> Mapping[str, str]:
    variables = {
        "MINIO_ROOT_USER": settings.minio_root_user,
        "MINIO_ROOT_PASSWORD": settings.minio_root_password.get_secret_value(),
        **notification_environment(settings, MINIO_DATA / "events"),
    }
    return {"config.env": "".join(f"{name}={value}\n" for name, value in variables.items())}


def _for_kafka(settings: Settings) -> Mapping[str, str]:
    own = settings.model_copy(update={"home": KAFKA_HOME})
    return {"server.properties": kafka_server.properties(own, MOUNTED / "kafka")}


def _for_postgres(settings: Settings) -> Mapping[str, str]:
    return {"password": settings.postgres_password.get_secret_value()}


def _for_valkey(settings: Settings) -> Mapping[str, str]:
    password = settings.redis_password.get_secret_value()
    return {"valkey.conf": f"requirepass {password}\n", "password": password}


def _for_kafka_ui(settings: Settings) -> Mapping[str, str]:
    login = settings.kafka_login("operator")
    password = login.password.get_secret_value()
    jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required "
    cluster: dict[str, Any] = {
        "name": "sluice",
        "bootstrapServers": login.bootstrap,
        "properties": {
            "security.protocol": login.protocol,
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": f'{jaas}username="{login.user}" password="{password}";',
        },
    }
    if login.ca_file is not None:
        trust = {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(login.ca_file)}
        cluster["properties"] = {**cluster["properties"], **trust}
    application = {
        "auth": {"type": "LOGIN_FORM"},
        "spring": {"security": {"user": {"name": login.user, "password": password}}},
        "kafka": {"clusters": [cluster]},
    }
    return {"application.yml": yaml.safe_dump(application)}


_AIRFLOW_UID, _SPARK_UID = 50000, 185

PARTS: Mapping[str, Part] = {
    "operator": Part(None, SECRETS),
    "bootstrap": Part(_AIRFLOW_UID, SECRETS),
    "postgres": Part(999, files=_for_postgres),
    "minio": Part(1000, files=_for_minio),
    "kafka": Part(1000, files=_for_kafka),
    "kafka-ui": Part(100, files=_for_kafka_ui),
    "valkey": Part(999, files=_for_valkey),
    "router": Part(_AIRFLOW_UID, ("kafka_router_password", "ledger_password", "consumers_secret_key")),
    "spark-worker": Part(_SPARK_UID, ("spark_secret_key",)),
    # Read by `warmup`, too.
    "spark-connect": Part(
        _SPARK_UID, ("spark_secret_key", "catalog_password", "spark_connect_token", "spark_remote")
    ),
    "airflow": Part(
        _AIRFLOW_UID,
        (
            "airflow_db_password", "airflow_service_password", "airflow_fernet_key", "airflow_jwt_secret",
            "airflow_secret_key", "redis_password", "kafka_listener_password", "kafka_reconcile_password",
            "ledger_password", "catalog_password", "spark_secret_key", "consumers_secret_key", "ingest_secret_key",
            "spark_connect_token", "spark_remote",
        ),
        files=lambda settings: {"connections.json": json.dumps(connections(settings))},
    ),
}  # fmt: skip


def write_secrets(folder: Path) -> None:
    """Make the passwords that are missing and write each part's folder: mode 0600, owned by who reads them.

    Args:
        folder: holds a folder a part; those that are not there are made.

    Raises:
        SetupError: somebody brought certificates, and one of them will not do.
    """
    master = ensure_secrets(folder / "operator")
    settings = Settings(_env_file=master)  # type: ignore[call-arg]
    _own(master, PARTS["operator"], folder)
    for name, part in PARTS.items():
        files = dict(part.files(settings))
        if part.settings and name != "operator":
            files[SECRETS_FILE] = "".join(
                f"SLUICE_{setting.upper()}={value.get_secret_value()}\n"
                for setting in part.settings
                if (value := getattr(settings, setting)) is not None
            )
        for file, text in files.items():
            path = folder / name / file
            if not path.exists() or path.read_text("utf-8") != text:
                write_private(path, text)
            _own(path, part, folder)
        # Containers come in as users of their own, whatever umask the folder was made with; its files are theirs alone.
        if part.uid is not None and (mode := (folder / name).stat().st_mode) & 0o011 != 0o011:
            (folder / name).chmod(mode & 0o777 | 0o011)
    if settings.ca_file is not None:
        _write_certificates(folder)


def _write_certificates(folder: Path) -> None:
    # Not at the top: the image of Spark runs this module as well, and has no use for the library.
    from sluice.certificates import CA_KEY, SERVERS, ensure_certificates

    ensure_certificates(folder)
    if (folder / CA_KEY).exists():
        _own(folder / CA_KEY, PARTS["operator"], folder)
    for name, files in SERVERS.items():
        for file in {files.certificate, files.key}:
            # Those that somebody brought may be readable for others.
            (folder / name / file).chmod(0o600)
            _own(folder / name / file, PARTS[name], folder)


def _own(path: Path, part: Part, folder: Path) -> None:
    if os.geteuid() == 0:
        uid = folder.stat().st_uid if part.uid is None else part.uid
        os.chown(path, uid, folder.stat().st_gid if part.uid is None else -1)


def _hand_over_volumes(folder: Path) -> None:
    """Let each part write to the volume of its name: a new volume is root's."""
    for volume in sorted(folder.iterdir()) if folder.is_dir() else ():
        uid = PARTS[volume.name].uid
        if uid is not None and volume.stat().st_uid != uid:
            shutil.chown(volume, uid)


def _become(name: str) -> None:
    service, settings = SERVICES[name], load_settings()
    if service.prepare is not None:
        service.prepare(settings)
    command = service.command(settings)
    environment = os.environ | command.environment
    if name == "spark-connect" and settings.ca_file is not None:
        certificate, port = MOUNTED / name / tls_front.CERTIFICATE, settings.ports.spark_connect
        sys.exit(tls_front.run(command.argv, environment, certificate, settings.listen, port, SPARK_BEHIND_TLS_PORT))
    os.execvpe(command.argv[0], command.argv, environment)  # noqa: S606 - the module's purpose


def main(argv: list[str]) -> int:
    """Entry point: `init`, or the name of a service; returns only for the former and when something is wrong."""
    if len(argv) != 1 or argv[0] not in {"init", *SERVICES}:
        print(f"usage: python -m sluice.containers init|{'|'.join(SERVICES)}", file=sys.stderr)
        return 2
    try:
        if argv[0] == "init":
            write_secrets(Path("/secrets"))
            _hand_over_volumes(Path("/volumes"))
            print("Passwords are made. Read the logins with: sluice --stack compose env")
        else:
            _become(argv[0])
    except (SluiceError, OSError) as error:
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
