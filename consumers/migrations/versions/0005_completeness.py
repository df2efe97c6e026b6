"""Sets of files: what each manifest lists, and which work was let go to gold."""

from alembic import op

revision = "0005"
down_revision = "0004"

MANIFESTS = """
CREATE TABLE ledger.manifests (
    bucket    text NOT NULL,
    folder    text NOT NULL COLLATE "C",
    etag      text NOT NULL,
    sequencer text NOT NULL COLLATE "C",
    at        timestamptz(3) NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, folder)
);
COMMENT ON COLUMN ledger.manifests.folder IS 'of the set, with the slash at its end';
CREATE TABLE ledger.manifest_files (
    bucket text NOT NULL,
    folder text NOT NULL COLLATE "C",
    key    text NOT NULL COLLATE "C",
    rows   bigint CHECK (rows >= 0),
    PRIMARY KEY (bucket, folder, key),
    FOREIGN KEY (bucket, folder) REFERENCES ledger.manifests ON DELETE CASCADE
);
COMMENT ON COLUMN ledger.manifest_files.rows IS 'that the file is to have; null: any number';
"""

FILES = """
ALTER TABLE ledger.files ADD COLUMN released text NOT NULL DEFAULT '';
COMMENT ON COLUMN ledger.files.released IS 'version of the work that need not wait for its set any more';
"""


def upgrade() -> None:
    """Make the tables and the column."""
    for statements in (MANIFESTS, FILES):
        op.execute(statements)
