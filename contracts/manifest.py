"""The manifest of a set of files: which files belong to it, and how many rows each has.

    {"files": [{"name": "part-1.parquet", "rows": 1000}, {"name": "part-2.parquet"}]}

A name is the last part of a key of the manifest's own folder. Without `rows`, or where it is null, any number will do.
Other keys beside `files` are the producer's own and are ignored; those of a file are not, so that a misspelt `rows`
is noticed.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from contracts.dataset import hidden_part
from contracts.errors import BadManifest
from contracts.events import MAX_KEY_BYTES

MAX_BYTES = 4 * 1024 * 1024
"""Room for `MAX_FILES` names of some 400 bytes."""
MAX_FILES = 10_000
_NAMED = 3
_MOST_OF_MESSAGE = 500


class ManifestFile(BaseModel):
    """One file that belongs to a set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    rows: int | None = Field(default=None, ge=0, lt=2**63)
    """In the file, before any is rejected."""

    @field_validator("name")
    @classmethod
    def _can_come(cls, name: str) -> str:
        if "/" in name or "\0" in name:
            raise ValueError("the last part of a key was expected, without '/' and NUL")
        if hidden_part(name) is not None:
            raise ValueError("names that begin with '_' or '.' are work files, which are never taken in")
        return name


class Manifest(BaseModel):
    """The files of a set."""

    model_config = ConfigDict(frozen=True)

    files: tuple[ManifestFile, ...]

    @field_validator("files")
    @classmethod
    def _each_once(cls, files: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
        if not 1 <= len(files) <= MAX_FILES:
            raise ValueError(f"1 to {MAX_FILES:,} files were expected, not {len(files):,}")
        seen = set()
        for file in files:
            if file.name in seen:
                raise ValueError(f"{file.name!r} is listed twice")
            seen.add(file.name)
        return files


def parse_manifest(value: bytes, folder: str = "") -> Manifest:
    """Parse the manifest of a set.

    Args:
        folder: what the keys of its files begin with, with "/" at its end.

    Raises:
        BadManifest: not JSON, or not such a list; names the first fields that are wrong and what was expected.
    """
    try:
        manifest = Manifest.model_validate_json(value)
        for file in manifest.files:
            if len(f"{folder}{file.name}".encode()) > MAX_KEY_BYTES:
                raise BadManifest(
                    f"{file.name[:60]!r}… in {folder!r} is longer than the {MAX_KEY_BYTES:,} bytes of a key."
                )
        return manifest
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        fields = "; ".join(f"{_place(item['loc'])}: {item['msg']}" for item in wrong[:_NAMED])
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise BadManifest(f"The object is not a manifest: {fields[:_MOST_OF_MESSAGE]}{more}.") from error


def _place(parts: tuple[int | str, ...]) -> str:
    """A field's place; what the producer wrote himself is escaped, since no ledger and no terminal takes all of it."""
    named = (part if isinstance(part, str) and part.isidentifier() else repr(part)[:60] for part in parts)
    return ".".join(named) or "the whole"
