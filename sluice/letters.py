"""Dead letters: looking at them, sending their messages again, closing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from consumers.dead_letters import (
    Filed,
    Filter,
    LetterState,
    Redrive,
    chosen,
    read_letter,
    redrive,
    refuse_settled,
)
from consumers.topics import DEAD_LETTERS, PARTITIONS
from contracts.errors import BadWork, UsageError
from contracts.settings import Settings

if TYPE_CHECKING:
    from consumers.broker import Producer, Reader
    from consumers.ledger import Ledger

AT_ONCE = 50
"""Letters sent before Kafka and the ledger are waited for: at most 50 MB, and few round trips."""
SHOWN_OF_LISTED = 200
"""Characters of a detail in a list."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything about one dead letter."""

    filed: Filed
    redriven_to: tuple[int, ...]
    """Ids of the dead letters that sending it again ended in."""


@dataclass(slots=True)
class Outcome:
    """What a command did to dead letters."""

    done: list[int] = field(default_factory=list)
    """Ids."""
    left: dict[int, str] = field(default_factory=dict)
    """Ids of those that matched but stay open, and why."""


class DeadLetterBox:
    """The dead letters of one stack.

    Args:
        reader: for `lake.dlq`.
        sources: for the topics that the messages came from; another one, since a reader reads one range at a time.
    """

    def __init__(self, reader: Reader, sources: Reader, producer: Producer, ledger: Ledger) -> None:
        self._reader = reader
        self._sources = sources
        self._producer = producer
        self._ledger = ledger

    def matching(self, only: Filter, with_settled: bool = False) -> Iterator[Filed]:
        """The open dead letters that a filter takes, or all, oldest first.

        Raises:
            UsageError: the filter names a topic that there is not.
            ServiceUnavailable: Kafka or Postgres does not answer.
        """
        if only.topic is not None and only.topic not in PARTITIONS:
            raise UsageError(f"No such topic. Topics: {', '.join(PARTITIONS)}.")
        first, end = self._reader.bounds(DEAD_LETTERS, 0)
        start = first if with_settled else max(first, self._ledger.first_open_letter())
        if only.since is not None:
            since = self._reader.offset_since(DEAD_LETTERS, 0, only.since)
            start = end if since is None else max(start, since)
        settled = self._ledger.settled_letters(start, end)
        letters = ((r.offset, read_letter(r, r.at)) for r in self._reader.read(DEAD_LETTERS, 0, start, end))
        return chosen(letters, settled, only, with_settled)

    def find(self, letter_id: int) -> Filed:
        """The dead letter of an id.

        Raises:
            UsageError: there is none.
            ServiceUnavailable: Kafka or Postgres does not answer.
        """
        record = next(iter(self._reader.read(DEAD_LETTERS, 0, letter_id, letter_id + 1)), None)
        if record is None:
            raise UsageError(f"There is no dead letter {letter_id}. See what there is: sluice dlq list --all")
        settled = self._ledger.settled_letters(letter_id, letter_id + 1)
        return Filed(letter_id, read_letter(record, record.at), settled.get(letter_id))

    def show(self, letter_id: int) -> Shown:
        """Everything about one dead letter; for one that was redriven all that came after it is looked through.

        Raises:
            UsageError: there is none.
            ServiceUnavailable: Kafka or Postgres does not answer.
        """
        filed = self.find(letter_id)
        if filed.state != LetterState.REDRIVEN:
            return Shown(filed, ())
        _, end = self._reader.bounds(DEAD_LETTERS, 0)
        later = self._reader.read(DEAD_LETTERS, 0, letter_id + 1, end)
        return Shown(filed, tuple(r.offset for r in later if read_letter(r, r.at).redriven_from == letter_id))

    def redrive(self, ids: Sequence[int], only: Filter) -> Outcome:
        """Send the messages of dead letters to their topics again; they meet the same checks as any other.

        Args:
            ids: of which ones, all or none of them; empty: those that the filter takes, as far as that goes.

        Raises:
            UsageError: neither ids nor a filter, or both; or one of the ids is not to be had.
            ServiceUnavailable: Kafka or Postgres does not answer; what was sent but not closed is sent again by the
                next try, which changes nothing.
        """
        outcome = Outcome()
        for some in self._picked(ids, only):
            messages: dict[int, Redrive] = {}
            for filed in some:
                try:
                    messages[filed.id] = self._message(filed)
                except UsageError as error:
                    if ids:
                        raise
                    outcome.left[filed.id] = error.message
            self._send(messages, outcome)
        return outcome

    def discard(self, ids: Sequence[int], only: Filter) -> Outcome:
        """Close dead letters without sending them. Arguments and errors are those of `redrive`."""
        outcome = Outcome()
        for some in self._picked(ids, only):
            found = [filed.id for filed in some]
            self._ledger.settle_letters(found, LetterState.DISCARDED)
            outcome.done += found
        return outcome

    def _picked(self, ids: Sequence[int], only: Filter) -> Iterable[Sequence[Filed]]:
        require_choice(ids, only)
        if not ids:
            found = self.matching(only)
            return iter(lambda: list(islice(found, AT_ONCE)), [])
        filed = [self.find(letter_id) for letter_id in dict.fromkeys(ids)]
        for one in filed:
            refuse_settled(one)
        return [filed]

    def _message(self, filed: Filed) -> Redrive:
        letter = filed.letter
        whole = None
        if letter.value_cut and letter.topic in PARTITIONS and letter.partition < PARTITIONS[letter.topic]:
            held = self._sources.read(letter.topic, letter.partition, letter.offset, letter.offset + 1)
            whole = next((record.value for record in held), None)
        return redrive(filed.id, letter, whole)

    def _send(self, messages: dict[int, Redrive], outcome: Outcome) -> None:
        sent = []
        for letter_id, message in messages.items():
            try:
                self._producer.send(message.topic, message.key, message.value, message.headers)
            except BadWork as error:
                # Its two more headers may make it larger than Kafka takes.
                outcome.left[letter_id] = error.message
            else:
                sent.append(letter_id)
        # Kafka first: a crash before the ledger's row redrives twice, which is harmless, and never loses one.
        self._producer.flush()
        if sent:
            self._ledger.settle_letters(sent, LetterState.REDRIVEN)
        outcome.done += sent


def filter_of(reason: str | None, topic: str | None, since: datetime | None) -> Filter:
    """A command's filter; a moment without a zone is of UTC."""
    return Filter(reason, topic, since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since)


def require_choice(ids: Sequence[int], only: Filter) -> None:
    """Check that a command says which dead letters it is about.

    Raises:
        UsageError: neither ids nor a filter, or both.
    """
    if bool(ids) != only.takes_all:
        raise UsageError("Name dead letters by their ids, or take some by --reason, --topic or --since; not both.")


@contextmanager
def open_box(settings: Settings) -> Iterator[DeadLetterBox]:
    """The dead letters of a stack.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    from consumers.broker import Producer, Reader
    from consumers.ledger import open_ledger

    login = settings.kafka_login("operator")
    producer = Producer(login)
    try:
        with (
            Reader(login) as reader,
            Reader(login) as sources,
            open_ledger(settings) as ledger,
        ):
            yield DeadLetterBox(reader, sources, producer, ledger)
    finally:
        producer.close()


def listed(settings: Settings, only: Filter, with_settled: bool) -> list[Filed]:
    """Dead letters for a list, oldest first: without their values, of which there may be more than memory.

    Raises:
        UsageError: the filter names a topic that there is not.
        ServiceUnavailable: Kafka or Postgres does not answer.
    """
    with open_box(settings) as box:
        return [_shortened(filed) for filed in box.matching(only, with_settled)]


def _shortened(filed: Filed) -> Filed:
    letter = filed.letter
    short = {"value": None, "detail": letter.detail[:SHOWN_OF_LISTED]}
    return replace(filed, letter=letter.model_copy(update=short))
