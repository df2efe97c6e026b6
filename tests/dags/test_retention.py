"""What Airflow wrote goes when its time is over."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sluice_listener import retention

from contracts.errors import ServiceUnavailable
from contracts.settings import Settings

NOW = datetime.now(UTC)


def log_of(folder: Path, run: str, age: timedelta) -> Path:
    path = folder / "dag_id=a" / f"run_id={run}" / "task_id=b" / "attempt=1.log"
    path.parent.mkdir(parents=True)
    path.write_text("12345")
    for each in (path, *list(path.parents)[:2]):
        os.utime(each, ((NOW - age).timestamp(),) * 2)
    return path


def test_old_logs_go_with_the_folders_that_they_leave_empty(tmp_path: Path) -> None:
    old, young = log_of(tmp_path, "old", timedelta(days=91)), log_of(tmp_path, "young", timedelta(days=89))
    just_made = tmp_path / "dag_id=a" / "run_id=new" / "task_id=b"
    just_made.mkdir(parents=True)
    assert retention.remove_old_files(tmp_path, NOW - timedelta(days=90)) == (1, 5)
    assert not old.parent.parent.exists()
    assert young.exists()
    assert just_made.exists()
    assert retention.remove_old_files(tmp_path, NOW - timedelta(days=90)) == (0, 0)


def test_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert retention.remove_old_files(tmp_path / "none", NOW) == (0, 0)


def test_database_is_cleaned_by_airflow_s_own_command_with_its_address_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    monkeypatch.setenv("AIRFLOW__CORE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    calls = []

    def run(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append((command, env))
        return subprocess.CompletedProcess(command, 1 if len(calls) > 1 else 0, "", "no such table")

    monkeypatch.setattr(retention.subprocess, "run", run)
    settings = Settings(airflow_db_password=SecretStr("secret-of-the-database"))
    retention.clean_database(settings, datetime(2026, 1, 2, tzinfo=UTC))
    ((command, environment),) = calls
    assert command[command.index("--clean-before-timestamp") + 1] == "2026-01-02T00:00:00+00:00"
    assert not any("secret-of-the-database" in word for word in command)
    assert "secret-of-the-database" in environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert "AIRFLOW__CORE__SQL_ALCHEMY_CONN" not in environment
    with pytest.raises(ServiceUnavailable, match="no such table"):
        retention.clean_database(settings, NOW)
