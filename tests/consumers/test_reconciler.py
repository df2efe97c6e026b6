"""What a pass of reconcile does when one thing cannot be mended; the servers are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumers import reconciler
from consumers.reconcile import Finding
from consumers.reconciler import _airflow, _compare, _Pass, _standing
from consumers.routing import Work
from consumers.topics import WORK_TOPICS
from contracts.dataset import DatasetContract
from contracts.errors import Permanent, ServiceUnavailable, StoreRefused
from contracts.states import Layer
from contracts.work import WorkItem, make_batch
from tests.consumers.samples import CONTRACT, NOON
from tests.consumers.test_reconcile import OLD, page, row

REMOVED = "dataset_whose_contract_was_removed"


def item(dataset: str, name: str = "a.parquet") -> WorkItem:
    return WorkItem(bucket="bronze", key=f"{dataset}/{name}", etag="e", version="1")


class Servers:
    """Ledger, store, producer and Airflow's API, as far as a pass asks them here."""

    def __init__(self, *broken: Exception) -> None:
        self.sent: list[tuple[str, str]] = []
        self.made: list[str] = []
        self.broken = list(broken)
        self.batches = [make_batch(Layer.SILVER, "nyc_yellow", [item("nyc_yellow", name)]) for name in "abcd"]

    def newest_between(self, *_: object) -> list[Any]:
        return [row(put_at=OLD)]

    def stat(self, bucket: str, key: str) -> None:
        raise StoreRefused(f"{key} is no name of an object.")

    def not_taken(self, layer: Layer, *_: object) -> list[Work]:
        return [Work(name, item(name)) for name in ("nyc_yellow", REMOVED)] if layer == Layer.SILVER else []

    def without_marker(self, *_: object) -> list[str]:
        return []

    def without_result(self, *_: object) -> list[str]:
        return [batch.batch_id for batch in self.batches]

    def load_batch(self, batch_id: str) -> Any:
        return next(batch for batch in self.batches if batch.batch_id == batch_id)

    def waiting(self) -> dict[Any, int]:
        return {}

    def send(self, topic: str, key: str, value: bytes) -> None:
        self.sent.append((topic, key))

    def flush(self) -> None: ...

    async def run_state(self, *_: object) -> None:
        return None

    async def create_run(self, dag_id: str, run_id: str, *_: object) -> bool:
        if self.broken:
            raise self.broken.pop(0)
        self.made.append(run_id)
        return True


def a_pass(servers: Servers, contract: DatasetContract = CONTRACT) -> _Pass:
    made: Any = servers
    return _Pass(
        None,
        (contract,),
        made,
        made,
        made,
        lambda *_: None,
        lambda *_: (),
        full=False,
        repair=True,
        now=NOON,  # type: ignore[arg-type]
    )


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    def serve(servers: Servers) -> Servers:
        @asynccontextmanager
        async def api(_: object) -> AsyncIterator[Servers]:
            yield servers

        monkeypatch.setattr(reconciler, "service_api", api)
        return servers

    return serve


def test_key_that_the_store_can_hold_no_object_of_ends_no_pass() -> None:
    one = a_pass(Servers())
    _compare(one, page())
    assert one.findings == []


def test_work_of_a_dataset_without_a_contract_is_told_and_not_sent() -> None:
    servers = Servers()
    one = a_pass(servers)
    _standing(one, in_sets=())
    assert [kind for kind, _ in one.findings] == [Finding.WORK_NOT_TAKEN] * 2
    assert servers.sent == [(WORK_TOPICS[Layer.SILVER], "nyc_yellow")]


@pytest.mark.parametrize("error", [Permanent("refused"), ServiceUnavailable("no such DAG")], ids=["refused", "away"])
def test_batch_that_airflow_makes_no_run_of_keeps_no_other_from_being_mended(airflow: Any, error: Exception) -> None:
    servers = airflow(Servers(error))
    if isinstance(error, ServiceUnavailable):
        # Told in the end, so that the pass is tried again.
        with pytest.raises(ServiceUnavailable, match="no such DAG"):
            asyncio.run(_airflow(a_pass(servers)))
    else:
        asyncio.run(_airflow(a_pass(servers)))
    assert servers.made == [batch.run_id for batch in servers.batches[1:]]


def test_airflow_that_is_away_is_not_asked_about_every_batch(airflow: Any) -> None:
    servers = airflow(Servers(*[ServiceUnavailable("away")] * reconciler.MOST_UNAVAILABLE))
    with pytest.raises(ServiceUnavailable):
        asyncio.run(_airflow(a_pass(servers)))
    assert servers.made == []


def test_batch_of_a_contract_that_was_removed_gets_no_run(airflow: Any) -> None:
    servers = airflow(Servers())
    servers.batches.append(make_batch(Layer.SILVER, REMOVED, [item(REMOVED)]))
    one = a_pass(servers)
    asyncio.run(_airflow(one))
    assert len(one.findings) == 5
    assert servers.made == [batch.run_id for batch in servers.batches[:4]]
