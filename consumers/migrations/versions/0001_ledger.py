"""The ledger: files, their history, results, commits and batches."""

from alembic import op

revision = "0001"
down_revision = None

# Sequencers are stored padded to 32 hexadecimal digits, so that text order in "C" is their order.
FILES = """
CREATE TABLE ledger.files (
    bucket     text NOT NULL,
    key        text NOT NULL COLLATE "C",
    etag       text NOT NULL,
    dataset    text,
    state      text NOT NULL CHECK (state IN ('received', 'running', 'done', 'quarantined', 'ignored')),
    reason     text,
    detail     text,
    size       bigint NOT NULL CHECK (size >= 0),
    sequencer  text NOT NULL COLLATE "C" CHECK (sequencer ~ '^[0-9A-F]{32}$'),
    put_at     timestamptz(3),
    created_at timestamptz(3) NOT NULL DEFAULT now(),
    updated_at timestamptz(3) NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, key, etag),
    CONSTRAINT reason_given CHECK ((reason IS NOT NULL) = (state IN ('quarantined', 'ignored')))
);
CREATE INDEX files_newest ON ledger.files (bucket, key, sequencer DESC);
CREATE INDEX files_by_time ON ledger.files (updated_at DESC);
CREATE INDEX files_by_state ON ledger.files (state, updated_at DESC);
CREATE INDEX files_by_dataset ON ledger.files (dataset, updated_at DESC);
"""

# A marker tells what is in the table, so it overrules "superseded" and "the run failed".
TRANSITIONS = """
CREATE FUNCTION ledger.refuse_illegal_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'received'
       OR OLD.state = 'received'
       OR OLD.state = 'running'
       OR (OLD.state IN ('quarantined', 'ignored') AND OLD.reason IN ('run_failed', 'superseded')
           AND NEW.state IN ('running', 'done'))
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a file cannot go from % to %', OLD.state, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_transition';
END
$$;
CREATE TRIGGER legal_transition BEFORE UPDATE OF state ON ledger.files FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION ledger.refuse_illegal_transition();
"""

HISTORY = """
CREATE TABLE ledger.history (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket  text NOT NULL,
    key     text NOT NULL COLLATE "C",
    etag    text NOT NULL,
    at      timestamptz(3) NOT NULL,
    hop     text NOT NULL,
    state   text,
    layer   text,
    attempt integer,
    run_id  text,
    reason  text,
    detail  text
);
CREATE INDEX history_of_file ON ledger.history (bucket, key, etag);
CREATE FUNCTION ledger.refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the history is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'append_only';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_rewriting();
"""

RESULTS = """
CREATE TABLE ledger.results (
    bucket        text NOT NULL,
    key           text NOT NULL COLLATE "C",
    etag          text NOT NULL,
    layer         text NOT NULL CHECK (layer IN ('silver', 'gold')),
    table_name    text NOT NULL,
    dag_id        text,
    run_id        text,
    batch_id      text NOT NULL,
    snapshot_id   bigint,
    rows_in       bigint NOT NULL,
    rows_accepted bigint NOT NULL,
    rows_rejected bigint NOT NULL,
    at            timestamptz(3) NOT NULL,
    PRIMARY KEY (bucket, key, etag, layer),
    CONSTRAINT rows_accounted CHECK (rows_in = rows_accepted + rows_rejected)
);
CREATE TABLE ledger.commits (
    table_name   text NOT NULL,
    batch_id     text NOT NULL,
    snapshot_id  bigint NOT NULL,
    committed_at timestamptz(3) NOT NULL,
    recorded_at  timestamptz(3) NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, batch_id, snapshot_id)
);
COMMENT ON COLUMN ledger.commits.snapshot_id IS '0 when every file was refused and nothing was committed';
"""

BATCHES = """
CREATE TABLE ledger.batches (
    batch_id       text PRIMARY KEY,
    layer          text NOT NULL CHECK (layer IN ('silver', 'gold')),
    dataset        text NOT NULL,
    created_at     timestamptz(3) NOT NULL DEFAULT now(),
    handed_over_at timestamptz(3)
);
COMMENT ON COLUMN ledger.batches.handed_over_at IS 'its DAG run exists; a batch without one may be claimed anew';
CREATE TABLE ledger.batch_items (
    batch_id text NOT NULL REFERENCES ledger.batches,
    position integer NOT NULL,
    layer    text NOT NULL,
    bucket   text NOT NULL,
    key      text NOT NULL COLLATE "C",
    etag     text NOT NULL,
    version  text NOT NULL,
    size     bigint NOT NULL,
    rows     bigint,
    PRIMARY KEY (batch_id, position)
);
CREATE INDEX batch_items_claimed ON ledger.batch_items (layer, bucket, key, etag, version);
"""


def upgrade() -> None:
    """Make the tables."""
    for statements in (FILES, TRANSITIONS, HISTORY, RESULTS, BATCHES):
        op.execute(statements)
