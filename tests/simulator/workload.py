"""What users do to bronze, and what others do to Kafka and Airflow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

from consumers.topics import BRONZE_EVENTS, WORK_TOPICS
from contracts.states import FileState, Layer
from tests.simulator.datasets import CONTRACTS
from tests.simulator.store import Content, Row

if TYPE_CHECKING:
    from tests.simulator.simulation import Simulation

DAYS = [date(2025, 1, 1), date(2025, 1, 2), date(2025, 1, 31), date(2025, 2, 1), date(2025, 2, 2)]
NAMES = ("a", "b", "c")
STRANGE = ("nowhere/x.parquet", "keeps/readme.txt", "takes/_work.parquet", "keeps/_dir/", "loose.parquet")
BROKEN = ("text", "cut", "empty", "no_rows", "bad_pages", "bad_data")


class User:
    """All that happens to a system from outside."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._contents = 0

    def work(self) -> None:
        """Some operations, some of them in quick succession, some after a while."""
        random = self._world.random
        pace = random.choice((2.0, 30.0, 200.0))
        choices: list[tuple[int, Callable[[], None]]] = [
            (12, self._put),
            (4, self._same_again),
            (4, self._earlier_again),
            (4, self._delete),
            (3, self._broken),
            (1, self._strange),
            (1, self._garbage),
            (2, self._replay),
            (3, self._meddle),
            (1, self._pause),
            (1, self._delete_run),
        ]
        weights = [weight for weight, _ in choices]
        for _ in range(random.randint(4, 16)):
            self._world.sleep(random.random() * pace)
            act = random.choices(choices, weights)[0][1]
            act()
        self._world.sleep(random.choice((1.0, 60.0, 900.0)))

    def _key(self) -> str:
        random = self._world.random
        return f"{random.choice(sorted(CONTRACTS))}/{random.choice(NAMES)}.parquet"

    def _told(self, what: str) -> None:
        self._world.counts["operations"] += 1
        self._world.note(what)

    def _content(self, kind: str = "parquet", rows: int = 0) -> Content:
        random = self._world.random
        self._contents += 1
        days = [random.choice(DAYS) for _ in range(rows or random.randint(1, 4))]
        made = tuple(Row(number, day, random.randint(1, 99), random.random() < 0.75) for number, day in enumerate(days))
        return Content(f"{self._contents:02x}", kind, () if kind in ("empty", "no_rows") else made)

    def _store(self, key: str, content: Content) -> None:
        self._world.counts["files"] += 1
        self._told(f"put {key} @{content.etag} {content.kind} of {len(content.rows)} rows")
        self._simulation.store.put(key, content)

    def _put(self) -> None:
        self._store(self._key(), self._content())

    def _broken(self) -> None:
        self._store(self._key(), self._content(self._world.random.choice(BROKEN)))

    def _strange(self) -> None:
        self._store(self._world.random.choice(STRANGE), self._content())

    def _same_again(self) -> None:
        key = self._key()
        earlier = self._simulation.store.puts.get(key)
        self._store(key, earlier[-1] if earlier else self._content())

    def _earlier_again(self) -> None:
        key = self._key()
        earlier = self._simulation.store.puts.get(key)
        self._store(key, self._world.random.choice(earlier) if earlier else self._content())

    def _delete(self) -> None:
        key = self._key()
        self._told(f"delete {key}")
        self._simulation.store.delete(key)

    def _meddle(self) -> None:
        """Overwrite or delete a file just while a job reads it; by content of the same size, which nobody notices."""
        self._world.wait(60, "reading")
        key = self._simulation.store.being_read
        if not key:
            return
        size = len(self._simulation.store.puts[key][-1].rows)
        if self._world.random.random() < 0.7:
            self._store(key, self._content(rows=size))
        else:
            self._told(f"delete {key} while it is read")
            self._simulation.store.delete(key)

    def _garbage(self) -> None:
        self._told("garbage in Kafka")
        topic = self._world.random.choice((BRONZE_EVENTS, *WORK_TOPICS.values()))
        self._simulation.log.append(topic, "garbage", b"{no json")

    def _replay(self) -> None:
        random = self._world.random
        depth = random.choice(list(Layer))
        keys = [("bronze", self._key()) for _ in range(random.randint(1, 3))]
        rows = self._simulation.ledger.newest_of_keys(set(keys))
        if depth is Layer.SILVER:
            # What never got into gold goes no further by the user's own choice, which no invariant is about.
            ways = (FileState.RECEIVED, FileState.RUNNING, FileState.DONE)
            rows = [row for row in rows if row.state in ways]
        self._told(f"replay {', '.join(sorted(row.key for row in rows))} to {depth}")
        self._simulation.replay(rows, depth)

    def _pause(self) -> None:
        random = self._world.random
        dag_id = f"{random.choice(sorted(CONTRACTS))}_to_{random.choice(list(Layer))}"
        self._told(f"pause {dag_id}")
        self._simulation.scheduler.pause(dag_id, random.random() * 600)

    def _delete_run(self) -> None:
        runs = list(self._simulation.scheduler.runs.values())
        if runs:
            run = self._world.random.choice(runs)
            self._told(f"delete the {run.state} run {run.run_id}")
            self._simulation.scheduler.delete(run)
