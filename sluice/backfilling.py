"""Loading many months: a few files at a time are brought into bronze and followed to their end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential,
)
from tenacity.nap import sleep_using_event

from consumers.ledger import Ledger, open_ledger
from contracts.dataset import DatasetContract, Period
from contracts.errors import ServiceUnavailable, SluiceError
from contracts.loading import get_contract, load_contracts
from contracts.settings import Settings
from contracts.states import FileState, Hop, Layer
from contracts.story import FileStory, LayerResult
from ingest.backfill import Wanted, bring, parse_months, wanted_files
from ingest.store import ObjectInfo, Store, store_for

POLL_SECONDS = 0.5
"""Between two looks at a file: months take seconds."""
PATIENCE = 300.0
"""Seconds for which a server that is away is waited for."""
CLOCKS = timedelta(seconds=2)
"""The store answers a put with a time in whole seconds."""

T = TypeVar("T")

MISSING, FAILED, UNDER_WAY, NOT_BEGUN = "missing", "failed", "under way", "not begun"


@dataclass(frozen=True)
class Outcome:
    """What became of a file of a backfill."""

    month: Period
    key: str
    """Empty for a month of which there is no file."""
    state: str
    """A final `FileState`, or `missing`, `failed` (it is not in bronze), `under way` or `not begun`."""
    put: bool = False
    """False: bronze had the same content already."""
    silver: LayerResult | None = None
    detail: str = ""
    """Why it is not done."""


class View(Protocol):
    """Who is told how it goes; called from several threads."""

    def begins(self, files: int) -> None:
        """So many files belong in bronze."""

    def goes_on(self, key: str, what: str) -> None:
        """A file that is under way, and where it is."""

    def ended(self, outcome: Outcome) -> None:
        """One file less to do."""


class _Stopped(Exception):
    """The backfill is to end; raised where a file would be waited for."""


def backfill(settings: Settings, dataset: str, months: str, source: str, parallel: int, view: View) -> list[Outcome]:
    """Bring a dataset's months into bronze, oldest first, and follow them; what is there already is left alone.

    A signal (SIGINT, SIGTERM) ends it: no further file is begun, a put or download is broken off, which leaves nothing
    half in bronze, and what is in bronze goes on by itself. The same command again goes on from there.

    Args:
        source: `tlc`, or the folder that the files are in.
        parallel: files under way at most. The pipeline takes what waits in one batch, so this bounds what a live file
            of the same dataset has to wait for.

    Returns:
        One outcome for each file, and for each month that has none, in order.

    Raises:
        UsageError, UnknownDataset: no such months, folder or dataset.
    """
    contract = get_contract(load_contracts(settings.contracts_dir), dataset)
    wanted, missing = wanted_files(contract, parse_months(months), None if source == "tlc" else Path(source))
    view.begins(len(wanted))
    outcomes = [Outcome(month, "", MISSING, detail=f"No file of it is in {source}.") for month in missing]
    stopping = threading.Event()
    with open_ledger(settings) as ledger:
        one = _One(settings, contract, store_for(settings, "ingest"), ledger, stopping, view)
        outcomes += _all(one, wanted, parallel, stopping)
    return sorted(outcomes, key=lambda outcome: (outcome.month.start, outcome.key))


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 where all are done; 130 where it was stopped before, 4 where a file is quarantined, else 1."""
    states = {outcome.state for outcome in outcomes}
    broken = FAILED in states or any(outcome.state == UNDER_WAY and outcome.detail for outcome in outcomes)
    if states & {UNDER_WAY, NOT_BEGUN}:
        return 1 if broken else 130
    return 4 if FileState.QUARANTINED in states else 0 if states <= {FileState.DONE} else 1


def _all(one: _One, wanted: Sequence[Wanted], parallel: int, stopping: threading.Event) -> list[Outcome]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ThreadPoolExecutor(parallel) as pool:
            futures = [pool.submit(one.follow, file) for file in wanted]
            try:
                _wait(futures)
            except KeyboardInterrupt:
                stopping.set()
            return [future.result() for future in futures]
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(futures: Sequence[Future[Outcome]]) -> None:
    waiting = set(futures)
    while waiting:
        # With a limit, or a signal would be looked at only when one of them ends.
        _, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)


@dataclass(frozen=True)
class _One:
    """The way of one file."""

    settings: Settings
    contract: DatasetContract
    store: Store
    ledger: Ledger
    stopping: threading.Event
    view: View

    def follow(self, wanted: Wanted) -> Outcome:
        """Bring a file into bronze and wait for its end, or until the backfill is to end."""
        outcome = Outcome(wanted.month, wanted.key, NOT_BEGUN)
        if self.stopping.is_set():
            return outcome
        try:
            info, put = self._patiently(lambda: self._bring(wanted))
            outcome = replace(outcome, state=UNDER_WAY, put=put)
            story = self._end(info, put)
            silver = next((layer for layer in story.layers if layer.layer == Layer.SILVER), None)
            outcome = replace(outcome, state=str(story.state), silver=silver, detail=story.detail or "")
        except _Stopped:
            return outcome
        except SluiceError as error:
            outcome = replace(
                outcome, state=FAILED if outcome.state == NOT_BEGUN else outcome.state, detail=error.message
            )
            if isinstance(error, ServiceUnavailable):
                # So it would be with every other file.
                self.stopping.set()
        self.view.ended(outcome)
        return outcome

    def _bring(self, wanted: Wanted) -> tuple[ObjectInfo, bool]:
        def report(have: int, total: int | None) -> None:
            self._go_on()
            of = f" of {total / 1e6:,.0f}" if total else ""
            self.view.goes_on(wanted.key, f"{have / 1e6:,.0f}{of} MB")

        self._go_on()
        return bring(self.settings, self.contract, wanted, self.store, report)

    def _end(self, info: ObjectInfo, put: bool) -> FileStory:
        while True:
            story = self._patiently(lambda: self.ledger.story(info.bucket, info.key, info.etag))
            if story is not None and _tells(story, info, put):
                if story.state.final:
                    return story
                last = story.timeline[-1]
                self.view.goes_on(info.key, f"{last.hop} {last.layer or ''}".strip())
            # After the look, so that a file that has ended is never told to be under way.
            self._go_on()
            self.stopping.wait(POLL_SECONDS)

    def _go_on(self) -> None:
        if self.stopping.is_set():
            raise _Stopped

    def _patiently(self, work: Callable[[], T]) -> T:
        retrying = Retrying(
            retry=retry_if_exception_type(ServiceUnavailable),
            wait=wait_exponential(multiplier=0.5, max=10),
            stop=stop_any(stop_after_delay(PATIENCE), stop_when_event_set(self.stopping)),
            sleep=sleep_using_event(self.stopping),
            reraise=True,
        )
        try:
            return retrying(work)
        except ServiceUnavailable:
            # Broken off, and so no failure of this file; of another, maybe, which is told with that one.
            self._go_on()
            raise


def _tells(story: FileStory, info: ObjectInfo, put: bool) -> bool:
    """Whether a story tells of this put, too, and not only of one of the same content before."""
    arrived = [passage.at for passage in story.timeline if passage.hop in (Hop.PUT, Hop.REPEATED)]
    return not put or any(at >= info.last_modified - CLOCKS for at in arrived)
