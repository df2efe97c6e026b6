"""What is told of containers, made of what Compose prints."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import NotRunning, ServiceUnavailable
from contracts.settings import HOST, Settings
from sluice import compose_stack
from sluice.cli import exit_code
from tests.servers import free_port_block


def container(service: str, state: str = "running", health: str = "healthy", **ports: int) -> dict[str, Any]:
    published = [
        {"URL": "127.0.0.1", "TargetPort": int(target.removeprefix("p")), "PublishedPort": port}
        for target, port in ports.items()
    ]
    name = f"sluice-{service}-1"
    return {"ID": name, "Name": name, "Service": service, "State": state, "Health": health, "Publishers": published}


@pytest.mark.parametrize(("ca_file", "scheme"), [(None, "http"), (Path("/etc/ca.crt"), "https")])
def test_pages_are_told_by_the_addresses_that_a_browser_opens(
    monkeypatch: pytest.MonkeyPatch, ca_file: Path | None, scheme: str
) -> None:
    found = [
        container("minio", p9000=9000, p9001=9001),
        container("airflow-api-server", p8080=8080),
        container("kafka", p9094=9094),
        container("init", state="exited", health=""),
    ]
    monkeypatch.setattr(compose_stack, "_containers", lambda: found)
    monkeypatch.setattr(compose_stack, "_memory", lambda ids: {})
    told = compose_stack.status(Settings(ca_file=ca_file))
    assert {item.name: item.url for item in told.services} == {
        "sluice-minio-1": f"{scheme}://127.0.0.1:9001/",
        "sluice-airflow-api-server-1": "http://127.0.0.1:8080/",
        "sluice-kafka-1": "127.0.0.1:9094",
    }
    assert told.ready


def engine(monkeypatch: pytest.MonkeyPatch, found: list[dict[str, Any]], address: str | None) -> list[str]:
    """An engine with these containers, Postgres' at an address; None: that one goes before it is asked for.

    Returns:
        Filled with the command that each process starts with.
    """
    asked: list[str] = []

    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        asked.append(" ".join(command[:3]))
        if "ps" in command:
            return subprocess.CompletedProcess(command, 0, "".join(json.dumps(item) + "\n" for item in found), "")
        assert command[-1] == "sluice-postgres-1"
        if address is None:
            return subprocess.CompletedProcess(command, 1, "\n", "Error: No such object: sluice-postgres-1")
        networks = {"sluice_database": {"Aliases": ["postgres"], "IPAddress": address, "GlobalIPv6Address": ""}}
        return subprocess.CompletedProcess(command, 0, json.dumps(networks) + "\n", "")

    monkeypatch.setattr(compose_stack, "_run", run)
    return asked


def test_postgres_is_at_its_container_s_address_which_costs_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = engine(monkeypatch, [container("minio", p9000=9000), container("postgres")], "172.18.0.3")
    found = compose_stack.environment()
    assert found["SLUICE_POSTGRES_ADDRESS"] == "172.18.0.3:5432"
    assert found["SLUICE_POSTGRES_NAME"] == "postgres"
    assert asked == ["docker compose ps", "docker inspect --format"]


def test_postgres_is_at_its_port_where_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = engine(monkeypatch, [container("postgres", p5432=5442)], "172.18.0.3")
    found = compose_stack.environment()
    assert found["SLUICE_POSTGRES_ADDRESS"] == "127.0.0.1:5442"
    assert "SLUICE_POSTGRES_NAME" not in found
    assert asked == ["docker compose ps"]


@pytest.mark.parametrize(
    ("containers", "address"),
    [
        ([], ""),
        ([container("postgres", state="exited", health="")], ""),
        ([container("postgres", state="restarting", health="")], ""),
        ([container("postgres")], None),
    ],
    ids=["none", "ended", "between two starts", "gone meanwhile"],
)
def test_without_postgres_the_stack_does_not_run(
    monkeypatch: pytest.MonkeyPatch, containers: list[dict[str, Any]], address: str | None
) -> None:
    engine(monkeypatch, [container("minio", p9000=9000), *containers], address)
    found = compose_stack.environment()
    assert "SLUICE_POSTGRES_ADDRESS" not in found
    with pytest.raises(NotRunning, match="docker compose up") as raised:
        compose_stack.require_running(Settings(minio_address=found["SLUICE_MINIO_ADDRESS"]))
    assert exit_code(raised.value) == 3


def at_container(port: int, ca_file: Path | None = None) -> Settings:
    """Settings with Postgres at a container's address, for which a port of this machine stands."""
    there = f"{HOST}:{port}"
    return Settings(minio_address=there, postgres_address=there, postgres_name="postgres", ca_file=ca_file)


def test_a_container_s_address_that_answers_is_taken() -> None:
    with socket.create_server((HOST, 0)) as server:
        compose_stack.require_running(at_container(server.getsockname()[1]))


@pytest.mark.parametrize(
    ("files", "ca_file", "kept"),
    [
        (None, None, "compose/compose.yaml"),
        (None, Path("/etc/ca.crt"), "compose/compose.yaml:compose/tls.yaml"),
        ("compose/compose.yaml:mine.yaml", None, "compose/compose.yaml:mine.yaml"),
    ],
)
def test_a_container_s_address_that_does_not_answer_is_told_with_the_overlay_that_helps(
    monkeypatch: pytest.MonkeyPatch, files: str | None, ca_file: Path | None, kept: str
) -> None:
    monkeypatch.delenv("COMPOSE_FILE", raising=False)
    if files is not None:
        monkeypatch.setenv("COMPOSE_FILE", files)
    settings = at_container(free_port_block(1), ca_file)
    with pytest.raises(ServiceUnavailable) as raised:
        compose_stack.require_running(settings)
    message = raised.value.message
    assert f"Postgres cannot be reached at {settings.postgres_address}" in message
    assert "Docker Desktop" in message
    assert message.endswith(f" COMPOSE_FILE={kept}:compose/postgres-port.yaml docker compose up -d")
    assert exit_code(raised.value) == 3


def test_status_has_the_address_of_postgres_with_and_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose_stack, "_memory", lambda ids: {})
    settings = Settings(postgres_address="172.18.0.3:5432", postgres_name="postgres")
    for found, address in ((container("postgres"), "172.18.0.3:5432"), (container("postgres", p5432=1), "127.0.0.1:1")):
        engine(monkeypatch, [found], None)
        assert [item.url for item in compose_stack.status(settings).services] == [address]
