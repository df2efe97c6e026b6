"""The states of a file, the reasons for them, the layers and the hops: one enum each."""

from __future__ import annotations

from enum import StrEnum


class Layer(StrEnum):
    """A layer that a stage writes. Bronze is what users write."""

    SILVER = "silver"
    GOLD = "gold"


class FileState(StrEnum):
    """What became of one version (etag) of one object in bronze."""

    RECEIVED = "received"
    RUNNING = "running"
    DONE = "done"
    QUARANTINED = "quarantined"
    IGNORED = "ignored"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the file by itself."""
        return self in (FileState.DONE, FileState.QUARANTINED, FileState.IGNORED)


class Hop(StrEnum):
    """A point on a file's way; the ledger's history has one row for each passage."""

    PUT = "put"
    """MinIO acknowledged the object (time of the event itself)."""
    EVENT = "event"
    """The event is in Kafka (time of the Kafka record)."""
    ROUTED = "routed"
    """The router recorded the file and handed it on, or ended its way."""
    REPEATED = "repeated"
    """The same content was dropped again, or the same event came again; nothing to do."""
    REMOVED = "removed"
    """The object was deleted from bronze."""
    REPLAYED = "replayed"
    """A person asked for the file to be run again, or what its gold looks up has changed; its way starts anew."""
    CLAIMED = "claimed"
    """A listener put the file into a batch and made the DAG run."""
    STARTED = "started"
    """The stage's Spark job began to work on the batch."""
    COMMITTED = "committed"
    """One atomic Iceberg commit holds the file's rows."""
    RECORDED = "recorded"
    """The commit marker's event came back and the ledger holds the row counts."""
    QUARANTINED = "quarantined"
    """The job refused the file."""
    HELD = "held"
    """The file is in silver and waits for the others of its set."""
    RELEASED = "released"
    """The file waits no longer: its set is complete, or its time is over."""
    FAILED = "failed"
    """A run gave up; the file waits for a replay."""


class Reason(StrEnum):
    """Why a file is not `done`. `advice` is the sentence that tells the user what to do."""

    UNKNOWN_DATASET = "unknown_dataset"
    PATH_NOT_IN_CONTRACT = "path_not_in_contract"
    CSV_NEEDS_LANDING = "csv_needs_landing"
    DIRECTORY_MARKER = "directory_marker"
    HIDDEN_NAME = "hidden_name"
    SUPERSEDED = "superseded"
    OBJECT_GONE = "object_gone"
    RETRACTED = "retracted"
    UNREADABLE_KEY = "unreadable_key"
    EMPTY_FILE = "empty_file"
    NO_ROWS = "no_rows"
    NOT_PARQUET = "not_parquet"
    DAMAGED_PARQUET = "damaged_parquet"
    ENCRYPTED_PARQUET = "encrypted_parquet"
    NO_COLUMNS = "no_columns"
    DUPLICATE_COLUMNS = "duplicate_columns"
    MISSING_COLUMNS = "missing_columns"
    WRONG_TYPES = "wrong_types"
    UNREADABLE_DATA = "unreadable_data"
    UNKNOWN_COLUMNS = "unknown_columns"
    OVER_LIMIT = "over_limit"
    TOO_MANY_REJECTED = "too_many_rejected"
    BAD_MANIFEST = "bad_manifest"
    SET_INCOMPLETE = "set_incomplete"
    RUN_FAILED = "run_failed"

    @property
    def advice(self) -> str:
        """One sentence that tells the user what to do."""
        return _ADVICE[self]

    @property
    def state(self) -> FileState:
        """The state of a file that ends for this reason: ignored when there is nothing to mend, else quarantined."""
        return FileState.IGNORED if self in _NOTHING_TO_MEND else FileState.QUARANTINED


_NOTHING_TO_MEND = frozenset(
    {Reason.DIRECTORY_MARKER, Reason.HIDDEN_NAME, Reason.SUPERSEDED, Reason.OBJECT_GONE, Reason.RETRACTED}
)


_ADVICE = {
    Reason.UNKNOWN_DATASET: (
        "The first folder of the key names no dataset; drop the file under a known one, or add a contract."
    ),
    Reason.PATH_NOT_IN_CONTRACT: (
        "The key does not match the path pattern of its dataset's contract; rename the object."
    ),
    Reason.CSV_NEEDS_LANDING: (
        "A CSV becomes parquet on its way into bronze; drop it with `sluice drop`, then delete this object."
    ),
    Reason.DIRECTORY_MARKER: "A folder marker holds no rows; nothing needs to be done.",
    Reason.HIDDEN_NAME: (
        "Names that begin with '_' or '.' are work files to Spark and Hadoop; rename the object if it is data."
    ),
    Reason.SUPERSEDED: "Newer content under the same key took its place; look at the newer version.",
    Reason.OBJECT_GONE: "The object was deleted before it was read; drop it again if that was a mistake.",
    Reason.RETRACTED: (
        "The object was deleted, and its contract takes its rows back from silver and gold; drop it again to have them."
    ),
    Reason.UNREADABLE_KEY: (
        "Spark cannot open a key that has both ':' and one of {}[]*?\\ in it; drop the file under another name."
    ),
    Reason.EMPTY_FILE: "The object has 0 bytes; the upload probably broke, drop the file again.",
    Reason.NO_ROWS: "The file is valid but holds no row; drop it again once it has data.",
    Reason.NOT_PARQUET: "The content is not parquet whatever its name says; convert it and drop it again.",
    Reason.DAMAGED_PARQUET: (
        "The parquet footer cannot be read, so the file is cut short or damaged; drop a whole copy."
    ),
    Reason.ENCRYPTED_PARQUET: "The file is encrypted and nobody here has its key; drop a copy that is not.",
    Reason.NO_COLUMNS: "The file is valid but has no column; fix the writer and drop the file again.",
    Reason.DUPLICATE_COLUMNS: (
        "Several columns could be the same one of the contract; fix the writer and drop the file again."
    ),
    Reason.MISSING_COLUMNS: (
        "Required columns are missing; compare the file with the dataset's contract and drop a complete one."
    ),
    Reason.WRONG_TYPES: (
        "Columns have types that cannot be cast to the contract's; fix the writer and drop the file again."
    ),
    Reason.UNREADABLE_DATA: ("The footer is fine but the data pages cannot be decoded; drop an undamaged copy."),
    Reason.UNKNOWN_COLUMNS: (
        "The contract is strict and names none of these columns; add them to it, or drop a file without them."
    ),
    Reason.TOO_MANY_REJECTED: (
        "More of its rows fail than the contract allows; look at them in the rejects table, then correct the file."
    ),
    Reason.OVER_LIMIT: "The file is above a limit of its contract; split it, or raise the limit.",
    Reason.BAD_MANIFEST: "The manifest cannot be read, so the one before it stays in force; drop a corrected one.",
    Reason.SET_INCOMPLETE: (
        "The set was not complete in time; drop the missing files or a corrected manifest, then `sluice replay` the "
        "quarantined ones."
    ),
    Reason.RUN_FAILED: (
        "The stage failed for a reason outside the file; read the run's log in Airflow, mend it, then `sluice replay`."
    ),
}
