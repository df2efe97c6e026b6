"""Edge: the ledger in Postgres, one row per version (etag) of a bronze object. The only SQL on it.

Every method is one transaction and may be repeated. All of them raise:

    ServiceUnavailable: Postgres does not answer, after a few tries.
    IllegalTransition: a change of state that no file makes.
    AccountingMismatch: rows in are not rows accepted + rejected (I3).
    BadWork: a value that Postgres cannot hold, or a batch that nobody registered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from consumers.completeness import Change, Due, KnownSet, Listed, Outcome, Place
from consumers.dead_letters import LetterState, Settled
from consumers.replay import Refresh
from consumers.routing import Work as SilverWork
from consumers.rows import Changes, FileRow, HistoryRow, KnownFiles
from contracts.dataset import BRONZE
from contracts.errors import AccountingMismatch, BadWork, IllegalTransition, ServiceUnavailable, SluiceError
from contracts.manifest import Manifest
from contracts.markers import CommitMarker, SourceResult
from contracts.settings import Settings
from contracts.states import FileState, Hop, Layer, Reason
from contracts.story import CommitSource, FileStory, LayerResult, Passage
from contracts.work import Batch, WorkItem

T = TypeVar("T")
Name = tuple[str, str, str]
_NAME = ("bucket", "key", "etag")
Fate = tuple[str, str, str, str, str, str | None, str | None]
"""A version, the work that it is about, and the state, reason and detail that it gets."""
Work = Callable[[Connection[DictRow]], T]

CONNECT_SECONDS = 4.0
TRIES = 3

# One JSON text for the rows of a poll of events: psycopg makes arrays element by element, in twice the router's time.
# The limit is the number of rows: Postgres would take one for a hundred, and scan up to 15,000 rows to find it.
_KNOWN = """
WITH asked AS (SELECT * FROM json_to_recordset(%s) AS a (bucket text, key text, etag text) LIMIT %s)
SELECT f.* FROM asked JOIN ledger.files f USING (bucket, key, etag)
UNION
SELECT f.* FROM (SELECT DISTINCT bucket, key FROM asked) a CROSS JOIN LATERAL (
    SELECT * FROM ledger.files n WHERE n.bucket = a.bucket AND n.key = a.key
    ORDER BY n.sequencer DESC LIMIT 1) f
"""
_ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
"""A story takes several statements; state, history and layers must be of one moment."""
_REOPEN = """
UPDATE ledger.files f SET state = 'received', reason = NULL, detail = NULL
FROM unnest(%s::text[], %s::text[], %s::text[]) AS a (bucket, key, etag)
WHERE (f.bucket, f.key, f.etag) = (a.bucket, a.key, a.etag)
"""
_FILES = """
INSERT INTO ledger.files AS f (bucket, key, etag, dataset, state, reason, detail, size, sequencer, put_at,
                               version, depth, removed_at)
SELECT * FROM json_to_recordset(%s) AS a (
    bucket text, key text, etag text, dataset text, state text, reason text, detail text, size bigint, sequencer text,
    put_at timestamptz, version text, depth text, removed_at timestamptz)
ON CONFLICT (bucket, key, etag) DO UPDATE SET
    dataset = excluded.dataset, state = excluded.state, reason = excluded.reason, detail = excluded.detail,
    size = excluded.size, sequencer = excluded.sequencer, put_at = excluded.put_at, version = excluded.version,
    depth = excluded.depth, removed_at = excluded.removed_at, updated_at = now()
"""
_SEEN_AGAIN = """
UPDATE ledger.files f SET sequencer = a.sequencer, removed_at = NULL
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS a (bucket, key, etag, sequencer)
WHERE (f.bucket, f.key, f.etag) = (a.bucket, a.key, a.etag)
"""
_REMOVED = """
UPDATE ledger.files f SET sequencer = a.sequencer, removed_at = a.removed_at, updated_at = now()
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[])
    AS a (bucket, key, etag, sequencer, removed_at)
WHERE (f.bucket, f.key, f.etag) = (a.bucket, a.key, a.etag)
"""
_REPLAY = """
UPDATE ledger.files f SET state = 'received', reason = NULL, detail = NULL, dataset = a.dataset, version = a.version,
       depth = a.depth, updated_at = now()
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
    AS a (bucket, key, etag, dataset, version, depth)
WHERE (f.bucket, f.key, f.etag) = (a.bucket, a.key, a.etag) AND f.removed_at IS NULL
  AND NOT EXISTS (SELECT FROM ledger.files n
                  WHERE n.bucket = f.bucket AND n.key = f.key AND n.sequencer > f.sequencer)
RETURNING f.bucket, f.key, f.etag
"""
_NEWEST = """
SELECT f.* FROM ledger.files f
WHERE {chosen} AND NOT EXISTS (SELECT FROM ledger.files n
                               WHERE n.bucket = f.bucket AND n.key = f.key AND n.sequencer > f.sequencer)
ORDER BY f.bucket, f.key
"""
_CHOSEN = {
    "keys": "(f.bucket, f.key) IN (SELECT * FROM unnest(%(buckets)s::text[], %(keys)s::text[]))",
    "dataset": "f.dataset = %(dataset)s AND (%(since)s::timestamptz IS NULL OR f.put_at >= %(since)s)"
    " AND (%(until)s::timestamptz IS NULL OR f.put_at < %(until)s)",
    "batch": "(f.bucket, f.key, f.etag) IN (SELECT bucket, key, etag FROM ledger.batch_items"
    " WHERE batch_id = %(batch)s)",
}
# One object after the other, by its name: Postgres cannot know how many files wait, and would look through all of them
# for each event. IS TRUE keeps it from the index of states; the first one is that of the index `files_waiting`, without
# which it would read all versions that an object ever had.
_SUPERSEDE = """
WITH waiting AS (
    SELECT n.*, a.etag AS newer
    FROM {newer} a
    CROSS JOIN LATERAL (
        SELECT bucket, key, etag FROM ledger.files o
        WHERE o.bucket = a.bucket AND o.key = a.key AND o.sequencer < a.sequencer AND o.etag <> a.etag
          AND (o.state IN ('received', 'running')) IS TRUE AND (o.state = '{waiting}') IS TRUE FOR UPDATE) n),
old AS (
    UPDATE ledger.files f SET state = 'ignored', reason = 'superseded', updated_at = now(),
           detail = 'Version ' || w.newer || ' was written later.'
    FROM waiting w WHERE (f.bucket, f.key, f.etag) = (w.bucket, w.key, w.etag)
    RETURNING f.bucket, f.key, f.etag, f.detail)
INSERT INTO ledger.history (bucket, key, etag, at, hop, state, reason, detail)
SELECT bucket, key, etag, now(), '{hop}', 'ignored', 'superseded', detail FROM old
"""
_SUPERSEDE_RECEIVED = _SUPERSEDE.format(
    newer="(SELECT * FROM json_to_recordset(%s) AS j (bucket text, key text, etag text, sequencer text) LIMIT %s)",
    waiting=FileState.RECEIVED,
    hop=Hop.ROUTED,
)
# Silver holds the version that gold takes, so no longer those that were written before it.
_SUPERSEDE_RUNNING = _SUPERSEDE.format(
    newer="(SELECT f.* FROM unnest(%s::text[], %s::text[], %s::text[]) AS j (bucket, key, etag)"
    " CROSS JOIN LATERAL (SELECT * FROM ledger.files c"
    " WHERE (c.bucket, c.key, c.etag) = (j.bucket, j.key, j.etag) OFFSET 0) f)",
    waiting=FileState.RUNNING,
    hop=Hop.RECORDED,
)
# COPY: three rows an event are most of what the router writes, and arrays of them cost three times the time. The
# columns are the fields of a HistoryRow.
_HISTORY = """
COPY ledger.history (bucket, key, etag, at, hop, state, layer, attempt, run_id, reason, detail) FROM STDIN
"""
_UNCLAIMED = """
SELECT a.position FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
    WITH ORDINALITY AS a (bucket, key, etag, version, position)
WHERE NOT EXISTS (
    SELECT FROM ledger.batch_items i JOIN ledger.batches b USING (batch_id)
    WHERE (i.layer, i.bucket, i.key, i.etag, i.version) = (%s, a.bucket, a.key, a.etag, a.version)
      AND b.dataset = %s AND b.handed_over_at IS NOT NULL)
ORDER BY a.position
"""
_BATCH_ITEMS = """
INSERT INTO ledger.batch_items
    (batch_id, position, layer, bucket, key, etag, version, size, rows, cause, depth, deleted)
SELECT %s, a.position, %s, a.bucket, a.key, a.etag, a.version, a.size, a.rows, a.cause, a.depth, a.deleted
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[],
            %s::boolean[])
    WITH ORDINALITY AS a (bucket, key, etag, version, size, rows, cause, depth, deleted, position)
"""
# Files that ended are left alone, but a marker overrules "superseded" and "the run failed". Work that is older than
# what was handed on last (the file was replayed, retracted, or put again since) changes nothing either.
_MOVE = """
UPDATE ledger.files f SET state = a.state, reason = a.reason, detail = a.detail, updated_at = now()
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
    AS a (bucket, key, etag, cause, state, reason, detail)
WHERE (f.bucket, f.key, f.etag) = (a.bucket, a.key, a.etag) AND (a.cause = '' OR f.version IN ('', a.cause))
  AND (f.state IN ('received', 'running')
       OR (a.state IN ('running', 'done') AND f.reason IN ('run_failed', 'superseded') AND %s))
"""
_UNKNOWN_FILES = """
INSERT INTO ledger.files (bucket, key, etag, dataset, state, size, sequencer)
SELECT a.bucket, a.key, a.etag, %s, 'received', a.size, repeat('0', 32)
FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS a (bucket, key, etag, size)
ON CONFLICT DO NOTHING
"""
_RESULTS = """
INSERT INTO ledger.results AS r (layer, table_name, dag_id, run_id, batch_id, snapshot_id, at,
                                 bucket, key, etag, rows_in, rows_accepted, rows_rejected,
                                 reasons, warnings, rescued, left_out)
SELECT %s, %s, %s, %s, %s, %s, %s, a.* FROM unnest(%s::text[], %s::text[], %s::text[],
       %s::bigint[], %s::bigint[], %s::bigint[], %s::jsonb[], %s::jsonb[], %s::jsonb[], %s::jsonb[]) AS a
ON CONFLICT (bucket, key, etag, layer) DO UPDATE SET
    table_name = excluded.table_name, dag_id = excluded.dag_id, run_id = excluded.run_id,
    batch_id = excluded.batch_id, snapshot_id = excluded.snapshot_id, at = excluded.at, rows_in = excluded.rows_in,
    rows_accepted = excluded.rows_accepted, rows_rejected = excluded.rows_rejected, reasons = excluded.reasons,
    warnings = excluded.warnings, rescued = excluded.rescued, left_out = excluded.left_out
WHERE r.at <= excluded.at
"""
_BETWEEN = """
SELECT DISTINCT ON (key) * FROM ledger.files
WHERE bucket = %(bucket)s AND key > %(after)s AND (%(until)s::text IS NULL OR key <= %(until)s)
ORDER BY key, sequencer DESC
"""
_GO_ON = """
INSERT INTO ledger.reconcile VALUES (%s, %s) ON CONFLICT (bucket) DO UPDATE SET after_key = excluded.after_key
"""
# A deletion's version is the sequencer of its event, which is then also the file's. A refresh begins in gold.
_SILVER_NOT_TAKEN = """
SELECT f.dataset, f.bucket, f.key, f.etag, f.size, f.version, NULL AS rows, f.version AS cause, f.depth,
       f.removed_at IS NOT NULL AND lpad(f.version, 32, '0') = f.sequencer AS deleted
FROM ledger.files f
WHERE f.state IN ('received', 'running') AND f.updated_at < %(before)s AND f.version <> '' AND f.dataset IS NOT NULL
  AND NOT starts_with(f.version, 'refresh-')
  AND NOT EXISTS (SELECT FROM ledger.batch_items t JOIN ledger.batches b USING (batch_id)
          WHERE t.layer = 'silver' AND (t.bucket, t.key, t.etag, t.cause) = (f.bucket, f.key, f.etag, f.version)
            AND b.handed_over_at IS NOT NULL)
ORDER BY f.updated_at LIMIT %(limit)s
"""
_GOLD_DUE = """
SELECT f.dataset, f.bucket, f.key, f.etag, f.size, r.rows_accepted AS rows, f.version AS cause, f.depth,
       CASE WHEN i.batch_id IS NULL THEN f.version ELSE i.snapshot_id::text END AS version,
       coalesce(i.deleted, false) AS deleted, f.detail, r.at AS since, f.released = f.version AS released,
       NOT EXISTS (SELECT FROM ledger.files n
                   WHERE n.bucket = f.bucket AND n.key = f.key AND n.sequencer > f.sequencer) AS newest
FROM ledger.files f
JOIN ledger.results r ON (r.bucket, r.key, r.etag, r.layer) = (f.bucket, f.key, f.etag, 'silver')
LEFT JOIN LATERAL (SELECT * FROM ledger.batch_items t JOIN ledger.commits c USING (batch_id)
    WHERE t.layer = 'silver' AND (t.bucket, t.key, t.etag, t.cause) = (f.bucket, f.key, f.etag, f.version)
    ORDER BY c.recorded_at DESC LIMIT 1) i ON true
WHERE f.state = 'running' AND f.depth = 'gold' AND f.version <> '' AND {chosen}
  AND (i.batch_id IS NOT NULL OR starts_with(f.version, 'refresh-'))
  AND NOT EXISTS (SELECT FROM ledger.batch_items t JOIN ledger.batches b USING (batch_id)
          WHERE t.layer = 'gold' AND (t.bucket, t.key, t.etag, t.cause) = (f.bucket, f.key, f.etag, f.version)
            AND b.handed_over_at IS NOT NULL)
"""
"""Files that are in silver for their current work, and that no gold batch holds. A refresh has no part in silver, so
its columns of `i` are null. The result may be that of older work on the same content that ended later."""
_GOLD_NOT_TAKEN = (
    _GOLD_DUE.format(
        chosen="f.updated_at < %(before)s"
        " AND (i.batch_id IS NULL OR i.deleted OR f.released = f.version OR f.dataset <> ALL (%(in_sets)s::text[]))"
    )
    + "ORDER BY f.updated_at LIMIT %(limit)s"
)
# The folder ends with a slash, and '0' is what comes after one in the order of keys. A refresh, whose `i.deleted` is
# null, waits for no set.
_DUE_OF_SET = _GOLD_DUE.format(
    chosen="f.bucket = %(bucket)s AND f.key > %(folder)s AND f.key < rtrim(%(folder)s, '/') || '0'"
    " AND strpos(substr(f.key, length(%(folder)s) + 1), '/') = 0 AND NOT i.deleted"
)
_HELD_SETS = f"""
SELECT DISTINCT bucket, substring(key FROM '^.*/') AS folder FROM (
    {_GOLD_DUE.format(chosen="f.dataset = ANY (%(datasets)s::text[]) AND f.released <> f.version AND NOT i.deleted")}
) held ORDER BY 1, 2 LIMIT %(limit)s
"""  # noqa: S608 - parts of our own
_LISTED = """
SELECT m.key, m.rows, n.state, n.reason, n.removed_at IS NOT NULL AS removed,
       CASE WHEN n.state = 'done' OR n.version = '' OR starts_with(n.version, 'refresh-') OR EXISTS (
           SELECT FROM ledger.batch_items i
           WHERE i.layer = 'silver' AND (i.bucket, i.key, i.etag, i.cause) = (n.bucket, n.key, n.etag, n.version)
             AND i.batch_id = r.batch_id) THEN r.rows_in END AS rows_in
FROM ledger.manifest_files m
LEFT JOIN LATERAL (SELECT * FROM ledger.files f WHERE f.bucket = m.bucket AND f.key = m.key
                   ORDER BY f.sequencer DESC LIMIT 1) n ON true
LEFT JOIN ledger.results r ON (r.bucket, r.key, r.etag, r.layer) = (n.bucket, n.key, n.etag, 'silver')
WHERE m.bucket = %(bucket)s AND m.folder = %(folder)s ORDER BY m.key
"""
# Whoever looks at a set last sees all that was recorded before, and two that look at once do not undo each other.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%(bucket)s || '/' || %(folder)s, 0))"
# The time of the last change stays while a file waits on: it is indexed, and each file that comes changes what all
# the others wait for.
_SETTLE = """
UPDATE ledger.files f SET state = a.state, reason = a.reason, detail = a.detail,
       released = CASE WHEN a.released THEN f.version ELSE f.released END,
       updated_at = CASE WHEN a.released OR a.state <> 'running' THEN now() ELSE f.updated_at END
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::boolean[])
    AS a (bucket, key, etag, version, state, reason, detail, released)
WHERE (f.bucket, f.key, f.etag, f.version) = (a.bucket, a.key, a.etag, a.version) AND f.state = 'running'
RETURNING f.bucket, f.key, f.etag
"""
_NOTE = """
UPDATE ledger.files f SET detail = %(note)s
WHERE f.bucket = %(bucket)s AND f.key = %(manifest)s AND f.state = 'done' AND f.detail IS DISTINCT FROM %(note)s
  AND NOT EXISTS (SELECT FROM ledger.files n
                  WHERE n.bucket = f.bucket AND n.key = f.key AND n.sequencer > f.sequencer)
"""
_NEW_MANIFEST = """
INSERT INTO ledger.manifests AS m (bucket, folder, etag, sequencer)
SELECT f.bucket, %s, f.etag, f.sequencer FROM ledger.files f WHERE (f.bucket, f.key, f.etag) = (%s, %s, %s)
ON CONFLICT (bucket, folder) DO UPDATE SET etag = excluded.etag, sequencer = excluded.sequencer, at = now()
WHERE m.sequencer <= excluded.sequencer
"""
_MANIFEST_FILES = """
INSERT INTO ledger.manifest_files (bucket, folder, key, rows)
SELECT %s, %s, a.* FROM unnest(%s::text[], %s::bigint[]) AS a
"""
_END = """
UPDATE ledger.files SET state = %s, reason = %s, detail = %s, updated_at = now()
WHERE (bucket, key, etag) = (%s, %s, %s) AND state = 'received'
"""
_WITHOUT_RESULT = """
SELECT b.batch_id FROM ledger.files f
JOIN ledger.batch_items i ON i.layer IN ('silver', 'gold')
  AND (i.bucket, i.key, i.etag, i.cause) = (f.bucket, f.key, f.etag, f.version)
JOIN ledger.batches b ON b.batch_id = i.batch_id
WHERE f.state IN ('received', 'running') AND f.updated_at < %(before)s AND f.version <> ''
  AND b.handed_over_at < %(before)s
  AND NOT EXISTS (SELECT FROM ledger.commits c WHERE c.batch_id = b.batch_id)
GROUP BY b.batch_id ORDER BY min(b.handed_over_at) LIMIT %(limit)s
"""
_UNFINISHED_SINCE = """
SELECT min(b.created_at) AS since FROM ledger.files f
JOIN ledger.batch_items i ON i.layer IN ('silver', 'gold')
  AND (i.bucket, i.key, i.etag, i.cause) = (f.bucket, f.key, f.etag, f.version)
JOIN ledger.batches b ON b.batch_id = i.batch_id
WHERE f.state IN ('received', 'running') AND f.version <> ''
  AND NOT EXISTS (SELECT FROM ledger.commits c WHERE c.batch_id = b.batch_id)
"""
_WITHOUT_MARKER = """
SELECT batch_id FROM ledger.batches b
WHERE batch_id = ANY (%(ids)s::text[]) AND handed_over_at < %(before)s
  AND NOT EXISTS (SELECT FROM ledger.commits c WHERE c.batch_id = b.batch_id AND c.snapshot_id <> 0)
ORDER BY handed_over_at
"""
_WAITING = """
SELECT f.dataset, CASE WHEN in_silver THEN 'gold' ELSE 'silver' END AS layer, count(*) AS files
FROM ledger.files f CROSS JOIN LATERAL (SELECT starts_with(f.version, 'refresh-') OR EXISTS (
    SELECT FROM ledger.results r JOIN ledger.batch_items i
      ON (i.layer, i.bucket, i.key, i.etag, i.batch_id) = (r.layer, r.bucket, r.key, r.etag, r.batch_id)
    WHERE (r.bucket, r.key, r.etag, r.layer) = (f.bucket, f.key, f.etag, 'silver') AND i.cause = f.version
    )) AS way (in_silver)
WHERE f.state IN ('received', 'running') AND f.dataset IS NOT NULL GROUP BY 1, 2
"""
_CONTENT_BEFORE = """
SELECT DISTINCT ON (s.bucket, s.key) s.bucket, s.key, s.etag, s.rows_accepted
FROM ledger.commits c JOIN ledger.commit_sources s USING (snapshot_id, batch_id)
WHERE c.table_name = %(table)s AND s.sequence_number < %(sequence)s
  AND (s.bucket, s.key) IN (SELECT * FROM unnest(%(buckets)s::text[], %(keys)s::text[]))
ORDER BY s.bucket, s.key, s.sequence_number DESC
"""
# A stage's job starts after its batch was claimed, and the reference's commit came before its marker was recorded: a
# batch that was claimed later than that, by the one clock of the database, has read it. Jobs by hand have no batch.
_OUTDATED = """
SELECT f.* FROM ledger.files f
CROSS JOIN (SELECT min(recorded_at) AS at FROM ledger.commits
            WHERE (table_name, batch_id, snapshot_id) = (%(table)s, %(batch)s, %(snapshot)s)) changed
CROSS JOIN LATERAL (SELECT max(b.created_at) AS claimed_at
          FROM ledger.batch_items t JOIN ledger.batches b USING (batch_id)
          WHERE t.layer = 'gold' AND (t.bucket, t.key, t.etag, t.cause) = (f.bucket, f.key, f.etag, f.version)) g
LEFT JOIN ledger.results r ON (r.bucket, r.key, r.etag, r.layer) = (f.bucket, f.key, f.etag, 'gold')
WHERE f.bucket = %(bucket)s AND f.key > %(after)s AND f.key < %(dataset)s || '0'
  AND f.dataset = %(dataset)s AND f.depth = 'gold' AND f.state IN ('running', 'done')
  AND (g.claimed_at <= changed.at
       OR g.claimed_at IS NULL AND f.state = 'done' AND r.at <= changed.at
       OR g.claimed_at IS NULL AND f.state = 'running' AND f.version = %(version)s)
  AND NOT EXISTS (SELECT FROM ledger.files n
                  WHERE n.bucket = f.bucket AND n.key = f.key AND n.sequencer > f.sequencer)
ORDER BY f.key LIMIT %(limit)s FOR UPDATE OF f
"""
# By way of `received`, as every way that starts anew; the file is in silver, so it runs.
_REFRESH = tuple(
    f"""
UPDATE ledger.files f SET state = '{state}', reason = NULL, detail = NULL, version = a.version, updated_at = now()
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS a (bucket, key, etag, version)
WHERE (f.bucket, f.key, f.etag) = (a.bucket, a.key, a.etag)
"""  # noqa: S608 - states of our own
    for state in (FileState.RECEIVED, FileState.RUNNING)
)
_COMMIT_SOURCES = """
INSERT INTO ledger.commit_sources
    (snapshot_id, batch_id, table_name, run_id, committed_at, sequence_number,
     bucket, key, etag, rows_in, rows_accepted, rows_rejected, reasons, warnings, rescued, left_out)
SELECT %s, %s, %s, %s, %s, %s, a.* FROM unnest(%s::text[], %s::text[], %s::text[],
       %s::bigint[], %s::bigint[], %s::bigint[], %s::jsonb[], %s::jsonb[], %s::jsonb[], %s::jsonb[]) AS a
ON CONFLICT DO NOTHING
"""
# The sequence number orders a table's commits whatever the clocks say; where no marker told it, it is 0 and time does.
_SOURCES_UP_TO = """
WITH asked AS (SELECT table_name, sequence_number, committed_at FROM ledger.commit_sources
               WHERE snapshot_id = %s LIMIT 1)
SELECT DISTINCT ON (s.bucket, s.key) s.* FROM asked a JOIN ledger.commit_sources s
  ON s.table_name = a.table_name AND (s.sequence_number, s.committed_at) <= (a.sequence_number, a.committed_at)
ORDER BY s.bucket, s.key, s.sequence_number DESC, s.committed_at DESC
"""
_STORIES = """
SELECT * FROM ledger.files
WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(dataset)s::text IS NULL OR dataset = %(dataset)s)
  AND (%(since)s::timestamptz IS NULL OR updated_at >= %(since)s)
ORDER BY updated_at DESC, bucket, key, etag LIMIT %(limit)s
"""
_PASSAGES = """
SELECT h.* FROM unnest(%s::text[], %s::text[], %s::text[]) AS a (bucket, key, etag)
JOIN ledger.history h USING (bucket, key, etag) ORDER BY h.at, h.id
"""
_LAYERS = """
SELECT r.* FROM unnest(%s::text[], %s::text[], %s::text[]) AS a (bucket, key, etag)
JOIN ledger.results r USING (bucket, key, etag) ORDER BY r.layer DESC
"""

# Two at once may leave it behind, never beyond an open letter; the next one to be settled moves it on. Scalar
# subqueries, since Postgres makes joins of EXISTS that read the whole table.
_MOVE_FIRST_OPEN = """
UPDATE ledger.first_open_letter f SET letter_id = (
    SELECT d.letter_id + 1 FROM ledger.dead_letters d
    WHERE d.letter_id >= f.letter_id
      AND (SELECT n.letter_id FROM ledger.dead_letters n WHERE n.letter_id = d.letter_id + 1) IS NULL
    ORDER BY d.letter_id LIMIT 1)
WHERE (SELECT d.letter_id FROM ledger.dead_letters d WHERE d.letter_id = f.letter_id) IS NOT NULL
"""


class Ledger:
    """The ledger of one stack; safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._pool: ConnectionPool[Connection[DictRow]] = ConnectionPool(
            url,
            connection_class=Connection[DictRow],
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": int(CONNECT_SECONDS),
                # A plan is not kept: one made while the ledger was small would go on to scan it when it has grown.
                "prepare_threshold": None,
            },
            min_size=1,
            max_size=4,
            timeout=CONNECT_SECONDS,
            open=False,
        )

    def __enter__(self) -> Ledger:
        self._pool.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def apply(self, names: Iterable[Name], plan: Callable[[KnownFiles], tuple[T, Changes]]) -> T:
        """Read what is known of some versions, let `plan` decide, and store what it decided, all or nothing.

        Args:
            names: (bucket, key, etag) of each version.
            plan: gets those rows and each object's newest; may be called again when the transaction is.

        Returns:
            The first part of what `plan` returned.
        """
        asked = [dict(zip(_NAME, name, strict=True)) for name in names]

        def work(connection: Connection[DictRow]) -> T:
            # What another router changed since these rows were read is not overwritten: the transaction is done anew.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            known = KnownFiles(map(_file_row, connection.execute(_KNOWN, (_json(asked), len(asked))).fetchall()))
            result, changes = plan(known)
            _write(connection, changes)
            return result

        return self._run(work)

    def unclaimed(self, layer: Layer, dataset: str, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Those items, in their order, that are in no batch whose DAG run exists."""
        columns = _columns(((i.bucket, i.key, i.etag, i.version) for i in items), 4)
        rows = self._run(lambda c: c.execute(_UNCLAIMED, [*columns, str(layer), dataset]).fetchall())
        return [items[row["position"] - 1] for row in rows]

    def claim(self, batch: Batch) -> bool:
        """Register a batch; its files are then running. Of those that go to gold, older versions wait no longer.

        Returns:
            False when it is registered already; nothing changes then.
        """

        def work(connection: Connection[DictRow]) -> bool:
            new = connection.execute(
                "INSERT INTO ledger.batches (batch_id, layer, dataset) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (batch.batch_id, str(batch.layer), batch.dataset),
            )
            if new.rowcount == 0:
                return False
            items = _columns(map(_item_values, batch.items), 9)
            connection.execute(_BATCH_ITEMS, [batch.batch_id, str(batch.layer), *items])
            _move(connection, [_fate(item, FileState.RUNNING) for item in batch.items])
            _add_history(connection, _batch_history(batch, Hop.CLAIMED, batch.run_id))
            if batch.layer == Layer.GOLD:
                connection.execute(_SUPERSEDE_RUNNING, _columns(map(_name, batch.items), 3))
            return True

        return self._run(work)

    def handed_over(self, batch_id: str) -> None:
        """The batch's DAG run exists: its items count as claimed from now on."""
        self._run(lambda connection: _hand_over(connection, batch_id))

    def load_batch(self, batch_id: str) -> Batch:
        """The batch of that id.

        Raises:
            BadWork: nobody registered it.
        """

        def work(connection: Connection[DictRow]) -> tuple[DictRow | None, list[DictRow]]:
            head = connection.execute("SELECT * FROM ledger.batches WHERE batch_id = %s", (batch_id,)).fetchone()
            items = connection.execute(
                "SELECT * FROM ledger.batch_items WHERE batch_id = %s ORDER BY position", (batch_id,)
            ).fetchall()
            return head, items

        head, items = self._run(work)
        if head is None:
            raise BadWork(
                f"No batch {batch_id!r} is in the ledger. Stage runs are made by the listener; to run files again: "
                "sluice replay.",
                batch_id=batch_id,
            )
        fields = ("bucket", "key", "etag", "version", "size", "rows", "cause", "depth", "deleted")
        return Batch(
            batch_id=batch_id,
            layer=head["layer"],
            dataset=head["dataset"],
            items=tuple(WorkItem(**{name: item[name] for name in fields}) for item in items),
        )

    def started(self, batch: Batch, dag_id: str, run_id: str, attempt: int) -> None:
        """The stage's job begins to work on the batch."""

        def work(connection: Connection[DictRow]) -> None:
            _hand_over(connection, batch.batch_id)
            _add_history(connection, _batch_history(batch, Hop.STARTED, run_id, attempt=attempt, detail=dag_id or None))

        self._run(work)

    def failed(self, batch: Batch, run_id: str, detail: str) -> None:
        """A run gave up: its files that are not done are quarantined, so that dropping them again starts them anew."""

        def work(connection: Connection[DictRow]) -> None:
            reason = Reason.RUN_FAILED
            _move(connection, [_fate(item, reason.state, reason, detail) for item in batch.items])
            _add_history(connection, _batch_history(batch, Hop.FAILED, run_id, reason=reason, detail=detail))

        self._run(work)

    def record_marker(self, marker: CommitMarker) -> None:
        """Store what a batch did to a layer: rows and snapshot, and the files it refused.

        A file whose last layer is committed is done. A marker that was recorded before changes nothing.
        """
        self._run(lambda connection: _record_marker(connection, marker))

    def record_manifest(self, place: Place, name: Name, manifest: Manifest) -> None:
        """Put a manifest in force unless a later one is, and end its own way as done."""

        def work(connection: Connection[DictRow]) -> None:
            if connection.execute(_NEW_MANIFEST, (place.folder, *name)).rowcount:
                connection.execute("DELETE FROM ledger.manifest_files WHERE (bucket, folder) = (%s, %s)", place)
                files = _columns(((place.folder + file.name, file.rows) for file in manifest.files), 2)
                connection.execute(_MANIFEST_FILES, [*place, *files])
            _end(connection, name, Hop.RECORDED, FileState.DONE, told=f"lists {len(manifest.files):,} files")

        self._run(work)

    def end(self, name: Name, reason: Reason, detail: str) -> None:
        """End the way of a version that is still `received`, and that goes to no stage."""
        hop = Hop.QUARANTINED if reason.state == FileState.QUARANTINED else Hop.RECORDED
        self._run(lambda connection: _end(connection, name, hop, reason.state, reason, detail, detail))

    def weigh(self, place: Place, manifest: str, weigh: Callable[[KnownSet], Outcome], write: bool = True) -> Outcome:
        """Read what is known of a set, let `weigh` decide, and store what it decided, all or nothing.

        Args:
            manifest: key of the set's manifest.
            write: False only looks.

        Returns:
            What `weigh` returned.
        """
        asked = {"bucket": place.bucket, "folder": place.folder, "manifest": manifest}

        def work(connection: Connection[DictRow]) -> Outcome:
            connection.execute(_ONE_AT_A_TIME, asked)
            listed = tuple(map(_listed, connection.execute(_LISTED, asked).fetchall()))
            due = tuple(map(_due, connection.execute(_DUE_OF_SET, asked).fetchall()))
            outcome = weigh(KnownSet(listed or None, due))
            if write:
                _settle(connection, outcome.changes)
                connection.execute(_NOTE, asked | {"note": outcome.note})
            return outcome

        return self._run(work)

    def held_sets(self, datasets: Iterable[str], limit: int) -> list[Place]:
        """Folders of some datasets in which files are due for gold that nobody released, in order."""
        asked = {"datasets": sorted(datasets), "limit": limit}
        return self._run(lambda c: [Place(**row) for row in c.execute(_HELD_SETS, asked).fetchall()])

    def newest_of_keys(self, places: Iterable[tuple[str, str]]) -> list[FileRow]:
        """The newest version of each (bucket, key) that is known, by key."""
        buckets, keys = _columns(places, 2)
        return self._newest("keys", buckets=buckets, keys=keys)

    def newest_of_dataset(self, dataset: str, since: datetime | None, until: datetime | None) -> list[FileRow]:
        """The newest version of each object of a dataset that was put from `since` on and before `until`, by key."""
        return self._newest("dataset", dataset=dataset, since=since, until=until)

    def newest_of_batch(self, batch_id: str) -> list[FileRow]:
        """Those versions of a batch that are still the newest of their objects, by key."""
        return self._newest("batch", batch=batch_id)

    def _newest(self, by: str, **asked: object) -> list[FileRow]:
        query = _NEWEST.format(chosen=_CHOSEN[by])
        return self._run(lambda c: [_file_row(row) for row in c.execute(query, asked).fetchall()])

    def replay(self, works: Sequence[SilverWork]) -> list[SilverWork]:
        """Start some files' way anew.

        Returns:
            The work that did start; other files were put again or deleted meanwhile.
        """
        values = ((*_name(w.item), w.dataset, w.item.version, str(w.item.depth)) for w in works)

        def start(connection: Connection[DictRow]) -> list[SilverWork]:
            started = {
                (row["bucket"], row["key"], row["etag"])
                for row in connection.execute(_REPLAY, _columns(sorted(values), 6)).fetchall()
            }
            chosen = [work for work in works if _name(work.item) in started]
            _add_history(connection, [_replayed(work.item) for work in chosen])
            return chosen

        return self._run(start)

    def content_before(self, marker: CommitMarker) -> dict[tuple[str, str], tuple[str, int]]:
        """(bucket, key) -> etag and accepted rows of the commit before, for a marker's sources that had one."""
        buckets, keys = _columns(((source.bucket, source.key) for source in marker.sources), 2)
        asked = {"table": marker.table, "sequence": marker.sequence_number, "buckets": buckets, "keys": keys}
        rows = self._run(lambda c: c.execute(_CONTENT_BEFORE, asked).fetchall())
        return {(row["bucket"], row["key"]): (row["etag"], row["rows_accepted"]) for row in rows}

    def refresh(
        self,
        marker: CommitMarker,
        dataset: str,
        version: str,
        plan: Callable[[Sequence[FileRow]], Refresh],
        after: str = "",
        limit: int = 1000,
    ) -> Refresh:
        """Take a piece of a dataset's files to gold once more, since a reference that was read has changed.

        Args:
            marker: of the reference's commit; it was recorded.
            version: of the work.
            plan: gets the files of the piece, in order of their keys: those whose gold may have read the reference as
                it was before, and those of this very work that no batch holds.
            after: the key after which the piece begins; empty for the first.

        Returns:
            What `plan` returned.
        """
        asked = {
            "table": marker.table, "batch": marker.batch_id, "snapshot": marker.snapshot_id or 0, "bucket": BRONZE,
            "dataset": dataset, "version": version, "after": after or f"{dataset}/", "limit": limit,
        }  # fmt: skip

        def start(connection: Connection[DictRow]) -> Refresh:
            refresh = plan([_file_row(row) for row in connection.execute(_OUTDATED, asked).fetchall()])
            names = _columns(((*_name(work.item), work.item.version) for work in refresh.start), 4)
            for statement in _REFRESH:
                connection.execute(statement, names)
            _add_history(connection, [_refreshed(work.item, marker.table) for work in refresh.start])
            return refresh

        return self._run(start)

    def newest_between(self, bucket: str, after: str, until: str | None) -> list[FileRow]:
        """The newest version of each object whose key comes after one and not after the other (None: to the end)."""
        asked = {"bucket": bucket, "after": after, "until": until}
        return self._run(lambda c: [_file_row(row) for row in c.execute(_BETWEEN, asked).fetchall()])

    def reconciled_to(self, bucket: str) -> str:
        """The key after which the next listing of a bucket goes on; empty at its beginning."""
        query = "SELECT after_key FROM ledger.reconcile WHERE bucket = %s"
        row = self._run(lambda c: c.execute(query, (bucket,)).fetchone())
        return str(row["after_key"]) if row else ""

    def set_reconciled_to(self, bucket: str, after: str) -> None:
        """Remember where the next listing goes on."""
        self._run(lambda c: c.execute(_GO_ON, (bucket, after)))

    def not_taken(self, layer: Layer, before: datetime, limit: int, in_sets: Iterable[str] = ()) -> list[SilverWork]:
        """Work for a layer that stands still since `before`: no batch that was handed over holds it. Oldest first.

        Args:
            in_sets: datasets whose files wait for their set, which is no standing still.
        """
        query = _SILVER_NOT_TAKEN if layer == Layer.SILVER else _GOLD_NOT_TAKEN
        asked = {"before": before, "limit": limit, "in_sets": sorted(in_sets)}
        return self._run(lambda c: [_work(row) for row in c.execute(query, asked).fetchall()])

    def without_result(self, before: datetime, limit: int) -> list[str]:
        """Ids of batches that were handed over before a moment, have no marker, and whose files stand still since."""
        rows = self._run(lambda c: c.execute(_WITHOUT_RESULT, {"before": before, "limit": limit}).fetchall())
        return [row["batch_id"] for row in rows]

    def unfinished_since(self) -> datetime | None:
        """When the oldest batch was made whose job may be under way, UTC; None when there is none."""
        row = self._run(lambda c: c.execute(_UNFINISHED_SINCE).fetchone())
        return row["since"] if row else None

    def without_marker(self, batch_ids: Iterable[str], before: datetime) -> list[str]:
        """Those batches that were handed over before a moment and of which no marker told of a commit; oldest first.

        One of an attempt that was overtaken may tell that nothing was committed, though another attempt did.
        """
        asked = {"ids": sorted(batch_ids), "before": before}
        return [row["batch_id"] for row in self._run(lambda c: c.execute(_WITHOUT_MARKER, asked).fetchall())]

    def waiting(self) -> dict[tuple[str, Layer], int]:
        """(dataset, layer) -> files that have not come into that layer yet, and into the one before it have."""
        rows = self._run(lambda c: c.execute(_WAITING).fetchall())
        return {(row["dataset"], Layer(row["layer"])): row["files"] for row in rows}

    def commit_sources(self, snapshot_id: int) -> list[CommitSource]:
        """What a snapshot's batches wrote, by key; empty when no marker of that snapshot came."""
        query = "SELECT * FROM ledger.commit_sources WHERE snapshot_id = %s ORDER BY bucket, key, etag"
        return [_commit_source(row) for row in self._run(lambda c: c.execute(query, (snapshot_id,)).fetchall())]

    def files_in(self, snapshot_id: int) -> list[CommitSource] | None:
        """Each file of which a table holds rows at a snapshot, by key, with the commit that wrote them.

        A file whose rows were taken back, or all rejected, has none in the table.

        Returns:
            None when no marker of that snapshot came.
        """
        rows = self._run(lambda c: c.execute(_SOURCES_UP_TO, (snapshot_id,)).fetchall())
        return [_commit_source(row) for row in rows if row["rows_accepted"]] if rows else None

    def story(self, bucket: str, key: str, etag: str | None = None) -> FileStory | None:
        """What became of one version of an object; of its newest when `etag` is None. None: not known."""

        def work(connection: Connection[DictRow]) -> list[FileStory]:
            connection.execute(_ONE_MOMENT)
            return _tell(
                connection,
                connection.execute(
                    "SELECT * FROM ledger.files WHERE bucket = %s AND key = %s AND (%s::text IS NULL OR etag = %s) "
                    "ORDER BY sequencer DESC LIMIT 1",
                    (bucket, key, etag, etag),
                ).fetchall(),
            )

        return next(iter(self._run(work)), None)

    def stories(
        self,
        state: FileState | None = None,
        dataset: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[FileStory]:
        """The versions that changed last, newest change first, at most `limit`."""
        asked = {"state": state and str(state), "dataset": dataset, "since": since, "limit": limit}

        def work(connection: Connection[DictRow]) -> list[FileStory]:
            connection.execute(_ONE_MOMENT)
            return _tell(connection, connection.execute(_STORIES, asked).fetchall())

        return self._run(work)

    def first_open_letter(self) -> int:
        """An id below which every dead letter is settled; 0 while none is."""
        row = self._run(lambda c: c.execute("SELECT letter_id FROM ledger.first_open_letter").fetchone())
        return int(row["letter_id"]) if row else 0

    def settled_letters(self, start: int, end: int) -> dict[int, Settled]:
        """What became of the dead letters with ids from `start` to before `end`; open ones are left out."""
        rows = self._run(
            lambda c: c.execute(
                "SELECT * FROM ledger.dead_letters WHERE letter_id >= %s AND letter_id < %s", (start, end)
            ).fetchall()
        )
        return {row["letter_id"]: Settled(LetterState(row["state"]), row["at"]) for row in rows}

    def settle_letters(self, ids: Iterable[int], state: LetterState) -> None:
        """Close dead letters; what somebody closed before stays as it was closed."""
        ordered = sorted(ids)

        def work(connection: Connection[DictRow]) -> None:
            connection.execute(
                "INSERT INTO ledger.dead_letters (letter_id, state) SELECT a, %s FROM unnest(%s::bigint[]) AS a "
                "ON CONFLICT DO NOTHING",
                (str(state), ordered),
            )
            connection.execute(_MOVE_FIRST_OPEN)

        self._run(work)

    def _run(self, work: Work[T]) -> T:
        # A connection that a restart of Postgres broke is met once per pooled connection; a deadlock is rare.
        tries = Retrying(
            retry=retry_if_exception_type(ServiceUnavailable),
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(multiplier=0.05, max=0.5),
            reraise=True,
        )
        result: T = tries(self._once, work)
        return result

    def _once(self, work: Work[T]) -> T:
        try:
            with self._pool.connection() as connection:
                return work(connection)
        except psycopg.Error as error:
            raise _mapped(error) from error
        except UnicodeEncodeError as error:
            raise BadWork("A value for the ledger is not text that can be written as UTF-8.") from error


def open_ledger(settings: Settings) -> Ledger:
    """The ledger of a stack, to be used as a context manager."""
    return Ledger(settings.postgres_url("ledger", "lake"))


def _mapped(error: psycopg.Error) -> SluiceError:
    constraint = error.diag.constraint_name
    if constraint in ("legal_transition", "append_only"):
        return IllegalTransition(f"The ledger refused a change: {error.diag.message_primary}.")
    if constraint == "rows_accounted":
        return AccountingMismatch("The ledger refused a result: rows in are not rows accepted + rows rejected.")
    # The last is of a value that is too long for an index.
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError | psycopg.errors.ProgramLimitExceeded):
        return BadWork(f"The ledger cannot hold a value: {type(error).__name__} ({constraint or error.sqlstate}).")
    return ServiceUnavailable(f"The ledger does not answer ({type(error).__name__}); is Postgres up?")


def _commit_source(row: DictRow) -> CommitSource:
    return CommitSource(**{field: row[field] for field in CommitSource.model_fields})


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as one array per column, for unnest."""
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]


def _json(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows by the names of their columns, for json_to_recordset."""
    return json.dumps(list(rows), default=datetime.isoformat)


def _name(of: WorkItem | SourceResult) -> Name:
    return of.bucket, of.key, of.etag


def _padded(sequencer: str) -> str:
    return sequencer.rjust(32, "0")


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def _file_row(row: DictRow) -> FileRow:
    return FileRow(
        bucket=row["bucket"],
        key=row["key"],
        etag=row["etag"],
        sequencer=row["sequencer"],
        state=FileState(row["state"]),
        reason=Reason(row["reason"]) if row["reason"] else None,
        detail=row["detail"],
        dataset=row["dataset"],
        size=row["size"],
        put_at=row["put_at"],
        version=row["version"],
        depth=Layer(row["depth"]),
        removed_at=row["removed_at"],
    )


def _write(connection: Connection[DictRow], changes: Changes) -> None:
    if changes.reopened:
        connection.execute(_REOPEN, _columns(sorted(changes.reopened), 3))
    if changes.files:
        # Sorted: two transactions that meet the same rows take them in one order.
        rows = [changes.files[name] for name in sorted(changes.files)]
        connection.execute(_FILES, (_json(map(_file_values, rows)),))
    if changes.seen_again:
        seen = ((*name, _padded(changes.seen_again[name])) for name in sorted(changes.seen_again))
        connection.execute(_SEEN_AGAIN, _columns(seen, 4))
    if changes.removed:
        gone = [changes.removed[name] for name in sorted(changes.removed)]
        values = ((row.bucket, row.key, row.etag, _padded(row.sequencer), row.removed_at) for row in gone)
        connection.execute(_REMOVED, _columns(values, 5))
    if changes.superseding:
        newest = [changes.superseding[name] for name in sorted(changes.superseding)]
        connection.execute(_SUPERSEDE_RECEIVED, (_json(map(_newer_values, newest)), len(newest)))
    _add_history(connection, changes.history)


def _file_values(row: FileRow) -> dict[str, object]:
    return {
        "bucket": row.bucket,
        "key": row.key,
        "etag": row.etag,
        "dataset": row.dataset,
        "state": row.state,
        "reason": row.reason,
        "detail": row.detail,
        "size": row.size,
        "sequencer": _padded(row.sequencer),
        "put_at": row.put_at,
        "version": row.version,
        "depth": row.depth,
        "removed_at": row.removed_at,
    }


def _newer_values(row: FileRow) -> dict[str, object]:
    return {"bucket": row.bucket, "key": row.key, "etag": row.etag, "sequencer": _padded(row.sequencer)}


def _item_values(item: WorkItem) -> tuple[object, ...]:
    work = (item.cause, str(item.depth), item.deleted)
    return *_name(item), item.version, item.size, item.rows, *work


def _add_history(connection: Connection[DictRow], rows: Sequence[HistoryRow]) -> None:
    if not rows:
        return
    with connection.cursor() as cursor, cursor.copy(_HISTORY) as copy:
        for row in rows:
            copy.write_row(row)


def _batch_history(
    batch: Batch,
    hop: Hop,
    run_id: str,
    attempt: int | None = None,
    reason: Reason | None = None,
    detail: str | None = None,
) -> list[HistoryRow]:
    now = datetime.now(UTC)
    return [
        HistoryRow(
            *_name(item),
            at=now,
            hop=hop,
            layer=batch.layer,
            attempt=attempt,
            run_id=run_id,
            reason=reason,
            detail=detail,
        )
        for item in batch.items
    ]


def _replayed(item: WorkItem) -> HistoryRow:
    now = datetime.now(UTC)
    return HistoryRow(*_name(item), at=now, hop=Hop.REPLAYED, state=FileState.RECEIVED, detail=f"to {item.depth}")


def _refreshed(item: WorkItem, reference: str) -> HistoryRow:
    now, told = datetime.now(UTC), f"{reference} changed, so its gold is made again"
    return HistoryRow(*_name(item), at=now, hop=Hop.REPLAYED, state=FileState.RUNNING, layer=Layer.GOLD, detail=told)


def _hand_over(connection: Connection[DictRow], batch_id: str) -> None:
    connection.execute(
        "UPDATE ledger.batches SET handed_over_at = now() WHERE batch_id = %s AND handed_over_at IS NULL", (batch_id,)
    )


def _move(connection: Connection[DictRow], fates: Iterable[Fate], overrule: bool = False) -> None:
    ordered: list[Fate] = sorted(fates, key=_name_of_fate)
    connection.execute(_MOVE, [*_columns(ordered, 7), overrule])


def _name_of_fate(fate: Fate) -> Name:
    return fate[0], fate[1], fate[2]


def _fate(
    of: WorkItem | SourceResult, state: FileState, reason: Reason | None = None, detail: str | None = None
) -> Fate:
    return *_name(of), of.cause, str(state), _text(reason), detail


def _record_marker(connection: Connection[DictRow], marker: CommitMarker) -> None:
    new = connection.execute(
        "INSERT INTO ledger.commits (table_name, batch_id, snapshot_id, committed_at) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING",
        (marker.table, marker.batch_id, marker.snapshot_id or 0, marker.committed_at),
    )
    if new.rowcount == 0:
        return
    sources = sorted(marker.sources, key=_name)
    sizes = _columns(((*_name(source), source.size) for source in sources), 4)
    connection.execute(_UNKNOWN_FILES, [marker.dataset, *sizes])
    accepted = [source for source in sources if source.refused is None]
    _store_results(connection, marker, accepted)
    _move(connection, [_fate_of_accepted(marker.layer, source) for source in accepted], overrule=True)
    refused = ((source, source.refused) for source in sources if source.refused is not None)
    _move(connection, [_fate(source, reason.state, reason, source.detail) for source, reason in refused])
    now = datetime.now(UTC)
    _add_history(connection, [row for source in sources for row in _marker_history(marker, source, now)])


def _store_results(connection: Connection[DictRow], marker: CommitMarker, accepted: Sequence[SourceResult]) -> None:
    head = [str(marker.layer), marker.table, marker.dag_id or None, marker.run_id or None, marker.batch_id]
    counts = _columns(map(_result_values, accepted), 10)
    connection.execute(_RESULTS, [*head, marker.snapshot_id, marker.committed_at, *counts])
    if marker.snapshot_id is not None:
        commit = [marker.snapshot_id, marker.batch_id, marker.table, marker.run_id or None]
        connection.execute(_COMMIT_SOURCES, [*commit, marker.committed_at, marker.sequence_number, *counts])


def _result_values(source: SourceResult) -> tuple[object, ...]:
    told = (Jsonb(source.reasons), Jsonb(source.warnings), Jsonb(source.rescued), Jsonb(source.left_out))
    return *_name(source), source.rows_in, source.rows_accepted, source.rows_rejected, *told


def _fate_of_accepted(layer: Layer, source: SourceResult) -> Fate:
    if layer != source.depth:
        return _fate(source, FileState.RUNNING)
    if source.deleted:
        return _fate(source, Reason.RETRACTED.state, Reason.RETRACTED, "Deleted from bronze.")
    return _fate(source, FileState.DONE)


def _marker_history(marker: CommitMarker, source: SourceResult, now: datetime) -> list[HistoryRow]:
    name, layer, run_id = _name(source), marker.layer, marker.run_id or None
    if source.refused is not None:
        hop = Hop.QUARANTINED if source.refused.state == FileState.QUARANTINED else Hop.RECORDED
        ended = HistoryRow(
            *name,
            at=marker.committed_at,
            hop=hop,
            state=source.refused.state,
            layer=layer,
            run_id=run_id,
            reason=source.refused,
            detail=source.detail or None,
        )
        return [ended]
    rows = f"{source.rows_in} rows in, {source.rows_accepted} accepted, {source.rows_rejected} rejected"
    if source.deleted:
        rows = "rows taken back"
    committed = HistoryRow(*name, at=marker.committed_at, hop=Hop.COMMITTED, layer=layer, run_id=run_id, detail=rows)
    return [committed, HistoryRow(*name, at=now, hop=Hop.RECORDED, layer=layer, run_id=run_id)]


_WORK_FIELDS = ("bucket", "key", "etag", "size", "version", "rows", "cause", "depth", "deleted")


def _work(row: DictRow) -> SilverWork:
    return SilverWork(row["dataset"], WorkItem(**{name: row[name] for name in _WORK_FIELDS}))


def _due(row: DictRow) -> Due:
    return Due(_work(row), row["detail"], row["since"], row["released"], row["newest"])


def _listed(row: DictRow) -> Listed:
    state = FileState(row["state"]) if row["state"] else None
    reason = Reason(row["reason"]) if row["reason"] else None
    return Listed(row["key"], row["rows"], state, reason, row["removed"], row["rows_in"])


def _end(
    connection: Connection[DictRow],
    name: Name,
    hop: Hop,
    state: FileState,
    reason: Reason | None = None,
    detail: str | None = None,
    told: str | None = None,
) -> None:
    if connection.execute(_END, (str(state), _text(reason), detail, *name)).rowcount:
        row = HistoryRow(*name, at=datetime.now(UTC), hop=hop, state=state, reason=reason, detail=told)
        _add_history(connection, [row])


def _settle(connection: Connection[DictRow], changes: Sequence[Change]) -> None:
    if not changes:
        return
    ordered = sorted(changes, key=lambda change: _name(change.work.item))
    values = (
        (*_name(c.work.item), c.work.item.cause, str(c.state), _text(c.reason), c.detail, c.released) for c in ordered
    )
    rows = connection.execute(_SETTLE, _columns(values, 8)).fetchall()
    # What was put again or replayed since it was read is another work by now.
    changed = {(row["bucket"], row["key"], row["etag"]) for row in rows}
    now = datetime.now(UTC)
    _add_history(
        connection,
        [
            HistoryRow(
                *_name(c.work.item), at=now, hop=c.hop, state=c.state, layer=Layer.GOLD, reason=c.reason, detail=c.told
            )
            for c in ordered
            if c.hop is not None and _name(c.work.item) in changed
        ],
    )


def _tell(connection: Connection[DictRow], files: Sequence[DictRow]) -> list[FileStory]:
    names = _columns(((file["bucket"], file["key"], file["etag"]) for file in files), 3)
    passages: dict[Name, list[Passage]] = {}
    for row in connection.execute(_PASSAGES, names):
        told = Passage(
            hop=row["hop"],
            at=row["at"],
            layer=row["layer"],
            run_id=row["run_id"],
            detail=row["detail"] or row["reason"],
        )
        passages.setdefault((row["bucket"], row["key"], row["etag"]), []).append(told)
    layers: dict[Name, list[LayerResult]] = {}
    for row in connection.execute(_LAYERS, names):
        result = LayerResult(table=row["table_name"], **{field: row[field] for field in _RESULT_FIELDS})
        layers.setdefault((row["bucket"], row["key"], row["etag"]), []).append(result)
    return [_story(file, passages, layers) for file in files]


_RESULT_FIELDS = tuple(LayerResult.model_fields.keys() - {"table"})


def _story(file: DictRow, passages: dict[Name, list[Passage]], layers: dict[Name, list[LayerResult]]) -> FileStory:
    name = (file["bucket"], file["key"], file["etag"])
    fields = ("bucket", "key", "etag", "size", "dataset", "state", "reason", "detail")
    return FileStory(
        **{field: file[field] for field in fields},
        timeline=tuple(passages.get(name, ())),
        layers=tuple(layers.get(name, ())),
    )
