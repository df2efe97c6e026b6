"""Reads silver and gold with DuckDB, in this process: the catalog says where a table's newest metadata lies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from contracts.errors import NotRunning, UsageError
from contracts.settings import Settings
from spark_jobs.duck import Duck, UnknownTable, literal

EXTENSIONS = ("avro", "httpfs", "iceberg")


def run_query(settings: Settings, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one SQL statement over the tables of silver and gold.

    Returns:
        Column names, and rows in the order that the statement gives.

    Raises:
        UsageError: DuckDB refuses the statement, or a table does not exist; names those that do.
        NotRunning: the catalog or MinIO does not answer.
    """
    locations = _metadata_locations(settings)
    with Duck(settings, EXTENSIONS) as duck:
        try:
            for schema in ("silver", "gold"):
                duck.run(f"create schema {schema}")
            for name in _named_tables(query, locations):
                schema, table = name
                location = literal(locations[name])
                duck.run(f'create view {schema}."{table}" as select * from iceberg_scan({location})')  # noqa: S608 - names and location come from the catalog
            return duck.run(query)
        except UnknownTable as error:
            known = (
                ", ".join(sorted(f"{schema}.{table}" for schema, table in locations)) or "none yet; drop a file first"
            )
            raise UsageError(f"{error.message} Tables: {known}.") from error


def _metadata_locations(settings: Settings) -> dict[tuple[str, str], str]:
    import psycopg

    try:
        with psycopg.connect(settings.postgres_url("reader", "lake"), connect_timeout=3) as link:
            rows = link.execute(
                "select table_namespace, table_name, metadata_location from public.iceberg_tables"
                " where catalog_name = 'lake' and metadata_location is not null"
            ).fetchall()
    except psycopg.errors.UndefinedTable:
        return {}
    except psycopg.OperationalError as error:
        raise NotRunning("The catalog in Postgres does not answer. Start the stack with: sluice up") from error
    return {(schema, table): location for schema, table, location in rows}


def _named_tables(query: str, known: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The known tables that a statement's text names. Only these become views: each costs a read of its metadata.

    By text, because DuckDB's own `get_table_names` binds the statement, and so refuses joins of tables not there yet.
    """
    text = query.replace('"', "").casefold()
    return {
        (schema, table)
        for schema, table in known
        if re.search(rf"\b{re.escape(schema)}\s*\.\s*{re.escape(table)}\b", text)
    }
