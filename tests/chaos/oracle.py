"""What must hold once all is quiet: nothing lost, nothing twice, nothing left lying."""

from __future__ import annotations

import sys
import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from consumers.broker import Reader, topics_overview
from consumers.dead_letters import DeadLetter
from consumers.topics import DEAD_LETTERS
from contracts.errors import Retryable
from contracts.settings import Settings
from sluice.query import run_query
from tests.chain.accounting import ROW_TABLES, zone_hour_differences
from tests.chaos.files import KEEPS, RETRACTS, Expected

QUIET_SECONDS = 1_200
"""Reconcile comes every five minutes and takes up what stood still for ten."""
_ENDED = ("done", "quarantined", "ignored")
_ORIGIN = "_source_id, _source_key, _source_etag"

Rows = tuple[int, str | None]
"""How many rows, and a hash of all their values but for where they come from, whatever their order."""


@dataclass(frozen=True)
class Oracle:
    """Compares the stack with what a run without faults would have left."""

    settings: Settings
    etag: Callable[[int], str]
    """Of a content."""
    reference: Mapping[int, Mapping[str, Rows]]
    """Content and pattern of a table to what it holds of a file with that content that met no fault."""
    folder: str
    """Of the datasets' folders, which the chaos run has for itself."""
    since: datetime
    """Runs from before are no business of this chaos run."""

    def wait_for_quiet(self, keys: Mapping[str, int | None]) -> datetime | None:
        """Wait until nothing is under way, and the newest version of each key has ended.

        Args:
            keys: to the content that its newest version has; None where any version will do.

        Returns:
            When the last of them ended, by the ledger; None without any.

        Raises:
            AssertionError: what is still under way after `QUIET_SECONDS`.
        """
        limit = time.monotonic() + QUIET_SECONDS
        while True:
            try:
                busy = self._busy(keys)
            except (psycopg.Error, Retryable) as error:
                busy = str(error)
            if busy is None:
                return self._last_end(keys)
            assert time.monotonic() < limit, f"not quiet after {QUIET_SECONDS} s: {busy}"
            time.sleep(0.3)

    def wrongs(self, expected: Expected, nonsense: set[str]) -> list[str]:
        """Everything that is not as it must be; a sentence each.

        Args:
            nonsense: messages that were sent and are no events.
        """
        return [
            *self._wrong_rows(expected),
            *self._wrong_aggregates(),
            *self._wrong_states(expected),
            *self._wrong_history(),
            *self._wrong_runs(),
            *self._wrong_letters(expected, nonsense),
        ]

    def _busy(self, keys: Mapping[str, int | None]) -> str | None:
        """What is under way, or None; the cheapest questions first."""
        newest = self._newest()
        for key, content in keys.items():
            state, etag = newest.get(key, ("unknown", ""))
            if state not in _ENDED or (content is not None and etag != self.etag(content)):
                return f"{key} is {state} (etag {etag})"
        open_ones = self._ledger(
            "select key, etag, state from ledger.files where key like '%%/' || %s || '/%%' and not state = any(%s)",
            self.folder,
            list(_ENDED),
        )
        if open_ones:
            return f"versions have not ended: {open_ones}"
        runs = self._airflow("select dag_id, run_id from dag_run where state in ('queued', 'running')")
        if active := [run for run in runs if _is_stage(run[0])]:
            return f"runs are active: {active}"
        unread = [
            f"{topic.topic} ({group}: {lag})"
            for topic in topics_overview(self.settings.kafka_login("operator"))
            for group, lag in topic.lag.items()
            if lag and topic.topic != DEAD_LETTERS
        ]
        return f"messages are unread: {unread}" if unread else None

    def _newest(self) -> dict[str, tuple[str, str]]:
        rows = self._ledger(
            "select distinct on (key) key, state, etag from ledger.files where bucket = 'bronze'"
            " order by key, sequencer desc"
        )
        return {key: (state, etag) for key, state, etag in rows}

    def _last_end(self, keys: Mapping[str, int | None]) -> datetime | None:
        rows = self._ledger(
            "select max(at) from ledger.history where key = any(%s) and state = any(%s)", list(keys), list(_ENDED)
        )
        found: datetime | None = rows[0][0]
        return found

    def rows_by_key(self, dataset: str) -> dict[str, dict[str, tuple[set[str], Rows]]]:
        """Key and pattern of a table to the etags and the rows that it holds of the key."""
        statement = " union all ".join(
            f"select '{pattern}', _source_key, min(_source_etag), max(_source_etag), count(*),"
            f" sum(hash(*columns(* exclude ({_ORIGIN})))::hugeint)::varchar"
            f" from {pattern.format(dataset)} group by _source_key"
            for pattern in ROW_TABLES
        )
        found: dict[str, dict[str, tuple[set[str], Rows]]] = defaultdict(dict)
        for pattern, key, first, last, rows, hashed in run_query(self.settings, statement)[1]:
            found[key][pattern] = ({first, last}, (rows, hashed))
        return found

    def _wrong_rows(self, expected: Expected) -> list[str]:
        wrong = []
        for dataset in (KEEPS, RETRACTS):
            held = self.rows_by_key(dataset)
            wanted = {key: n for key, n in expected.contents.items() if key.startswith(f"{dataset}/")}
            lost = sorted(wanted.keys() - held.keys())
            wrong += [f"LOST: {key} has no rows in {dataset}" for key in lost]
            own = {key for key in held if key.startswith(f"{dataset}/{self.folder}/")}
            wrong += [f"NOT EXPECTED: {dataset} has rows of {key}" for key in sorted(own - wanted.keys())]
            for key, content in wanted.items():
                for pattern, rows in self.reference[content].items():
                    etags, found = held.get(key, {}).get(pattern, (set(), (0, None)))
                    if found != rows or etags - {self.etag(content)}:
                        what = "TWICE OR OLD" if found[0] > rows[0] else "WRONG ROWS"
                        table = pattern.format(dataset)
                        wrong.append(f"{what}: {key} in {table}: {found}, expected {rows} (etags {etags})")
        return wrong

    def _wrong_aggregates(self) -> list[str]:
        wrong = []
        for dataset in (KEEPS, RETRACTS):
            rows = zone_hour_differences(lambda statement: run_query(self.settings, statement)[1], dataset)
            wrong += [f"AGGREGATE: {rows} rows of {dataset} differ from its features"] if rows else []
        return wrong

    def _why(self, key: str) -> list[tuple[str, str, str]]:
        """What the ledger's history tells of a key's failures."""
        return self._ledger(
            "select hop, run_id, detail from ledger.history where key = %s and reason is not null order by at", key
        )

    def _wrong_states(self, expected: Expected) -> list[str]:
        states = self._newest()
        wrong = [
            f"STATE: {key} is {states.get(key)}, expected done: {self._why(key)}"
            for key, content in expected.contents.items()
            if states.get(key) != ("done", self.etag(content))
        ]
        wrong += [
            f"STATE: {key} is {states.get(key)}, expected quarantined"
            for key in expected.refused
            if states.get(key, ("",))[0] != "quarantined"
        ]
        versions = self._ledger(
            "select key, etag, state from ledger.files where key like '%%/' || %s || '/%%'", self.folder
        )
        return wrong + [
            f"NO ANSWER: {key} (etag {etag}) is {state}" for key, etag, state in versions if state not in _ENDED
        ]

    def _wrong_history(self) -> list[str]:
        """Passages after which a file was in a state that its next passage does not lead on from."""
        rows = self._ledger(
            """
            select key, etag, before, state from (
                select key, etag, state, lag(state) over own as before, lag(reason) over own as why from ledger.history
                where key like '%%/' || %s || '/%%' and state is not null and hop <> 'repeated'
                window own as (partition by bucket, key, etag order by id)) passages
            where before = any(%s) and state <> 'received' and state <> before
              and not (why in ('run_failed', 'superseded') and state in ('running', 'done'))
            """,
            self.folder,
            list(_ENDED),
        )
        return [f"HISTORY: {key} (etag {etag}) went from {before} to {state}" for key, etag, before, state in rows]

    def _wrong_runs(self) -> list[str]:
        batches = {row[0] for row in self._ledger("select batch_id from ledger.batches")}
        runs = self._airflow(
            "select dag_id, run_id, state, conf ->> 'batch_id' from dag_run where queued_at > %s", self.since
        )
        return [
            f"ORPHAN RUN: {dag_id}/{run_id} ({state}) is of no batch of the ledger"
            for dag_id, run_id, state, batch_id in runs
            if _is_stage(dag_id) and batch_id not in batches
        ]

    def _wrong_letters(self, expected: Expected, nonsense: set[str]) -> list[str]:
        with Reader(self.settings.kafka_login("operator")) as reader:
            records = reader.read(DEAD_LETTERS, 0, 0, sys.maxsize)
            letters = [DeadLetter.model_validate_json(record.value or b"") for record in records]
        buried = {b64decode(letter.value or "").decode("utf-8", "replace"): letter for letter in letters}
        return [f"NO LETTER: {text!r} was sent and is in no dead letter" for text in nonsense - buried.keys()] + [
            f"LETTER: of {letter.topic}[{letter.partition}]@{letter.offset}, which was no nonsense: {letter.detail}"
            for text, letter in buried.items()
            if self.folder in text and (letter.key or "").removeprefix("bronze/") not in expected.refused
        ]

    def _ledger(self, statement: str, *arguments: Any) -> list[Any]:
        return _ask(self.settings, "lake", statement, arguments)

    def _airflow(self, statement: str, *arguments: Any) -> list[Any]:
        return _ask(self.settings, "airflow", statement, arguments)


def _ask(settings: Settings, database: str, statement: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
    url = settings.postgres_url(settings.postgres_superuser, database)
    with psycopg.connect(url, connect_timeout=4) as link:
        return link.execute(statement, arguments).fetchall()  # type: ignore[arg-type]


def _is_stage(dag_id: str) -> bool:
    return dag_id.endswith(("_to_silver", "_to_gold"))
