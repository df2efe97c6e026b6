"""Edge: Docker Compose. Looks at the stack in containers from outside, starts and stops it.

The project is what plain `docker compose` in the repository's root means: by its `.env`, and by `COMPOSE_*` variables.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contracts.errors import NotRunning, ServiceUnavailable, SetupError, UsageError
from contracts.settings import PROJECT, SECRETS_FILE, Settings, load_settings
from sluice.status import Say, ServiceStatus, StackStatus

WAIT_SECONDS = 600
_ROUTE_SECONDS = 3.0
"""To a container of this machine it takes a millisecond; where there is no way, packets are mostly lost."""

_POSTGRES = "postgres"
"""The service, and the name that its certificate is for."""
_POSTGRES_PORT = 5432
# Setting to service and the port that it has inside its container.
_PUBLISHED = {
    "SLUICE_MINIO_ADDRESS": ("minio", 9000),
    "SLUICE_MINIO_CONSOLE_ADDRESS": ("minio", 9001),
    "SLUICE_KAFKA_ADDRESS": ("kafka", 9094),
    "SLUICE_POSTGRES_ADDRESS": (_POSTGRES, _POSTGRES_PORT),
    "SLUICE_SPARK_MASTER_ADDRESS": ("spark-master", 7077),
    "SLUICE_SPARK_CONNECT_ADDRESS": ("spark-connect", 15002),
    "SLUICE_AIRFLOW_ADDRESS": ("airflow-api-server", 8080),
}
_PAGES = {("minio", 9001), ("spark-master", 8081), ("spark-worker-ui", 8082), ("airflow-api-server", 8080)}
_STORAGE = (_POSTGRES, "minio", "kafka")
_TLS_LABEL = "sluice.ca"
"""Compose's overlay for TLS puts it on a container, with where the authority's certificate is below the secrets."""
_ONE_SHOT = ("init", "bootstrap", "warmup")


def environment() -> dict[str, str]:
    """Settings by which this machine reaches what runs: where each published port is, and the passwords' file.

    Of Postgres, which publishes none by itself: its container's address.

    Raises:
        SetupError: there is no Docker engine or no Compose.
    """
    folder = Path(os.environ.get("SECRETS_FOLDER") or PROJECT / "compose" / "secrets")
    found = {"SLUICE_SECRETS_FILE": str(folder / "operator" / SECRETS_FILE)}
    containers = _containers()
    ports = {(item["Service"], port["TargetPort"]): port for item in containers for port in item["Publishers"] or ()}
    if (ca := _ca_file(containers)) is not None:
        found["SLUICE_CA_FILE"] = str((folder / ca).resolve())
    for setting, key in _PUBLISHED.items():
        if (port := ports.get(key)) is not None and port["PublishedPort"]:
            found[setting] = f"{port['URL']}:{port['PublishedPort']}"
    if "SLUICE_POSTGRES_ADDRESS" not in found and (ip := _postgres_ip(containers)) is not None:
        found |= {"SLUICE_POSTGRES_ADDRESS": f"{ip}:{_POSTGRES_PORT}", "SLUICE_POSTGRES_NAME": _POSTGRES}
    return found


def _postgres_ip(containers: Sequence[dict[str, Any]]) -> str | None:
    """IP address of Postgres' container in its network `database`; None: it does not run, or has just gone."""
    ids = [item["ID"] for item in containers if item["Service"] == _POSTGRES and item["State"] != "exited"]
    if not ids:
        return None
    # Compose tells the networks of a container, and not its address there.
    done = _run(["docker", "inspect", "--format", "{{json .NetworkSettings.Networks}}", *ids])
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    addresses: list[str] = [network["IPAddress"] for line in lines for network in json.loads(line).values()]
    # It is in one network, and has an empty address there while it starts or stops.
    return next(filter(None, addresses), None)


def _ca_file(containers: Sequence[dict[str, Any]]) -> str | None:
    labels = (label.partition("=") for item in containers for label in item.get("Labels", "").split(","))
    return next((value for name, _, value in labels if name == _TLS_LABEL), None)


def require_running(settings: Settings) -> None:
    """Raise unless Postgres and MinIO, without which nothing can be asked, are to be reached.

    Raises:
        NotRunning: the container of one does not run.
        ServiceUnavailable: nothing answers at the address of Postgres' container.
    """
    if settings.postgres_address is None or settings.minio_address is None:
        raise NotRunning("The stack in containers is not running. Start it with: docker compose up -d --wait")
    if settings.postgres_name is not None:
        _require_route(settings, settings.postgres_address)


def _require_route(settings: Settings, address: str) -> None:
    ip, _, port = address.rpartition(":")
    try:
        socket.create_connection((ip, int(port)), timeout=_ROUTE_SECONDS).close()
    except OSError as error:
        # With the overlay of TLS left out, `up` would make the stack's connections plain.
        own = "compose/compose.yaml" if settings.ca_file is None else "compose/compose.yaml:compose/tls.yaml"
        files = os.environ.get("COMPOSE_FILE") or own
        raise ServiceUnavailable(
            f"Postgres cannot be reached at {address}, the address of its container: {error.strerror or error}. "
            "Where `docker compose ps` calls it healthy, this machine has no way to the network of the containers, as "
            "with Docker Desktop and rootless engines. Publish its port then: "
            f"COMPOSE_FILE={files}:compose/postgres-port.yaml docker compose up -d"
        ) from error


def up(say: Say) -> Settings:
    """Start what is not running, and wait until all is healthy.

    Raises:
        SetupError: there is no engine, or the images are not built.
        ServiceUnavailable: a part did not become healthy; Compose's last lines are in the message.
    """
    done = _compose(["up", "--detach", "--wait", "--wait-timeout", str(WAIT_SECONDS)])
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-6:])
        if "No such image" in tail or "pull access denied" in tail:
            raise SetupError(f"An image is missing; build with: docker compose build\n{tail}")
        raise ServiceUnavailable(f"The stack in containers did not start. See: docker compose ps --all\n{tail}")
    os.environ.update(environment())
    say("all containers are healthy")
    return load_settings()


def start_storage(say: Say) -> Settings:
    """Leave nothing running but what holds data: Postgres, MinIO and Kafka.

    Raises:
        ServiceUnavailable: one of them did not become healthy, or Postgres cannot be reached from here.
    """
    others = [name for name in _compose(["config", "--services"]).stdout.split() if name not in (*_STORAGE, "init")]
    for arguments in (["stop", *others], ["up", "--detach", "--wait", "--wait-timeout", str(WAIT_SECONDS), *_STORAGE]):
        done = _compose(arguments)
        if done.returncode:
            raise ServiceUnavailable(f"docker compose {arguments[0]} failed:\n{done.stderr[-800:]}")
    say("only " + ", ".join(_STORAGE) + " are running")
    os.environ.update(environment())
    settings = load_settings()
    require_running(settings)
    return settings


def postgres_client(settings: Settings, tool: str) -> tuple[list[str], dict[str, str]]:
    """Command line (for `PROJECT`) and environment of a client program in Postgres' container, as the superuser."""
    user = f"--username={settings.postgres_superuser}"
    return ["docker", "compose", "exec", "-T", _POSTGRES, tool, user], dict(os.environ)


def down(say: Say) -> None:
    """Stop and remove every container; the volumes stay."""
    done = _compose(["down"])
    if done.returncode:
        raise ServiceUnavailable(f"docker compose down failed:\n{done.stderr[-800:]}")
    say("containers are gone, volumes are kept")


def status(settings: Settings) -> StackStatus:
    """Look at every container once; replicas of a service are counted one by one."""
    found = [item for item in _containers() if item["Service"] not in _ONE_SHOT]
    memory = _memory([item["ID"] for item in found if item["State"] == "running"])
    named = sorted(found, key=lambda item: str(item["Name"]))
    services = tuple(_service_status(item, memory, settings) for item in named)
    return StackStatus(ready=bool(services) and all(item.state == "running" for item in services), services=services)


def _service_status(item: dict[str, Any], memory: dict[str, int], settings: Settings) -> ServiceStatus:
    if item["State"] != "running":
        state = "failed" if item["State"] in ("restarting", "dead") else "stopped"
    else:
        state = {"healthy": "running", "starting": "starting", "": "running"}.get(item["Health"], "unhealthy")
    published = [port for port in item["Publishers"] or () if port["PublishedPort"]]
    best = min(published, key=lambda port: (item["Service"], port["TargetPort"]) not in _PAGES, default=None)
    address = f"{best['URL']}:{best['PublishedPort']}" if best else None
    if best is None and item["Service"] == _POSTGRES:
        address = settings.postgres_address
    page = best is not None and (item["Service"], best["TargetPort"]) in _PAGES
    # Of the pages, MinIO's alone is behind the stack's TLS.
    web = "https" if settings.ca_file is not None and item["Service"] == "minio" else "http"
    return ServiceStatus(
        name=item["Name"], state=state, pid=None, url=f"{web}://{address}/" if page else address,
        memory_mb=memory.get(item["ID"][:12], 0),
    )  # fmt: skip


def _memory(ids: Sequence[str]) -> dict[str, int]:
    """Mebibytes that each container holds."""
    if not ids:
        return {}
    done = _run(["docker", "stats", "--no-stream", "--format", "{{.ID}} {{.MemUsage}}", *ids])
    lines = (line.split() for line in done.stdout.splitlines())
    return {words[0][:12]: _mebibytes(words[1]) for words in lines if len(words) > 1}


def _mebibytes(text: str) -> int:
    for unit, size in (("GiB", 1024.0), ("MiB", 1.0), ("KiB", 1 / 1024), ("B", 1 / 2**20)):
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * size)
    return 0


def last_lines(settings: Settings, service: str, count: int) -> list[str]:
    """The last lines of a service's log, of all its replicas.

    Raises:
        UsageError: there is no such service.
    """
    done = _compose(["logs", "--no-color", "--no-log-prefix", "--tail", str(count), _known(service)])
    return done.stdout.splitlines()


def follow_lines(settings: Settings, service: str) -> Iterator[str]:
    """New lines of a service's log as they come."""
    command = ["docker", "compose", "logs", "--no-color", "--no-log-prefix", "--tail", "0", "--follow", _known(service)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        yield from (line.rstrip("\n") for line in process.stdout or ())


def _known(service: str) -> str:
    names = sorted(_compose(["config", "--services"]).stdout.split())
    if service not in names:
        raise UsageError(f"No service is called {service!r}. Known: {', '.join(names)}.")
    return service


def _containers() -> list[dict[str, Any]]:
    done = _compose(["ps", "--all", "--format", "json"])
    if done.returncode:
        raise SetupError(f"Docker cannot be asked: {done.stderr.strip()[-400:]}")
    # One object a line, as Compose prints since 2.21.
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _compose(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return _run(["docker", "compose", *arguments])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SetupError(
            f"`docker` cannot be run ({error.strerror}); install Docker with Compose 2.21 or newer."
        ) from error
