"""Airflow's LocalExecutor, with which a scheduler that has nothing to do waits for news instead of looking for them."""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg
from airflow.executors.local_executor import LocalExecutor

from contracts.settings import load_settings

CHANNEL = "sluice_scheduler"
"""Postgres' channel on which the database tells of each change of a run's or task's state (`airflow/bootstrap.py`)."""
IDLE_SECONDS = 1.0
"""For how long a scheduler with nothing to do waits at most: Airflow's own default between two looks."""
BUSY_SECONDS = 0.25
"""The same while tasks run: a process that was killed is no change of a state, and its end is seen by looking."""

log = logging.getLogger(__name__)


class NotifiedLocalExecutor(LocalExecutor):
    """LocalExecutor whose heartbeat, once in each of the scheduler's loops, ends when some state has changed.

    The scheduler's own pause is to be zero. A change that is committed during a loop ends the wait of the same loop, so
    none is overlooked; while the database cannot be listened to, each wait is as long as it may be.
    """

    _news: psycopg.Connection[Any] | None = None

    def sync(self) -> None:
        """Take up what tasks have come to, then wait unless there was something."""
        super().sync()
        if not self.event_buffer:
            self._wait(BUSY_SECONDS if self.running else IDLE_SECONDS)

    def _wait(self, seconds: float) -> None:
        try:
            if self._news is None:
                self._news = _listen()
                # What changed before was told to nobody.
                return
            for _ in self._news.notifies(timeout=seconds, stop_after=1):
                pass
        except psycopg.OperationalError as error:
            log.warning("The database tells of no changes (%s); looking for them every %s s.", error, seconds)
            self._hang_up()
            time.sleep(seconds)

    def _hang_up(self) -> None:
        if self._news is not None:
            self._news.close()
            self._news = None

    def end(self) -> None:
        """Stop listening, and end as LocalExecutor does."""
        self._hang_up()
        super().end()


def _listen() -> psycopg.Connection[Any]:
    url = load_settings().postgres_url("airflow", "airflow")
    # A server that went away without a word is noticed within a minute.
    connection = psycopg.connect(url, autocommit=True, connect_timeout=5, keepalives_idle=30, keepalives_interval=10)
    connection.execute(f"LISTEN {CHANNEL}")
    return connection
