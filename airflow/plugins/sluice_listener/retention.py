"""How long Airflow keeps what it writes: its runs with all that hangs on them, and the logs of tasks."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts.errors import ServiceUnavailable
from contracts.settings import Settings, load_settings

BATCH = 10_000
"""Rows that one transaction deletes."""
CLEAN_SECONDS = 3600

log = logging.getLogger(__name__)


def clean() -> dict[str, Any]:
    """Remove runs older than the settings say from Airflow's database, and the logs of tasks as old.

    Returns:
        Until when, and the files that were removed with their bytes.

    Raises:
        ServiceUnavailable: the database could not be cleaned; what was deleted stays so, and the next try goes on.
    """
    settings = load_settings()
    before = datetime.now(UTC) - timedelta(days=settings.airflow_retention_days)
    clean_database(settings, before)
    files, size = remove_old_files(settings.home / "airflow" / "logs", before)
    log.info("removed %d files of logs, %d bytes", files, size)
    return {"before": before.isoformat(timespec="seconds"), "log_files": files, "log_bytes": size}


def clean_database(settings: Settings, before: datetime) -> None:
    """Delete from Airflow's database what is older than a moment; of each DAG the last scheduled run stays.

    Raises:
        ServiceUnavailable: Airflow's command failed, or took more than an hour.
    """
    command = [
        *(sys.executable, "-W", "ignore", "-m", "airflow", "db", "clean", "--yes", "--skip-archive"),
        *("--clean-before-timestamp", before.isoformat(timespec="seconds"), "--batch-size", str(BATCH)),
        "--error-on-cleanup-failure",
    ]
    try:
        done = subprocess.run(
            command, env=_environment(settings), capture_output=True, text=True, check=False, timeout=CLEAN_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceUnavailable(f"`airflow db clean` did not end within {CLEAN_SECONDS} s.") from error
    log.info("%s", done.stdout)
    if done.returncode:
        raise ServiceUnavailable(f"`airflow db clean` failed: {done.stderr.strip()[-800:]}")


def remove_old_files(folder: Path, before: datetime) -> tuple[int, int]:
    """Remove files that were last written before a moment, and folders in which nothing is left.

    Returns:
        How many files, and their bytes.
    """
    files = size = 0
    emptied = []
    for name, _, names in os.walk(folder):
        path = Path(name)
        # Looked at before files go from it: a folder that a task has just made for its log is not old.
        if path.lstat().st_mtime < before.timestamp():
            emptied.append(path)
        for file in (path / name for name in names):
            about = file.lstat()
            if about.st_mtime < before.timestamp():
                file.unlink(missing_ok=True)
                files, size = files + 1, size + about.st_size
    for path in reversed(emptied):
        if path != folder and not any(path.iterdir()):
            path.rmdir()
    return files, size


def _environment(settings: Settings) -> dict[str, str]:
    """The task's own, with the database in it: Airflow takes its address from the environment of tasks."""
    environment = {name: value for name, value in os.environ.items() if "SQL_ALCHEMY_CONN" not in name}
    url = settings.postgres_url("airflow", "airflow", "postgresql+psycopg2")
    return environment | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
