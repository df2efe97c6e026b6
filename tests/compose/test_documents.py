"""The `docker` commands that the documents tell people to type, held against the compose file without an engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.settings import PROJECT
from tests.documents import DOCUMENTS, docker_commands

STACK: dict[str, Any] = yaml.safe_load((PROJECT / "compose" / "compose.yaml").read_text("utf-8"))
SERVICES = set(STACK["services"])
PROFILES = {profile for service in STACK["services"].values() for profile in service.get("profiles", ())}

WITH_SERVICES = {"build", "create", "kill", "logs", "pause", "ps", "pull", "restart", "rm", "start", "stats", "stop",
                 "top", "unpause", "up"}  # fmt: skip
"""Subcommands of `docker compose` whose words are services."""
WITH_ONE_SERVICE = {"cp", "exec", "port", "run"}
"""Those whose first word is one; what follows is the service's."""
WITHOUT = {"config", "down", "events", "images", "ls", "version"}
TAKE_A_VALUE = {"--tail", "-n", "--since", "--until", "--scale", "--profile", "--env-file", "--file", "-f", "--format",
                "--project-name", "-p", "--timeout", "-t", "--user", "-u"}  # fmt: skip
OTHER = {"docker stats", "docker system df", "docker builder prune", "docker kill", "docker info", "docker inspect"}
"""Commands beside `docker compose` that the documents may name."""

COMMANDS = [(page, command) for page in DOCUMENTS for command in docker_commands(page)]


def _problem(command: str) -> str | None:
    """What is wrong with a command; None when nothing is."""
    if not command.startswith("docker compose"):
        return None if any(f"{command} ".startswith(f"{known} ") for known in OTHER) else "not a known command"
    names, problems = [], []
    words = iter(shlex.split(command)[2:])
    for word in words:
        option, _, value = word.partition("=")
        if option in TAKE_A_VALUE and not (option == "-f" and "logs" in names):
            value = value or next(words, "")
            if option == "--scale" and value.partition("=")[0] not in SERVICES:
                problems.append(f"no service {value}")
            if option == "--profile" and value not in PROFILES:
                problems.append(f"no profile {value}")
        elif not word.startswith("-"):
            names.append(word)
            if names[0] in WITH_ONE_SERVICE and len(names) == 2:
                break
    if not names:
        return problems[0] if problems else None  # `docker compose` itself
    subcommand, rest = names[0], names[1:]
    if subcommand in WITH_SERVICES | WITH_ONE_SERVICE:
        problems += [f"no service {name}" for name in rest if name.partition(":")[0] not in SERVICES]
    elif subcommand not in WITHOUT:
        problems.append(f"no subcommand {subcommand}")
    return problems[0] if problems else None


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page.name}: {command}" for page, command in COMMANDS])
def test_docker_command_of_a_page_is_known_and_names_services_that_there_are(page: Path, command: str) -> None:
    assert _problem(command) is None


def test_troubleshooting_has_commands_for_containers() -> None:
    assert len(docker_commands(PROJECT / "docs" / "troubleshooting.md")) >= 10


@pytest.mark.parametrize(
    "command",
    [
        "docker compose logs --tail 100 spark-conect",
        "docker compose upp",
        "docker compose up --scale routers=3",
        "docker compose exec nobody df -h",
        "docker compose --profile nothing up",
        "docker rm everything",
    ],
)
def test_wrong_command_would_be_noticed(command: str) -> None:
    assert _problem(command) is not None
