"""Dropping a file and following it through the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from contracts.errors import UsageError, WaitTimedOut
from contracts.loading import get_contract, load_contracts
from contracts.settings import Settings
from contracts.states import FileState
from contracts.story import CommitSource, FileStory

POLL_SECONDS = 0.1
"""Between two looks at the ledger: one look is one indexed query of about a millisecond."""


def drop(
    settings: Settings, file: Path, dataset: str, key: str | None, wait_seconds: float | None
) -> FileStory | dict[str, object]:
    """Put a file into bronze as the ingest user.

    Args:
        wait_seconds: how long to wait for the file's end; None comes back after the PUT.

    Returns:
        The file's story when waited for, else what the PUT answered (bucket, key, etag, size, dataset, state).

    Raises:
        UsageError: no such file or dataset, or the contract takes no such key.
        WaitTimedOut: the file had not ended within the limit; says where it is.
    """
    from consumers.ledger import open_ledger
    from ingest.drop import drop_file, drop_key
    from ingest.store import store_for

    contracts = load_contracts(settings.contracts_dir)
    store = store_for(settings, "ingest")
    if wait_seconds is None:
        put = drop_file(store, contracts, file, dataset, key)
        return {"bucket": put.bucket, "key": put.key, "etag": put.etag, "size": put.size, "dataset": dataset,
                "state": FileState.RECEIVED}  # fmt: skip
    with open_ledger(settings) as ledger:
        name = key or drop_key(get_contract(contracts, dataset), file)
        before = ledger.story("bronze", name)
        put = drop_file(store, contracts, file, dataset, key)
        return wait_for_end(
            lambda: ledger.story(put.bucket, put.key, put.etag),
            f"{put.bucket}/{put.key}",
            # The same content again: its old story is over already, so wait until this drop has added to it.
            len(before.timeline) if before is not None and before.etag == put.etag else 0,
            wait_seconds,
        )


def wait_for_end(
    look: Callable[[], FileStory | None],
    name: str,
    known_passages: int,
    seconds: float,
    on_change: Callable[[FileStory], None] | None = None,
) -> FileStory:
    """Look until the file is done, quarantined or ignored and its story has more than the known passages.

    Raises:
        WaitTimedOut: the limit is over; says the last hop.
    """
    limit = time.monotonic() + seconds
    shown = None
    while True:
        story = look()
        if story is not None:
            if on_change is not None and story != shown:
                on_change(story)
            shown = story
            if story.state.final and len(story.timeline) > known_passages:
                return story
        if time.monotonic() >= limit:
            where = f"its last hop is {story.timeline[-1].hop}" if story and story.timeline else "no event told of it"
            raise WaitTimedOut(f"{name} had not ended after {seconds:.0f} s; {where}. Look again: sluice why {name}")
        time.sleep(POLL_SECONDS)


def story(settings: Settings, uri: str) -> FileStory:
    """The story of the newest version of `bronze/<key>`.

    Raises:
        UsageError: not such a name, or no event told of it yet.
    """
    from consumers.ledger import open_ledger

    bucket, key = parse_uri(uri)
    with open_ledger(settings) as ledger:
        found = ledger.story(bucket, key)
    if found is None:
        raise UsageError(f"The ledger knows no {uri}. See what it knows: sluice why --list")
    return found


def list_stories(settings: Settings, state: str | None, dataset: str | None, since: datetime | None) -> list[FileStory]:
    """The newest files, newest first.

    Raises:
        UsageError: no such state.
    """
    from consumers.ledger import open_ledger

    if state is not None and state not in set(FileState):
        raise UsageError(f"No state is called {state!r}. States: {', '.join(FileState)}.")
    with open_ledger(settings) as ledger:
        return ledger.stories(state=FileState(state) if state else None, dataset=dataset, since=utc(since))


def snapshot_sources(settings: Settings, snapshot_id: int) -> list[CommitSource]:
    """What the commit of a snapshot wrote of each file.

    Raises:
        UsageError: the ledger knows no commit of that id.
    """
    from consumers.ledger import open_ledger

    with open_ledger(settings) as ledger:
        found = ledger.commit_sources(snapshot_id)
    if not found:
        raise _no_commit(snapshot_id)
    return found


def files_in_snapshot(settings: Settings, snapshot_id: int) -> list[CommitSource]:
    """Each file of which the table holds rows at a snapshot, with the commit that wrote them.

    Raises:
        UsageError: the ledger knows no commit of that id.
    """
    from consumers.ledger import open_ledger

    with open_ledger(settings) as ledger:
        found = ledger.files_in(snapshot_id)
    if found is None:
        raise _no_commit(snapshot_id)
    return found


def _no_commit(snapshot_id: int) -> UsageError:
    return UsageError(
        f"The ledger knows no commit {snapshot_id} of files to silver or to features. "
        "A file's snapshots are in its story: sluice why bronze/<key>"
    )


def parse_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `bronze/<key>`.

    Raises:
        UsageError: not such a name.
    """
    bucket, _, key = uri.partition("/")
    if bucket != "bronze" or not key:
        raise UsageError(f"{uri!r} is not of the form bronze/<key>.")
    return bucket, key


def utc(moment: datetime | None) -> datetime | None:
    """A moment from the command line, which is of UTC where it says nothing else."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
