"""Where reconcile goes on with its listing of bronze."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table, and the index that finds a batch's commits."""
    op.execute("CREATE INDEX commits_by_batch ON ledger.commits (batch_id)")
    op.execute("CREATE TABLE ledger.reconcile (bucket text PRIMARY KEY, after_key text NOT NULL COLLATE \"C\")")
