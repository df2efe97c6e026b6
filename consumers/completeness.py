"""Decisions: which files of a set may go on to gold, which wait for the others, and until when. No I/O.

A set is a folder. Its manifest names its files; one counts when its newest version is there, is in silver for its
current work, and came with the rows that the manifest states. Which files wait is kept nowhere: it is those that are in
silver and that no gold batch holds, unless they were released.

Work that was released stays so, whatever becomes of the set afterwards: it is handed on again until a batch holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from consumers.routing import Work
from contracts.dataset import Completeness
from contracts.states import FileState, Hop, Reason

NAMED = 20
"""Missing files that a sentence names."""


class Place(NamedTuple):
    """Where a set is."""

    bucket: str
    folder: str
    """With the slash at its end."""

    @property
    def dataset(self) -> str:
        """The dataset that the folder belongs to."""
        return self.folder.split("/", 1)[0]


def place_of(bucket: str, key: str) -> Place:
    """The set that an object belongs to: its folder."""
    return Place(bucket, key[: key.rfind("/") + 1])


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that a manifest lists, and what the ledger knows of the newest version of its key."""

    key: str
    rows: int | None
    """That it is to have; None: any number."""
    state: FileState | None = None
    """None: no event told of it."""
    reason: Reason | None = None
    removed: bool = False
    rows_in: int | None = None
    """That silver read for its current work; None: it has not yet."""


@dataclass(frozen=True, slots=True)
class Due:
    """A file that is in silver for its current work, and that no gold batch holds."""

    work: Work
    detail: str | None
    """What it was found waiting for."""
    since: datetime
    """When silver committed it."""
    released: bool
    newest: bool
    """Whether no later version of the object is known."""


@dataclass(frozen=True, slots=True)
class KnownSet:
    """What the ledger knows of a set."""

    listed: tuple[Listed, ...] | None
    """None: no manifest came yet."""
    due: tuple[Due, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a set is."""

    total: int
    missing: tuple[tuple[str, str], ...]
    """Name and why it does not count, in the order of `listed`."""

    @property
    def complete(self) -> bool:
        """Whether every listed file counts."""
        return not self.missing

    def __str__(self) -> str:
        if self.complete:
            return "the set is complete"
        names = ", ".join(f"{name} ({why})" for name, why in self.missing[:NAMED])
        more = f" and {len(self.missing) - NAMED:,} more" if len(self.missing) > NAMED else ""
        return f"waiting for {len(self.missing):,} of {self.total:,} files: {names}{more}"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one file that is due."""

    work: Work
    state: FileState = FileState.RUNNING
    reason: Reason | None = None
    detail: str | None = None
    released: bool = False
    hop: Hop | None = None
    """What its history is to tell; None: nothing."""
    told: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look at a set decided."""

    changes: tuple[Change, ...] = ()
    released: tuple[Work, ...] = ()
    """Goes to gold now."""
    again: tuple[Work, ...] = ()
    """Was released before, and no batch holds it yet: the router may have died before Kafka had it."""
    note: str | None = None
    """What the set waits for, to be told of its manifest."""
    timed_out: bool = False


def standing(listed: Sequence[Listed]) -> Standing:
    """How far a set is, by its manifest."""
    lacks = ((file.key.rpartition("/")[2], _lack(file)) for file in listed)
    return Standing(len(listed), tuple((name, why) for name, why in lacks if why is not None))


def weigh(place: Place, rules: Completeness, known: KnownSet, now: datetime | None = None) -> Outcome:
    """Decide what becomes of the files of a set that are due.

    Args:
        now: for the time limit; None leaves that to others.
    """
    manifest = f"{place.folder}{rules.manifest}"
    stands = standing(known.listed) if known.listed is not None else None
    sentence = str(stands) if stands is not None else f"waiting for {manifest}"
    listed = {file.key for file in known.listed or ()}
    changes, released, held = [], [], []
    for due in known.due:
        if due.released:
            continue
        if not due.newest:
            changes.append(_superseded(due))
        elif stands is not None and stands.complete and due.work.item.key in listed:
            released.append(due.work)
            changes.append(_release(due, sentence))
        else:
            strange = known.listed is not None and due.work.item.key not in listed
            held.append((due, f"waiting, as it is not listed in {manifest}" if strange else sentence))
    timed_out = now is not None and any(due.since <= now - rules.time_limit for due, _ in held)
    if timed_out and rules.on_time_limit == "release":
        released += [due.work for due, _ in held]
        changes += [_release(due, f"after {rules.time_limit}, though {why}") for due, why in held]
    elif timed_out:
        changes += [_quarantine(due, f"After {rules.time_limit} still {why}.") for due, why in held]
    else:
        changes += [_wait(due, why) for due, why in held if due.detail != why]
    return Outcome(
        changes=tuple(changes),
        released=tuple(released),
        again=tuple(due.work for due in known.due if due.released),
        note=None if stands is None or stands.complete else sentence,
        timed_out=timed_out,
    )


def _lack(file: Listed) -> str | None:
    """Why a listed file does not count; None when it does."""
    if file.state is None:
        return "has not arrived"
    if file.removed:
        return "was deleted"
    if file.state in (FileState.QUARANTINED, FileState.IGNORED):
        return f"is {file.state} ({file.reason})"
    if file.rows_in is None:
        return "is not in silver yet"
    if file.rows is not None and file.rows_in != file.rows:
        return f"{file.rows_in:,} rows came, {file.rows:,} are listed"
    return None


def _superseded(due: Due) -> Change:
    reason = Reason.SUPERSEDED
    detail = "A later version came while it waited for its set."
    return Change(due.work, reason.state, reason, detail, hop=Hop.RECORDED, told=detail)


def _release(due: Due, why: str) -> Change:
    """A file that never had to wait has nothing to tell of it."""
    hop = Hop.RELEASED if due.detail is not None else None
    return Change(due.work, released=True, hop=hop, told=why)


def _quarantine(due: Due, why: str) -> Change:
    reason = Reason.SET_INCOMPLETE
    return Change(due.work, reason.state, reason, why, hop=Hop.QUARANTINED, told=why)


def _wait(due: Due, why: str) -> Change:
    hop = Hop.HELD if due.detail is None else None
    return Change(due.work, detail=why, hop=hop, told=why)
