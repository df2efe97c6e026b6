"""File columns that Spark cannot read: told per file and layer."""

from alembic import op

revision = "0008"
down_revision = "0007"

# A constant default: Postgres adds it without rewriting a row. Results of before tell nothing, which is true of them.
COLUMN = """
ALTER TABLE ledger.{table} ADD COLUMN left_out jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN ledger.{table}.left_out IS 'file columns that neither the contract names nor Spark can read';
"""


def upgrade() -> None:
    """Add the column, to what a file's last result overwrites and to what stays of every commit."""
    for table in ("results", "commit_sources"):
        op.execute(COLUMN.format(table=table))
