"""What became of dead letters."""

from alembic import op

revision = "0003"
down_revision = "0002"

# A dead letter without a row is open. Every letter below first_open has a row; reading starts there, so that listing
# costs what there is to do and not what was done. One row, moved with each letter that is settled.
DEAD_LETTERS = """
CREATE TABLE ledger.dead_letters (
    letter_id bigint PRIMARY KEY CHECK (letter_id >= 0),
    state     text NOT NULL CHECK (state IN ('redriven', 'discarded')),
    at        timestamptz(3) NOT NULL DEFAULT now()
);
COMMENT ON COLUMN ledger.dead_letters.letter_id IS 'its offset in lake.dlq';
CREATE TABLE ledger.first_open_letter (
    letter_id bigint NOT NULL,
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
INSERT INTO ledger.first_open_letter (letter_id) VALUES (0);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(DEAD_LETTERS)
