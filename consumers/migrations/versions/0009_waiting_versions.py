"""Versions of an object that wait are found without reading those that are done, of which there may be any number."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the index; `consumers.ledger` asks by the same words, which Postgres compares."""
    op.execute(
        "CREATE INDEX files_waiting ON ledger.files (bucket, key, sequencer)"
        " WHERE (state IN ('received', 'running')) IS TRUE"
    )
