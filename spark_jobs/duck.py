"""Edge: DuckDB in this process, signed in to the store as a user who reads."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import UsageError
from contracts.settings import Settings

if TYPE_CHECKING:
    import duckdb


def connect(settings: Settings, extensions: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """A connection that reads `s3://` as the reader does; the caller closes it.

    Args:
        extensions: of DuckDB, each from its wheel.

    Raises:
        UsageError: the wheel of an extension is not installed.
    """
    import duckdb

    link = duckdb.connect()
    try:
        _load(link, extensions)
        _sign_in(link, settings)
    except BaseException:
        link.close()
        raise
    return link


def _load(link: Any, extensions: Iterable[str]) -> None:
    # From the installed wheels by path: DuckDB shall fetch nothing by itself.
    link.execute("set autoinstall_known_extensions = false")
    link.execute("set autoload_known_extensions = false")
    for name in extensions:
        spec = find_spec(f"duckdb_extension_{name}")
        if spec is None or spec.origin is None:
            raise UsageError(f"The wheel duckdb-extension-{name} is not installed; run: make setup")
        found = sorted(Path(spec.origin).parent.glob(f"extensions/*/{name}.duckdb_extension"))
        link.load_extension(str(found[-1]))


def _sign_in(link: Any, settings: Settings) -> None:
    key, secret, region, endpoint = map(
        literal,
        (
            settings.reader_access_key,
            settings.reader_secret_key.get_secret_value(),
            settings.s3_region,
            settings.s3_endpoint,
        ),
    )
    # Not with parameters: for the first one DuckDB imports pandas, which takes a third of a second.
    link.execute(
        f"create secret (type s3, provider config, key_id {key}, secret {secret}, region {region},"
        f" endpoint {endpoint}, url_style 'path', use_ssl false)"
    )


def literal(text: str) -> str:
    """A string literal of DuckDB's SQL, for texts of our own."""
    return "'" + text.replace("'", "''") + "'"
