"""Edge: DuckDB in this process, signed in to the store as a user who reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from contracts.errors import NotRunning, UsageError
from contracts.settings import Settings


class UnknownTable(UsageError):
    """A statement names a table that is not there."""


class Duck:
    """A connection that reads `s3://` as the reader does. A context manager."""

    def __init__(self, settings: Settings, extensions: Iterable[str]) -> None:
        """Open it.

        Args:
            extensions: of DuckDB, each from its wheel.

        Raises:
            UsageError: the wheel of an extension is not installed.
        """
        self._place = settings.s3_endpoint
        self._link = duckdb.connect()
        _load(self._link, extensions)
        _sign_in(self._link, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    def view(self, name: str, paths: Sequence[str]) -> None:
        """Name the rows of some parquet files, as `s3://…`, whose columns go by their names. Raises as `run`."""
        with self._errors():
            self._link.read_parquet(list(paths), union_by_name=True).create_view(name)

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Name rows of one's own, column by column: values of others are in no statement. Raises as `run`."""
        import pyarrow as pa

        with self._errors():
            self._link.register(name, pa.table(dict(columns)))

    def run(self, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a statement.

        Returns:
            Column names, and rows in the order that the statement gives.

        Raises:
            NotRunning: the store does not answer.
            UnknownTable, UsageError: DuckDB refuses the statement.
        """
        with self._errors():
            cursor = self._link.execute(statement)
            return [column[0] for column in cursor.description or []], cursor.fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.HTTPException, duckdb.IOException) as error:
            raise NotRunning(f"MinIO on {self._place} could not be read: {_first_line(error)}") from error
        except duckdb.CatalogException as error:
            raise UnknownTable(_first_line(error)) from error
        except duckdb.Error as error:
            raise UsageError(f"The statement is not valid: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


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
        f" endpoint {endpoint}, url_style 'path', use_ssl {'false' if settings.ca_file is None else 'true'})"
    )
    if settings.ca_file is not None:
        link.execute(f"set ca_cert_file = {literal(str(settings.ca_file))}")
        link.execute("set enable_server_cert_verification = true")


def literal(text: str) -> str:
    """A string literal of DuckDB's SQL, for texts of our own."""
    return "'" + text.replace("'", "''") + "'"
