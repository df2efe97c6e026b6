"""Why rows were rejected, which ones only made a warning, and the columns kept aside: told per file and layer."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Constant defaults: Postgres adds them without rewriting a row. Results of before tell nothing, which is true of them.
COLUMNS = """
ALTER TABLE ledger.{table}
    ADD COLUMN reasons jsonb NOT NULL DEFAULT '{{}}',
    ADD COLUMN warnings jsonb NOT NULL DEFAULT '{{}}',
    ADD COLUMN rescued jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN ledger.{table}.reasons IS 'rejected rows by reason code; a row counts with each of its reasons';
COMMENT ON COLUMN ledger.{table}.warnings IS 'accepted rows that break a rule which only warns, by its code';
COMMENT ON COLUMN ledger.{table}.rescued IS 'file columns that the contract does not name';
"""


def upgrade() -> None:
    """Add the columns, to what a file's last result overwrites and to what stays of every commit."""
    for table in ("results", "commit_sources"):
        op.execute(COLUMNS.format(table=table))
