"""Named steps between an event and a commit, at which a test may kill the process that takes them.

Without `SLUICE_FAIL_POINTS` in the environment, which only the tests set, `reach` does nothing.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from pathlib import Path

FOLDER = "SLUICE_FAIL_POINTS"
"""Environment variable: the folder in which a file arms the step that it is named after."""
_folder = os.environ.get(FOLDER)


class Step(StrEnum):
    """What has just happened when a process reaches the step, in the order of a file's way."""

    ROUTER_READ = "router-read"
    """Events are read; nothing of them is durable."""
    ROUTER_DECIDED = "router-decided"
    """The ledger holds state and reason of each file."""
    ROUTER_RECORDED = "router-recorded"
    """The ledger holds the row counts of a commit marker."""
    ROUTER_SENT = "router-sent"
    """Kafka holds the work and the dead letters."""
    ROUTER_COMMITTED = "router-committed"
    """The router's offsets have moved."""
    LISTENER_CLAIMED = "listener-claimed"
    """The ledger holds the batch."""
    LISTENER_RUN_MADE = "listener-run-made"
    """The DAG run exists."""
    LISTENER_HANDED_OVER = "listener-handed-over"
    """The ledger knows that the run exists."""
    LISTENER_COMMITTED = "listener-committed"
    """The listener's offsets have moved."""
    TASK_STARTED = "task-started"
    """The ledger knows that the task runs."""
    REJECTS_COMMITTED = "rejects-committed"
    """The rejected rows are in their table."""
    SILVER_COMMITTED = "silver-committed"
    """The accepted rows are in silver; no marker says so."""
    SILVER_MARKED = "silver-marked"
    """The commit marker of silver is there."""
    FEATURES_COMMITTED = "features-committed"
    """The feature rows are in gold; the aggregate is as before."""
    AGGREGATE_COMMITTED = "aggregate-committed"
    """The aggregate is recomputed; no marker says so."""
    GOLD_MARKED = "gold-marked"
    """The commit marker of gold is there."""


def reach(step: Step) -> None:
    """Die of SIGKILL here if the step is armed; what armed it is taken away first, so it is good for one death."""
    if _folder is None:
        return
    try:
        (Path(_folder) / step).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
