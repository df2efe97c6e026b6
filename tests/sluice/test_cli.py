"""The command line without a stack."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from contracts import errors
from contracts.settings import load_settings
from contracts.states import FileState, Hop
from contracts.story import FileStory, Passage
from sluice import render
from sluice.cli import _told, app, exit_code, past_proxies
from sluice.files import wait_for_end
from tests.sluice.stories import make_story


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    # `sluice` sets these, and this is its process.
    monkeypatch.setenv("SLUICE_STACK", "processes")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
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


@pytest.mark.parametrize(
    ("given", "value"),
    [
        pytest.param({}, "127.0.0.1,localhost", id="none"),
        pytest.param({"no_proxy": "", "NO_PROXY": ""}, "127.0.0.1,localhost", id="empty"),
        pytest.param({"NO_PROXY": "a.example, b.example"}, "a.example,b.example,127.0.0.1,localhost", id="upper"),
        pytest.param({"no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1,localhost", id="lower-case-first"),
        pytest.param({"no_proxy": "*"}, "*", id="all"),
        pytest.param({"no_proxy": "localhost,127.0.0.1"}, "localhost,127.0.0.1", id="there-already"),
        pytest.param({"no_proxy": "localhost"}, "localhost,127.0.0.1", id="half-of-it"),
    ],
)
def test_no_proxy_is_asked_for_this_machine(given: dict[str, str], value: str) -> None:
    assert past_proxies(given) == value


def test_every_part_inherits_that_no_proxy_is_asked_for_this_machine(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "host.example")
    run("status", "--json")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "host.example,127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/some/file"), "/some/file: Permission denied. Check perm"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Check permissions and free"),
        (OSError(errno.EIO, "Input/output error", b"/a\nb"), "/a\\nb: Input/output error. Check"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused. Look whether every"),
        (OSError("no number"), "no number. Check"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_refusal_of_the_system_is_one_line_and_exit_code_1(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr("sluice.cli.load_settings", refuse)
    shown = run("down", "--json")
    assert shown.exit_code == 1
    answer = json.loads(shown.output)
    assert answer["error"] == type(error).__name__
    assert answer["message"].startswith(told)
    shown = run("down")
    assert shown.exit_code == 1
    assert shown.output.startswith(told)
    assert len(shown.output.splitlines()) == 1


def test_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with pytest.raises(typer.Exit) as ended, _told(as_json=False):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert ended.value.exit_code == 0


def test_json_keeps_numbers_as_numbers() -> None:
    row = {"revenue": Decimal("12.50"), "at": datetime(2025, 1, 31, 13, 5), "many": True, "none": None, "n": 2**70}
    told = {"revenue": 12.5, "at": "2025-01-31T13:05:00", "many": True, "none": None, "n": 2**70}
    assert render.plain(row) == told


def test_json_has_null_for_what_is_no_number_and_text_for_every_key() -> None:
    value = {
        "row": [float("nan"), float("-inf"), Decimal("NaN"), Decimal("1e999"), (1.5, [float("inf")])],
        date(2025, 1, 31): {1: "one", None: "none", (1, "x"): 2, False: 3.0, float("nan"): 4},
    }
    assert json.loads(json.dumps(render.plain(value), allow_nan=False)) == {
        "row": [None, None, None, None, [1.5, [None]]],
        "2025-01-31": {"1": "one", "null": "none", '[1, "x"]': 2, "false": 3.0, "nan": 4},
    }


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", "a", "b", "a"], ["a", "a_1", "b", "a_2"]),
        (["a", "a", "a_1"], ["a", "a_2", "a_1"]),
        (["a_1", "a", "a", "a_1"], ["a_1", "a", "a_2", "a_1_1"]),
    ],
)
def test_columns_of_one_name_are_told_apart(names: list[str], told: list[str]) -> None:
    assert render.distinct(names) == told


def test_sql_keeps_every_column_in_json(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.cli._running", lambda: None)
    monkeypatch.setattr("sluice.query.run_query", lambda *_: (["a", "a"], [(1, float("nan"))]))
    assert json.loads(run("sql", "select 1", "--json").output) == [{"a": 1, "a_1": None}]


def test_followed_messages_are_handed_on_one_by_one(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    monkeypatch.setattr("builtins.print", lambda *_, **options: written.append(options.get("flush")))
    monkeypatch.setattr("sluice.cli._running", load_settings)
    monkeypatch.setattr("sluice.cli.render.record", dict)
    monkeypatch.setattr("consumers.broker.follow", lambda *_: iter([{}, {}]))
    assert run("topics", "--follow", "--json").exit_code == 0
    assert written == [True, True]


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
