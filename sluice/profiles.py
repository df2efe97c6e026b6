"""The profile of a file, and how far it is from that of the month before."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from contracts.drift import Drift, drift
from contracts.errors import ObjectGone, UsageError
from contracts.loading import load_contracts
from contracts.profile import Profile, key_of_the_month_before, profile_key
from contracts.settings import Settings
from contracts.states import FileState
from contracts.story import FileStory

MOST_BYTES = 8 * 1024**2
"""Of a profile: a thousand columns with twenty texts each stay below."""


SECONDS = 30.0
"""How long the profile of a file is waited for that is in gold already."""


@dataclass(frozen=True)
class ProfileFound:
    """What there is to show of a file."""

    profile: Profile
    before: Profile | None
    """Of the file of the month before."""
    no_drift: str
    """Why there is nothing to hold it against; empty where there is."""

    @property
    def drift(self) -> Drift | None:
        """Against the month before."""
        return drift(self.profile, self.before) if self.before else None


def profile_of(settings: Settings, uri: str) -> ProfileFound:
    """The profile of the newest version of `bronze/<key>`.

    Raises:
        UsageError: not such a name, no event told of it yet, or no profile was made of it (yet).
        NotRunning, ServiceUnavailable: a server does not answer.
    """
    from sluice.files import story

    found = story(settings, uri)
    profile = _kept(settings, found)
    if profile is None and found.state == FileState.DONE:
        # It is on its way, if the file is.
        again = Retrying(
            stop=stop_after_delay(SECONDS), wait=wait_fixed(0.5), retry=retry_if_result(lambda it: it is None)
        )
        with suppress(RetryError):
            profile = again(_kept, settings, found)
    if profile is None:
        told = (
            f"Where it is: sluice why {uri}"
            if found.state != FileState.DONE
            else "The DAG `profiles` makes it; look there."
        )
        raise UsageError(f"There is no profile of {uri} (etag {found.etag}, {found.state}) yet. {told}")
    before, missing = _of_the_month_before(settings, profile)
    return ProfileFound(profile, before, missing)


def write_page(path: Path, page: str) -> None:
    """Write a page to a file.

    Raises:
        UsageError: that is not possible there.
    """
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name a file in a folder of yours.") from error


def _of_the_month_before(settings: Settings, profile: Profile) -> tuple[Profile | None, str]:
    contract = load_contracts(settings.contracts_dir).get(profile.dataset)
    key = key_of_the_month_before(contract, profile.key) if contract else None
    if key is None:
        return None, "its key names no month"
    from consumers.ledger import open_ledger

    with open_ledger(settings) as ledger:
        earlier = ledger.story(profile.bucket, key)
    before = _kept(settings, earlier) if earlier else None
    return before, "" if before else f"there is no profile of {profile.bucket}/{key}"


def _kept(settings: Settings, story: FileStory) -> Profile | None:
    from ingest.store import store_for
    from spark_jobs.lake import source_id

    key = profile_key(story.dataset or "", source_id(story.key), story.etag)
    try:
        return Profile.model_validate_json(store_for(settings, "reader").get_bytes("silver", key, MOST_BYTES))
    except ObjectGone:
        return None
