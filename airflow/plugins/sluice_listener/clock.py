"""What was made while the clock was ahead, and would wait until the time gets there, goes on at once."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from contracts.work import second_run_id

log = logging.getLogger(__name__)


class Runs(Protocol):
    """What is needed of `consumers.airflow_api.AirflowApi`."""

    async def create_run(self, dag_id: str, run_id: str, conf: dict[str, Any], note: str) -> bool: ...
    async def postponed_runs(self, dag_id: str) -> list[tuple[str, dict[str, Any], str]]: ...
    async def end_run(self, dag_id: str, run_id: str, note: str) -> None: ...
    async def postponed_tasks(self, dag_id: str) -> list[tuple[str, str, int]]: ...
    async def try_now(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None: ...


async def go_on(runs: Runs, dag_id: str) -> None:
    """Let a DAG's runs start that wait for a time to come, and its tasks that wait for it with their next try.

    Safe to repeat.

    Raises:
        ServiceUnavailable, Permanent: Airflow does not answer, or refuses.
    """
    for run_id, conf, note in await runs.postponed_runs(dag_id):
        # Airflow starts no run before its time, and no time can be set anew: another does the work of it. In this
        # order: after a crash in between both are there, and the one that comes later changes nothing.
        other = second_run_id(run_id)
        await runs.create_run(dag_id, other, conf, note)
        told = f"made while the clock was ahead, so {other} does its work"
        await runs.end_run(dag_id, run_id, f"{note}; {told}" if note else told)
        log.warning("%s/%s was %s.", dag_id, run_id, told)
    for run_id, task_id, map_index in await runs.postponed_tasks(dag_id):
        await runs.try_now(dag_id, run_id, task_id, map_index)
        log.warning("%s/%s: %s failed while the clock was ahead, and is tried now.", dag_id, run_id, task_id)
