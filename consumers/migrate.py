"""Brings the ledger's schema to its newest version. Safe to repeat; several at once wait for each other."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from contracts.errors import ServiceUnavailable
from contracts.settings import load_settings

_LOCK = 0x51_01CE


def migrate(url: str) -> None:
    """Run every migration that the database does not have yet.

    Args:
        url: `postgresql://…` of the ledger's owner; may create the schema `ledger` if it is not there.

    Raises:
        ServiceUnavailable: the database cannot be reached.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    # A creator, not the URL: SQLAlchemy would read the address in its own way, and show it in errors.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            if connection.execute(text("SELECT to_regnamespace('ledger')")).scalar() is None:
                connection.execute(text("CREATE SCHEMA ledger"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        reason = type(error.orig).__name__
        raise ServiceUnavailable(f"The ledger's database does not answer ({reason}); is Postgres up?") from error


def main() -> None:
    """Migrate the ledger of the stack that the environment names."""
    migrate(load_settings().postgres_url("ledger", "lake"))


if __name__ == "__main__":
    main()
