"""Edge: Airflow's REST API, as the service user. Turns HTTP trouble into our errors."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from contracts.errors import Permanent, ServiceUnavailable
from contracts.settings import Settings

NOTE_LIMIT = 1000
"""Characters; Airflow refuses longer notes."""
CLOCKS_DIFFER = timedelta(seconds=10)
"""By so much the clocks of the stack's parts may be apart."""


class AirflowApi:
    """Makes runs and looks at them. An async context manager; one per event loop.

    Args:
        kept: where tokens are kept for other processes; a sign-in takes Airflow 0.2 s of CPU time, for the password's
            hash, and each task is a process of its own.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        transport: httpx.AsyncBaseTransport | None = None,
        kept: Path | None = None,
    ) -> None:
        self._login = {"username": user, "password": password}
        self._kept = kept
        self._token = ""
        self._client = httpx.AsyncClient(
            base_url=url, timeout=10, transport=transport, trust_env=False, verify=trusted()
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def create_run(self, dag_id: str, run_id: str, conf: dict[str, Any], note: str) -> bool:
        """Make a run that starts as soon as it can.

        Returns:
            Whether it is new; False when a run of that id is there already, which is as good.

        Raises:
            ServiceUnavailable: no answer, or the DAG is not there (yet).
            Permanent: Airflow refuses the request.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf, "note": note[:NOTE_LIMIT]}
        answer = await self._call("POST", f"{_dag(dag_id)}/dagRuns", json=body, accepted=(200, 409))
        return answer.status_code == 200

    async def active_run(self, dag_id: str) -> str | None:
        """The state of a run that is under way, `running` or `queued`; None when there is none.

        Raises:
            ServiceUnavailable: no answer.
        """
        params = {"state": ["queued", "running"], "limit": 1, "order_by": "id"}
        answer = await self._call("GET", f"{_dag(dag_id)}/dagRuns", params=params, accepted=(200, 404))
        runs = answer.json().get("dag_runs") or []
        return str(runs[0]["state"]) if runs else None

    async def run_state(self, dag_id: str, run_id: str) -> str | None:
        """The state of a run; None when there is none of that id.

        Raises:
            ServiceUnavailable: no answer.
        """
        answer = await self._call("GET", _run(dag_id, run_id), accepted=(200, 404))
        return str(answer.json()["state"]) if answer.status_code == 200 else None

    async def postponed_runs(self, dag_id: str) -> list[tuple[str, dict[str, Any], str]]:
        """Id, conf and note of each run that waits for a time to come: it was made while the clock was ahead.

        Not of those that events of assets made: what an event carries is theirs, and no other run is given it.

        Raises:
            ServiceUnavailable: no answer.
        """
        runs = await self._to_come(f"{_dag(dag_id)}/dagRuns", "dag_runs", "queued", "run_after_gte")
        own = [run for run in runs if run["run_type"] != "asset_triggered"]
        return [(str(run["dag_run_id"]), run["conf"] or {}, run["note"] or "") for run in own]

    async def postponed_tasks(self, dag_id: str) -> list[tuple[str, str, int]]:
        """Run, task and index of each task whose next try waits: it failed while the clock was ahead.

        Raises:
            ServiceUnavailable: no answer.
        """
        path = f"{_run(dag_id, '~')}/taskInstances"
        tasks = await self._to_come(path, "task_instances", "up_for_retry", "end_date_gte")
        return [(str(task["dag_run_id"]), str(task["task_id"]), int(task["map_index"])) for task in tasks]

    async def try_now(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        """Have a task that waits for its next try tried at once; one that runs meanwhile is left alone.

        Raises:
            ServiceUnavailable: no answer, or the task is not there.
        """
        body = {
            "dag_run_id": run_id,
            "task_ids": [task_id if map_index < 0 else [task_id, map_index]],
            "dry_run": False,
            "only_failed": False,
            "prevent_running_task": True,
        }
        await self._call("POST", f"{_dag(dag_id)}/clearTaskInstances", json=body, accepted=(200, 409))

    async def end_run(self, dag_id: str, run_id: str, note: str) -> None:
        """Mark a run as failed, and note why.

        Raises:
            ServiceUnavailable: no answer, or the run is not there.
        """
        body = {"state": "failed", "note": note[:NOTE_LIMIT]}
        await self._call("PATCH", _run(dag_id, run_id), params={"update_mask": ["state", "note"]}, json=body)

    async def paused(self, dag_id: str) -> bool:
        """Whether a person paused the DAG: its runs then stay queued.

        Raises:
            ServiceUnavailable: no answer, or the DAG is not there (yet).
        """
        return bool((await self._call("GET", _dag(dag_id))).json()["is_paused"])

    async def set_note(self, dag_id: str, run_id: str, note: str) -> None:
        """Replace a run's note.

        Raises:
            ServiceUnavailable: no answer, or the run is not there.
        """
        body = {"note": note[:NOTE_LIMIT]}
        await self._call("PATCH", _run(dag_id, run_id), params={"update_mask": "note"}, json=body)

    async def _to_come(self, path: str, listed: str, state: str, since: str) -> list[dict[str, Any]]:
        """What is in a state with a time to come; nothing where there is no such DAG."""
        later = datetime.now(UTC) + CLOCKS_DIFFER
        params = {"state": state, since: later.isoformat(), "order_by": "id"}
        answer = await self._call("GET", path, params=params, accepted=(200, 404))
        return answer.json().get(listed) or []

    async def _call(
        self, method: str, path: str, *, accepted: tuple[int, ...] = (200,), **request: Any
    ) -> httpx.Response:
        self._token = self._token or _read(self._kept)
        answer = await self._send(method, path, **request)
        # 403 is also what Airflow says of a token that was made before the clock was set back.
        if answer.status_code in (401, 403):
            self._token = ""
            answer = await self._send(method, path, **request)
        if answer.status_code in accepted:
            return answer
        told = f"Airflow answered {answer.status_code} to {method} {path}"
        if answer.status_code in (401, 404, 408, 429) or answer.status_code >= 500:
            raise ServiceUnavailable(f"{told}; 200 was expected. Trying again may help.", status=answer.status_code)
        raise Permanent(f"{told}: {answer.text[:300]}", status=answer.status_code)

    async def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            if not self._token:
                self._token = await self._new_token()
                _keep(self._kept, self._token)
            headers = {"Authorization": f"Bearer {self._token}"}
            return await self._client.request(method, f"/api/v2{path}", headers=headers, **request)
        except httpx.HTTPError as error:
            message = f"Airflow's API at {self._client.base_url} does not answer: {type(error).__name__}."
            raise ServiceUnavailable(message) from error

    async def _new_token(self) -> str:
        answer = await self._client.post("/auth/token", json=self._login)
        if answer.status_code != 201:
            raise ServiceUnavailable(
                f"Airflow gave its user {self._login['username']!r} no token (answer {answer.status_code}). "
                "While it starts this passes; else run the bootstrap again."
            )
        return str(answer.json()["access_token"])


def service_api(settings: Settings) -> AirflowApi:
    """The API as the service user of a stack."""
    password = settings.airflow_service_password.get_secret_value()
    return AirflowApi(settings.airflow_url, settings.airflow_service_user, password, kept=token_file(settings))


def token_file(settings: Settings) -> Path:
    """Where the service user's newest token is kept, for its owner alone; Airflow takes it for a day."""
    return settings.home / "airflow" / "service-user.token"


def _read(kept: Path | None) -> str:
    if kept is not None:
        # One that is not there, or is another user's, is made anew.
        with suppress(OSError, UnicodeError):
            return kept.read_text("ascii")
    return ""


def _keep(kept: Path | None, token: str) -> None:
    if kept is None:
        return
    # Where nothing can be written, in a container for example, each process signs in for itself.
    with suppress(OSError):
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=kept.parent, prefix=f".{kept.name}-")  # of mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(token)
            Path(name).replace(kept)
        finally:
            Path(name).unlink(missing_ok=True)  # on a full disk each task would leave one


@cache
def trusted() -> ssl.SSLContext:
    """The authorities that a server's certificate may be of; once a process, since to read them takes 40 ms."""
    return httpx.create_ssl_context(trust_env=False)


def _dag(dag_id: str) -> str:
    return f"/dags/{quote(dag_id, safe='')}"


def _run(dag_id: str, run_id: str) -> str:
    return f"{_dag(dag_id)}/dagRuns/{quote(run_id, safe='')}"
