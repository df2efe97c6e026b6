"""The order of commits, so that the files in a snapshot can be told."""

from alembic import op

revision = "0006"
down_revision = "0005"

# Clocks may tie or step back; Iceberg counts the commits to a table from 1. Commits of before have 0, and so stand
# first, by their time. No index: Postgres takes none for a question about most of a table's files; half a million
# rows are read in 0.3 s.
COMMIT_SOURCES = """
ALTER TABLE ledger.commit_sources ADD COLUMN sequence_number bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ledger.commit_sources.sequence_number IS 'of the snapshot in its table; 0 where no marker told it';
"""


def upgrade() -> None:
    """Add the column."""
    op.execute(COMMIT_SOURCES)
