"""The live view of a backfill: how many files are done, and where those under way are."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from contracts.states import FileState
from sluice.backfilling import Outcome
from sluice.render import backfilled, console


class Quiet:
    """Says nothing, where standard output is for JSON."""

    def begins(self, files: int) -> None:
        """Nothing."""

    def goes_on(self, key: str, what: str) -> None:
        """Nothing."""

    def ended(self, outcome: Outcome) -> None:
        """Nothing."""


class Bars:
    """A bar of all files, a line for each that is under way, and above them one for each that is not `done` in the end.

    Where nobody watches (output into a file), a line for each that ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = Progress(
            BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console,
        )  # fmt: skip
        self._each = Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console)
        self._bar = self._all.add_task("", total=0)
        self._lines: dict[str, TaskID] = {}
        self._live = Live(Group(self._all, self._each), console=console, refresh_per_second=4)

    def __enter__(self) -> Bars:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self._live.stop()

    def begins(self, files: int) -> None:
        """So many are to be brought."""
        self._all.update(self._bar, total=files)

    def goes_on(self, key: str, what: str) -> None:
        """One is under way."""
        with self._lock:
            if key not in self._lines:
                self._lines[key] = self._each.add_task("")
            # Not as markup: keys are anybody's text.
            self._each.update(self._lines[key], description=f"{escape(key)}  {what}")

    def ended(self, outcome: Outcome) -> None:
        """One is over."""
        with self._lock:
            self._all.advance(self._bar)
            line = self._lines.pop(outcome.key, None)
            if line is not None:
                self._each.remove_task(line)
        if outcome.state != FileState.DONE or not console.is_terminal:
            backfilled(outcome)
