"""The trigger and the API edge, awaited in plain async tests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.triggers.base import TaskSuccessEvent
from sluice_listener import trigger as module
from sluice_listener.trigger import WorkTrigger

from consumers.airflow_api import AirflowApi
from contracts.errors import Permanent, ServiceUnavailable


class FakeTopic:
    """A consumer that never has anything."""

    made: list[FakeTopic] = []

    def __init__(self, *_: Any) -> None:
        self.closed = threading.Event()
        self.polled = threading.Event()
        self.polling = False
        self.closed_while_polling = False
        FakeTopic.made.append(self)

    def read(self, timeout: float) -> list[Any]:
        self.polling = True
        self.polled.set()
        # As long as a real poll: a close from another thread would come in between.
        threading.Event().wait(0.05)
        self.polling = False
        return []

    def hold(self, partitions: Collection[int]) -> None: ...

    def commit(self, offsets: Any) -> bool:
        return True

    def close(self) -> None:
        self.closed_while_polling = self.polling
        self.closed.set()


class FakeLedger:
    def __enter__(self) -> FakeLedger:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def edges(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTopic.made.clear()
    monkeypatch.setattr(module, "WorkTopic", FakeTopic)
    monkeypatch.setattr(module, "DeadLetters", FakeTopic)
    monkeypatch.setattr(module, "open_ledger", lambda settings: FakeLedger())
    monkeypatch.setattr(module, "service_api", lambda settings: api(lambda request: httpx.Response(503)))


def api(answer: Any) -> AirflowApi:
    return AirflowApi("http://airflow", "user", "password", transport=httpx.MockTransport(answer))


def listener(lifetime: float) -> WorkTrigger:
    return WorkTrigger(layer="silver", group="group", kafka_config_id="sluice_kafka", lifetime=lifetime)


async def first_event(trigger: WorkTrigger) -> Any:
    async for event in trigger.run():
        return event


def test_trigger_can_be_made_again_from_what_it_serializes() -> None:
    path, arguments = listener(5).serialize()
    assert path == f"{WorkTrigger.__module__}.{WorkTrigger.__qualname__}"
    assert WorkTrigger(**arguments).serialize() == (path, arguments)


def test_trigger_ends_the_task_with_success_when_its_time_is_up_and_closes_the_consumer() -> None:
    event = asyncio.run(first_event(listener(0.1)))
    assert isinstance(event, TaskSuccessEvent)
    assert FakeTopic.made[0].closed.is_set()


def test_cancelled_trigger_closes_its_consumer_and_not_during_a_poll() -> None:
    async def cancel() -> None:
        task = asyncio.create_task(first_event(listener(60)))
        while not (FakeTopic.made and FakeTopic.made[0].polled.is_set()):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancel(), 10))
    assert FakeTopic.made[0].closed.is_set()
    assert not FakeTopic.made[0].closed_while_polling


def test_consumer_is_closed_when_the_ledger_breaks_the_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FakeTopic, timeout: float) -> list[Any]:
        raise ServiceUnavailable("The Kafka consumer gave up.")

    monkeypatch.setattr(FakeTopic, "read", broken)
    with pytest.raises(ServiceUnavailable):
        asyncio.run(first_event(listener(60)))
    assert FakeTopic.made[0].closed.is_set()


def test_trigger_ends_though_its_consumer_stands_still_which_is_closed_as_soon_as_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goes_on = threading.Event()

    def read(_: FakeTopic) -> Any:
        # Looked up by the loop right before this call of it: no other one has so little time.
        monkeypatch.setattr(module, "STANDS_STILL", 0.05)
        return lambda timeout: goes_on.wait()

    monkeypatch.setattr(FakeTopic, "read", property(read))
    monkeypatch.setattr(module, "CLOSING", 0.05)
    with pytest.raises(ServiceUnavailable, match="stands still"):
        asyncio.run(first_event(listener(60)))
    assert not FakeTopic.made[0].closed.is_set()
    goes_on.set()
    assert FakeTopic.made[0].closed.wait(10)


def call(answer: Any, method: str, *args: Any) -> Any:
    async def run() -> Any:
        async with api(answer) as client:
            return await getattr(client, method)(*args)

    return asyncio.run(run())


def answering(status: int, body: Any = None) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "token"})
        return httpx.Response(status, json=body)

    return answer


RUN = ("dag", "run", {}, "note")


@pytest.mark.parametrize(("status", "new"), [(200, True), (409, False)], ids=["made", "there-already"])
def test_run_that_exists_is_no_error(status: int, new: bool) -> None:
    assert call(answering(status, {}), "create_run", *RUN) is new


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, ServiceUnavailable),
        (500, ServiceUnavailable),
        (503, ServiceUnavailable),
        (400, Permanent),
        (403, Permanent),
    ],
)
def test_answers_become_our_errors(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(answering(status), "create_run", *RUN)


def test_no_answer_is_retryable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ServiceUnavailable):
        call(refuse, "active_run", "dag")


@pytest.mark.parametrize("status", [401, 403], ids=["ran-out", "made-before-the-clock-was-set-back"])
def test_token_that_is_not_taken_is_renewed_once(status: int) -> None:
    tokens = iter(["old", "new"])
    used: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": next(tokens)})
        used.append(request.headers["Authorization"])
        return httpx.Response(status if used[-1].endswith("old") else 200, json={"dag_runs": []})

    assert call(answer, "active_run", "dag") is None
    assert used == ["Bearer old", "Bearer new"]


def test_token_is_kept_for_the_next_process_and_for_nobody_else(tmp_path: Path) -> None:
    signed_in: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            signed_in.append(f"token-{len(signed_in)}")
            return httpx.Response(201, json={"access_token": signed_in[-1]})
        fresh = request.headers["Authorization"] == f"Bearer {valid}"
        return httpx.Response(200 if fresh else 401, json={"dag_runs": []})

    async def look() -> None:
        transport = httpx.MockTransport(answer)
        async with AirflowApi("http://airflow", "user", "password", transport, kept=kept) as api:
            await api.active_run("dag")

    kept, valid = tmp_path / "airflow" / "token", "token-0"
    for _ in range(3):
        asyncio.run(look())
    assert signed_in == ["token-0"]
    assert kept.stat().st_mode & 0o777 == 0o600
    valid = "token-1"  # the one before ran out
    for _ in range(2):
        asyncio.run(look())
    assert signed_in == ["token-0", "token-1"]
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize("spoil", [Path.mkdir, lambda kept: kept.write_bytes(b"\xff"), Path.touch])
def test_token_that_cannot_be_read_is_no_error(spoil: Any, tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "new"})
        return httpx.Response(200 if request.headers["Authorization"] == "Bearer new" else 401, json={"dag_runs": []})

    async def look() -> None:
        transport = httpx.MockTransport(answer)
        async with AirflowApi("http://airflow", "user", "password", transport, kept=tmp_path / "token") as api:
            assert await api.active_run("dag") is None

    spoil(tmp_path / "token")
    asyncio.run(look())


def test_active_run_tells_the_state_of_the_run_under_way() -> None:
    assert call(answering(200, {"dag_runs": [{"state": "queued"}]}), "active_run", "dag") == "queued"


def test_postponed_runs_are_those_queued_for_a_time_to_come() -> None:
    asked: list[httpx.QueryParams] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "token"})
        asked.append(request.url.params)
        one = {"dag_run_id": "r", "conf": {"batch_id": "b"}, "note": None, "run_type": "manual"}
        return httpx.Response(200, json={"dag_runs": [one, one | {"dag_run_id": "s", "run_type": "asset_triggered"}]})

    assert call(answer, "postponed_runs", "dag") == [("r", {"batch_id": "b"}, "")]
    assert asked[0]["state"] == "queued"
    assert datetime.fromisoformat(asked[0]["run_after_gte"]) > datetime.now(UTC)


def test_postponed_tasks_are_those_that_failed_at_a_time_to_come() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "token"})
        asked.append(request)
        tasks = [{"dag_run_id": "r", "task_id": "t", "map_index": -1}]
        return httpx.Response(200, json={"task_instances": tasks})

    assert call(answer, "postponed_tasks", "dag") == [("r", "t", -1)]
    assert asked[0].url.path == "/api/v2/dags/dag/dagRuns/~/taskInstances"
    assert asked[0].url.params["state"] == "up_for_retry"
    assert datetime.fromisoformat(asked[0].url.params["end_date_gte"]) > datetime.now(UTC)


@pytest.mark.parametrize(("map_index", "task"), [(-1, "t"), (3, ["t", 3])], ids=["plain", "mapped"])
@pytest.mark.parametrize("status", [200, 409], ids=["waits", "runs-meanwhile"])
def test_task_is_tried_now_unless_it_runs(map_index: int, task: Any, status: int) -> None:
    asked: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "token"})
        asked.append(json.loads(request.content))
        return httpx.Response(status, json={})

    call(answer, "try_now", "dag", "r", "t", map_index)
    assert asked[0]["task_ids"] == [task]
    assert asked[0]["prevent_running_task"] is True


def test_password_is_in_no_error() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={})

    with pytest.raises(ServiceUnavailable) as caught:
        call(answer, "active_run", "dag")
    assert "password" not in str(caught.value)
