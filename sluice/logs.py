"""Reads the servers' log files."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import UsageError
from contracts.settings import Settings
from sluice.supervisor import log_file


def _path(settings: Settings, service: str) -> Path:
    folder = settings.home / "logs"
    known = sorted(path.stem for path in folder.glob("*.log")) if folder.is_dir() else []
    if service not in known:
        raise UsageError(f"No log is called {service!r}. Known: {', '.join(known) or 'none yet; run: sluice up'}.")
    return log_file(settings, service)


def last_lines(settings: Settings, service: str, count: int) -> list[str]:
    """The last lines of a service's log.

    Raises:
        UsageError: there is no such log; names those that there are.
    """
    with _path(settings, service).open("r", encoding="utf-8", errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=count)]


def follow_lines(settings: Settings, service: str) -> Iterator[str]:
    """New lines of a service's log as they come; goes on in the new file after a rotation."""
    path = _path(settings, service)
    file = path.open("r", encoding="utf-8", errors="replace")
    file.seek(0, 2)
    while True:
        line = file.readline()
        if line:
            yield line.rstrip("\n")
        elif path.exists() and path.stat().st_ino != _inode(file):
            file.close()
            file = path.open("r", encoding="utf-8", errors="replace")
        else:
            time.sleep(0.2)


def _inode(file: object) -> int:
    return os.fstat(file.fileno()).st_ino  # type: ignore[attr-defined]
