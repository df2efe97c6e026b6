"""Airflow in memory: runs with unique ids, one active run a DAG, tries, tasks that are killed or outlive their run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from tests.simulator.world import World

AIRFLOW = "airflow"
TRIES = 4
HEARTBEAT = 120.0
"""Seconds without a sign of life after which a task is tried again."""


@dataclass
class Run:
    """A DAG run."""

    dag_id: str
    run_id: str
    conf: dict[str, Any]
    state: str = "queued"
    tries: int = 0
    ended: list[str] = field(default_factory=list)
    """What became of its tries."""


class Scheduler:
    """As `consumers.airflow_api.AirflowApi`, and Airflow behind it."""

    def __init__(
        self,
        world: World,
        work: Callable[[Run, int], None],
        give_up: Callable[[Run, BaseException | str], None],
    ) -> None:
        self.world = world
        self.runs: dict[tuple[str, str], Run] = {}
        self.made: dict[str, set[str]] = {}
        """Batch -> the ids of all runs that were ever made for it."""
        self.paused_dags: set[str] = set()
        self._work = work
        self._give_up = give_up

    async def __aenter__(self) -> Scheduler:
        return self

    async def __aexit__(self, *about: object) -> None: ...

    async def create_run(self, dag_id: str, run_id: str, conf: dict[str, Any], note: str) -> bool:
        return self.world.do(f"make the run {dag_id}/{run_id}", self._create, dag_id, run_id, conf, service=AIRFLOW)

    async def active_run(self, dag_id: str) -> str | None:
        return self.world.do(f"active run of {dag_id}", self._active, dag_id, service=AIRFLOW)

    async def postponed_runs(self, dag_id: str) -> list[tuple[str, dict[str, Any], str]]:
        return []  # All parts of the model have one clock.

    async def postponed_tasks(self, dag_id: str) -> list[tuple[str, str, int]]:
        return []

    async def try_now(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        raise NotImplementedError

    async def end_run(self, dag_id: str, run_id: str, note: str) -> None:
        raise NotImplementedError

    async def run_state(self, dag_id: str, run_id: str) -> str | None:
        return self.world.do(f"state of {run_id}", self._state, dag_id, run_id, service=AIRFLOW)

    async def paused(self, dag_id: str) -> bool:
        return self.world.do(f"is {dag_id} paused", lambda: dag_id in self.paused_dags, service=AIRFLOW)

    def busy(self) -> bool:
        """Whether a run is under way or waits."""
        return any(run.state in ("queued", "running") for run in self.runs.values())

    def pause(self, dag_id: str, seconds: float) -> None:
        """A person pauses a DAG, and later unpauses it."""
        self.paused_dags.add(dag_id)

        def unpause() -> None:
            self.paused_dags.discard(dag_id)
            self._start_next(dag_id)

        self.world.after(seconds, unpause)

    def delete(self, run: Run) -> None:
        """A person deletes a run that is not at work."""
        if run.state != "running":
            self.runs.pop((run.dag_id, run.run_id), None)

    def clear(self, run: Run) -> None:
        """A person has an ended run done once more."""
        if run.state in ("success", "failed"):
            run.state, run.tries = "queued", 0
            self._start_next(run.dag_id)

    # ---- inside

    def _create(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
        if (dag_id, run_id) in self.runs:
            return False
        self.runs[dag_id, run_id] = Run(dag_id, run_id, conf)
        self.made.setdefault(conf["batch_id"], set()).add(run_id)
        self.world.counts["runs"] += 1
        self._start_next(dag_id)
        return True

    def _active(self, dag_id: str) -> str | None:
        states = [run.state for run in self.runs.values() if run.dag_id == dag_id]
        return next((state for state in ("running", "queued") if state in states), None)

    def _state(self, dag_id: str, run_id: str) -> str | None:
        run = self.runs.get((dag_id, run_id))
        return run.state if run else None

    def _start_next(self, dag_id: str) -> None:
        own = [run for run in self.runs.values() if run.dag_id == dag_id]
        queued = next((run for run in own if run.state == "queued"), None)
        if queued is None or dag_id in self.paused_dags or any(run.state == "running" for run in own):
            return
        queued.state = "running"
        self._try(queued, self.world.random.random() * 3)

    def _try(self, run: Run, after: float) -> None:
        run.tries += 1
        number = run.tries
        world = self.world

        def work() -> None:
            try:
                self._work(run, number)
            except AirflowFailException as error:
                world.do(f"report failure of {run.run_id}", self._fail, run, number, error)
            except Exception as error:
                world.note(f"the try failed: {type(error).__name__}: {error}")
                world.do(f"report failure of {run.run_id}", self._retry, run, number, error)
            else:
                world.do(f"report success of {run.run_id}", self._end, run, number, "success")

        def stands_still(seconds: float) -> None:
            if seconds > HEARTBEAT:
                world.after(HEARTBEAT, lambda: self._retry(run, number, "no sign of life"))

        actor = world.spawn("stage", work, f"{run.dag_id}:{number}", after=after)
        actor.on_pause.append(stands_still)

    def _retry(self, run: Run, number: int, error: BaseException | str) -> None:
        if not self._is_current(run, number):
            return
        if run.tries < TRIES:
            self._try(run, 2 + self.world.random.random() * 20)
        else:
            self._fail(run, number, error)

    def _fail(self, run: Run, number: int, error: BaseException | str) -> None:
        if self._is_current(run, number):
            self.world.counts["runs failed"] += 1
            self._end(run, number, "failed")
            self.world.spawn("callback", lambda: self._call_back(run, error), run.dag_id)

    def _call_back(self, run: Run, error: BaseException | str) -> None:
        try:
            self._give_up(run, error)
        except Exception as failed:
            self.world.note(f"the callback failed: {failed}")

    def _end(self, run: Run, number: int, state: str) -> None:
        if self._is_current(run, number):
            run.state = state
            self.world.tell(AIRFLOW)
            self._start_next(run.dag_id)

    def _is_current(self, run: Run, number: int) -> bool:
        """Whether a try is the run's last one; others outlived it, and nobody listens to them."""
        return run.state == "running" and run.tries == number
