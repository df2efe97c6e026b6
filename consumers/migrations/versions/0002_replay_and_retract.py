"""Replay and retraction: which work a file's state is about, deletions, and what each commit wrote."""

from alembic import op

revision = "0002"
down_revision = "0001"

FILES = """
ALTER TABLE ledger.files
    ADD COLUMN version text NOT NULL DEFAULT '',
    ADD COLUMN depth text NOT NULL DEFAULT 'gold' CHECK (depth IN ('silver', 'gold')),
    ADD COLUMN removed_at timestamptz(3);
COMMENT ON COLUMN ledger.files.version IS 'of the work handed on last; what an older one did changes no state';
COMMENT ON COLUMN ledger.files.depth IS 'the last layer that this work is to reach';
COMMENT ON COLUMN ledger.files.removed_at IS 'when the object was deleted; null while it is there';
"""

BATCH_ITEMS = """
ALTER TABLE ledger.batch_items
    ADD COLUMN cause text NOT NULL DEFAULT '',
    ADD COLUMN depth text NOT NULL DEFAULT 'gold',
    ADD COLUMN deleted boolean NOT NULL DEFAULT false;
"""

# What a result of a file overwrites stays here: a snapshot's files can be told for as long as the ledger lives.
COMMIT_SOURCES = """
CREATE TABLE ledger.commit_sources (
    snapshot_id   bigint NOT NULL,
    batch_id      text NOT NULL,
    table_name    text NOT NULL,
    run_id        text,
    committed_at  timestamptz(3) NOT NULL,
    bucket        text NOT NULL,
    key           text NOT NULL COLLATE "C",
    etag          text NOT NULL,
    rows_in       bigint NOT NULL,
    rows_accepted bigint NOT NULL,
    rows_rejected bigint NOT NULL,
    PRIMARY KEY (snapshot_id, batch_id, bucket, key, etag)
);
INSERT INTO ledger.commit_sources
SELECT snapshot_id, batch_id, table_name, run_id, at, bucket, key, etag, rows_in, rows_accepted, rows_rejected
FROM ledger.results WHERE snapshot_id IS NOT NULL ON CONFLICT DO NOTHING;
"""


def upgrade() -> None:
    """Add the columns and the table."""
    for statements in (FILES, BATCH_ITEMS, COMMIT_SOURCES):
        op.execute(statements)
