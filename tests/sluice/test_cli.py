"""The command line without a stack."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts import errors
from contracts.states import FileState, Hop
from contracts.story import FileStory, Passage
from sluice import render
from sluice.cli import app, exit_code
from sluice.files import wait_for_end
from tests.sluice.stories import make_story


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_STACK", "processes")  # `sluice` sets it by its option, and this is its process
    return lambda *arguments: CliRunner().invoke(app, arguments)


COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


OF_GROUPS = [
    f"{group.name} {command.name}"
    for group in app.registered_groups
    if group.typer_instance
    for command in group.typer_instance.registered_commands
]


@pytest.mark.parametrize("command", [*COMMANDS, *OF_GROUPS])
def test_every_command_takes_json_and_explains_itself(run: Callable[..., object], command: str) -> None:
    shown = run(*command.split(), "--help")
    assert shown.exit_code == 0  # type: ignore[attr-defined]
    assert "--json" in shown.output  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.UnknownDataset("x"), 2),
        (errors.ContractError("x"), 2),
        (errors.NotRunning("x"), 3),
        (errors.ServiceUnavailable("x"), 3),
        (errors.WaitTimedOut("x"), 5),
        (errors.SetupError("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_error_has_its_exit_code(error: errors.SluiceError, code: int) -> None:
    assert exit_code(error) == code


def test_status_of_a_stack_that_never_ran_is_json_and_exit_code_3(run: Callable[..., object]) -> None:
    shown = run("status", "--json")
    assert shown.exit_code == 3  # type: ignore[attr-defined]
    answer = json.loads(shown.output)  # type: ignore[attr-defined]
    assert answer["ready"] is False
    assert {service["state"] for service in answer["services"]} == {"stopped"}


def test_without_docker_the_stack_in_containers_is_told_of_as_json_too(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    shown = run("--stack", "compose", "status", "--json")
    assert shown.exit_code == 1  # type: ignore[attr-defined]
    assert json.loads(shown.output)["error"] == "SetupError"  # type: ignore[attr-defined]


def test_command_that_needs_a_stack_says_how_to_start_it(run: Callable[..., object]) -> None:
    shown = run("why", "bronze/x")
    assert shown.exit_code == 3  # type: ignore[attr-defined]
    assert "sluice up" in shown.output  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_PORT_BASE", "no-number"),
        ("SLUICE_SPARK_CORES", "0"),
        ("SLUICE_SPARK_REMOTE", "sc://host:no-port/;token=no-port"),
        ("SLUICE_AIRFLOW_RETENTION_DAYS", "7"),
    ],
)
def test_setting_of_no_such_value_is_told_by_its_name_and_is_not_shown(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    shown = run("status", "--json")
    assert shown.exit_code == 2  # type: ignore[attr-defined]
    told = json.loads(shown.output)  # type: ignore[attr-defined]
    assert told["error"] == "UsageError"
    assert name in told["message"]
    assert "unset it" in told["message"]
    assert "no-" not in told["message"]


def test_all_files_are_asked_for_of_a_snapshot(run: Callable[..., object]) -> None:
    shown = run("why", "--all", "bronze/x")
    assert shown.exit_code == 2  # type: ignore[attr-defined]
    assert "--all goes with --snapshot" in shown.output  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "arguments",
    [
        ["redrive"],
        ["discard"],
        ["discard", "1", "--reason", "bad_event"],
        ["redrive", "-1"],
        ["show", "x"],
        ["show"],
        ["list", "--since", "noon"],
    ],
    ids=" ".join,
)
def test_dead_letters_are_not_touched_without_saying_which(run: Callable[..., object], arguments: list[str]) -> None:
    assert run("dlq", *arguments).exit_code == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [["list"], ["show", "1"], ["redrive", "1", "2"], ["discard", "--reason", "x"]])
def test_dead_letters_need_a_stack(run: Callable[..., object], arguments: list[str]) -> None:
    shown = run("dlq", *arguments, "--json")
    assert shown.exit_code == 3  # type: ignore[attr-defined]
    assert json.loads(shown.output)["error"] == "NotRunning"  # type: ignore[attr-defined]


def test_json_keeps_numbers_as_numbers() -> None:
    row = {"revenue": Decimal("12.50"), "at": datetime(2025, 1, 31, 13, 5)}
    assert json.loads(json.dumps(row, default=render.plain)) == {"revenue": 12.5, "at": "2025-01-31T13:05:00"}


def _story(state: FileState, hops: int) -> FileStory:
    passage = Passage(hop=Hop.PUT, at=datetime(2026, 1, 1, tzinfo=UTC))
    return make_story(*(passage,) * hops, state=state)


def test_wait_does_not_take_the_story_of_an_earlier_drop_for_the_end() -> None:
    looks = iter([_story(FileState.DONE, 3), _story(FileState.DONE, 3), _story(FileState.DONE, 4)])
    assert len(wait_for_end(lambda: next(looks), "bronze/d/x", known_passages=3, seconds=30).timeline) == 4


def test_wait_ends_when_only_the_state_changed_since_the_last_look() -> None:
    looks = iter([_story(FileState.RUNNING, 2), _story(FileState.DONE, 2)])
    assert wait_for_end(lambda: next(looks), "bronze/d/x", known_passages=0, seconds=30).state is FileState.DONE


def test_wait_that_runs_out_says_the_last_hop() -> None:
    with pytest.raises(errors.WaitTimedOut, match="its last hop is put"):
        wait_for_end(lambda: _story(FileState.RUNNING, 1), "bronze/d/x", known_passages=0, seconds=0)


def test_wait_without_any_event_says_so() -> None:
    with pytest.raises(errors.WaitTimedOut, match="no event told of it"):
        wait_for_end(lambda: None, "bronze/d/x", known_passages=0, seconds=0)
