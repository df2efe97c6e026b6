"""What the workers of one test run share: a folder, a costly thing that is made once, and turns at it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def shared_folder(config: pytest.Config) -> Path:
    """A folder of this run that all of its workers have."""
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def shared(
    folder: Path, make: Callable[[], dict[str, str]], end: Callable[[dict[str, str]], None]
) -> Iterator[dict[str, str]]:
    """A thing that the first worker makes, and the last one that has it ends; what `make` said of it."""
    said, users = folder / "stack.json", folder / "stack.users"
    with _locked(folder / "stack.lock"):
        if not said.exists():
            said.write_text(json.dumps(make()), "utf-8")
        users.write_text(str(_number(users) + 1), "ascii")
        found: dict[str, str] = json.loads(said.read_text("utf-8"))
    try:
        yield found
    finally:
        with _locked(folder / "stack.lock"):
            left = _number(users) - 1
            users.write_text(str(left), "ascii")
            if left == 0:
                said.unlink()
                end(found)


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Have a turn beside those of other workers, or alone. Who asked first goes first."""
    with _locked(folder / "next.lock"):
        file = (folder / "turn.lock").open("a")
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    with file:
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _number(path: Path) -> int:
    return int(path.read_text("ascii")) if path.exists() else 0
