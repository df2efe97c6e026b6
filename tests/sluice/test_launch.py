"""What is done before a service becomes a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.settings import Settings, load_settings
from sluice import launch, supervisor
from sluice.airflow_config import airflow_environment

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    return load_settings()


def supervised(home: Path, service: str) -> dict[str, str]:
    """What the process manager of a stack puts into the environment of a service."""
    socket = supervisor.run_folder(Settings(home=home)) / "supervisor.sock"
    return {
        "SLUICE_HOME": str(home), "SUPERVISOR_PROCESS_NAME": service, "SUPERVISOR_SERVER_URL": f"unix://{socket}",
    }  # fmt: skip


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process as one that a service of a stack forked."""
    started = []

    def run(home: Path, service: str, **others: str) -> subprocess.Popen[bytes]:
        environment = os.environ | supervised(home, service) | others
        process = subprocess.Popen([sys.executable, "-c", "input()"], env=environment, stdin=subprocess.PIPE)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_what_a_killed_service_left_behind_is_ended_before_it_starts_again(
    settings: Settings, start: Start, tmp_path: Path
) -> None:
    orphan = start(settings.home, "airflow-scheduler")
    of_another_service = start(settings.home, "airflow-triggerer")
    of_another_stack = start(tmp_path / "other", "airflow-scheduler")
    launch._end_predecessor(settings, "airflow-scheduler")
    assert orphan.wait(30) == -9
    assert (of_another_service.poll(), of_another_stack.poll()) == (None, None)


def test_program_of_somebody_else_s_process_manager_is_not_ours_although_it_has_our_home(
    settings: Settings, start: Start
) -> None:
    ours = start(settings.home, "kafka")
    for url in ("unix:///run/supervisor.sock", "http://localhost:9001", ""):
        start(settings.home, "kafka", SUPERVISOR_SERVER_URL=url)
    assert [process.pid for process in supervisor.supervised(settings)] == [ours.pid]


def test_worker_of_airflow_is_ended_too_although_it_gave_itself_a_title(settings: Settings) -> None:
    titled = "import setproctitle as it; it.setproctitle('airflow worker' * 99); print(flush=True); input()"
    environment = os.environ | supervised(settings.home, "airflow-scheduler") | airflow_environment(settings)
    command = [sys.executable, "-c", titled]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        launch._end_predecessor(settings, "airflow-scheduler")
        try:
            assert worker.wait(30) == -9
        finally:
            worker.kill()
