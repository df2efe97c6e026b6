"""What the router and the jobs need to know of a dataset: the models, frozen.

They are read from `contracts/datasets/<dataset>.yaml` by `contracts.loading`, which tells every key. What holds between
several columns, rules and tables is checked there too, so a contract that was loaded is one that can be kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from contracts.errors import ContractError
from contracts.spark_types import parse_type
from contracts.states import Layer

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
ColumnName = Annotated[str, Field(pattern=r"^_?[a-z][a-z0-9_]*$")]
BRONZE = "bronze"
"""The bucket whose objects are work."""
COPY = "_copy"
"""To conditions: 0 for the first of the rows of a file that are equal in all of the contract's columns, then 1, 2, …"""
NEGATED = "_negated"
"""To conditions: whether the file holds another row that takes this one back, or that this one does; see `Negation`."""
ROW_ID = "_row_id"
"""To the jobs alone: the place of a row in the scan of its files, by which both are noted."""
RESERVED_NAMES = frozenset(
    {
        *("_source_key", "_source_etag", "_source_id", "_reason", "_reasons", "_row", "_rescued"),
        *(
            "_period_start",
            "_period_end",
            COPY,
            NEGATED,
            ROW_ID,
            "_once",
            "_sampled",
            "_path",
            "_metadata",
            "_failed",
            "_warnings",
        ),
    }
)
"""Columns that the jobs make themselves, beside those that begin with `_bad_`."""
Value = bool | int | float | str


def hidden_part(key: str) -> str | None:
    """The first part of an object's key that begins with "_" or ".": tools keep what is none of the data there."""
    return next((part for part in key.split("/") if part.startswith(("_", "."))), None)


class Earlier(BaseModel):
    """What a column was called, or what type it had, in the files up to a month."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: str = Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    """The last month that the files are of, as `2009-12`."""
    name: str | None = Field(default=None, min_length=1)
    type: str | None = None
    """Spark SQL type."""

    @field_validator("type")
    @classmethod
    def _is_type(cls, kind: str | None) -> str | None:
        return None if kind is None else parse_type(kind)

    @model_validator(mode="after")
    def _says_something(self) -> Earlier:
        if self.name is None and self.type is None:
            raise ValueError("neither `name` nor `type` is there; at least one was expected")
        return self


class Column(BaseModel):
    """One column of a table."""

    model_config = ConfigDict(frozen=True)

    name: ColumnName
    """Begins with `_` only where the column is derived: it is about the row, not about what the row tells of."""
    type: str
    """Spark SQL type, for example `decimal(10,2)`."""
    required: bool = False
    """Null rejects the row; where a file may lack the column, only in files that have it."""
    optional_in_file: bool = False
    """A file may lack the column; its rows then hold null."""
    optional_with: tuple[str, ...] = ()
    """A file may lack the column where it has all of these; its rows then hold null."""
    derived: bool = False
    """Made by the transformation; files are not searched for it."""
    fill_null: Value | None = None
    codes: Mapping[str, Value] = {}
    """What earlier files wrote to the value that it stands for; keys are in small letters, without outer blanks."""
    synonyms: tuple[str, ...] = ()
    """Names in source files, compared without case."""
    earlier: tuple[Earlier, ...] = ()
    unit: str = ""
    description: str = ""

    @field_validator("type")
    @classmethod
    def _is_type(cls, kind: str) -> str:
        return parse_type(kind)

    @field_validator("fill_null", mode="before")
    @classmethod
    def _plain_value(cls, value: object) -> object:
        return _plain(value)

    @field_validator("codes", mode="before")
    @classmethod
    def _comparable(cls, codes: object) -> object:
        if not isinstance(codes, Mapping):
            return codes
        made: dict[str, object] = {}
        for text, value in codes.items():
            if isinstance(text, bool) or not isinstance(text, str | int):
                raise ValueError(f"YAML reads a code as {text!r}; put it into quotes")
            key = code_key(str(text))
            if key in made:
                raise ValueError(f"the code {key!r} is there twice; case and outer blanks make no difference")
            if value is None:
                raise ValueError(f"the code {key!r} stands for nothing; leave it out, and it becomes null")
            made[key] = _plain(value)
        return made

    @property
    def source_names(self) -> tuple[str, ...]:
        """All names that files may have for the column, in small letters: its own, synonyms and earlier ones."""
        names = (self.name, *self.synonyms, *(item.name for item in self.earlier if item.name))
        return tuple(dict.fromkeys(name.casefold() for name in names))

    @property
    def never_null(self) -> bool:
        """Whether readers of the table can count on a value in each row."""
        may_lack = self.optional_in_file or bool(self.optional_with)
        return self.fill_null is not None or (self.required and not may_lack)


def code_key(text: str) -> str:
    """A code as `Column.codes` has it, whatever the case and outer blanks of what a file says."""
    return text.strip().lower()


def _plain(value: object) -> object:
    if isinstance(value, date):
        # YAML makes a day of 2020-01-31.
        return value.isoformat()
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"a text, a number, true or false was expected, not {type(value).__name__}")


class Severity(StrEnum):
    """What a row that fails a rule brings about."""

    REJECT = "reject"
    """The row goes to the rejects."""
    WARN = "warn"
    """The row is kept, and counted."""
    REFUSE = "refuse"
    """The file is refused, where a larger share of its rows fails than the rule's `max_share`."""


class Rule(BaseModel):
    """A condition that a good row fulfils; null counts as fulfilled, since `required` covers nulls."""

    model_config = ConfigDict(frozen=True)

    code: Name
    condition: str
    """Spark SQL over the silver columns, `_period_start`, `_period_end` (null when the key names no month), `_copy` and
    `_negated`."""
    template: str = ""
    """The condition as it was written, with `${name}` where a threshold goes."""
    thresholds: Mapping[str, int | float] = {}
    severity: Severity = Severity.REJECT
    max_share: float = Field(default=0, ge=0, le=1)
    source: str = ""
    """Where the rule or its thresholds come from: a text or an address."""
    description: str = ""


class Negation(BaseModel):
    """How a file takes a row back: by another row that tells of the same thing with opposite amounts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    same: tuple[Name, ...] = Field(min_length=1)
    """Columns in which the two are equal; null equals null."""
    negated: tuple[Name, ...] = Field(min_length=1)
    """Columns whose values are opposite, and not all 0; a null has no opposite."""


class Table(BaseModel):
    """A table that a stage writes."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^(silver|gold)\.[a-z][a-z0-9_]*$")
    columns: tuple[Column, ...] = Field(min_length=1)
    description: str = ""


class Gold(BaseModel):
    """The tables that are made of silver."""

    model_config = ConfigDict(frozen=True)

    features: Table
    aggregate: Table
    aggregate_by: str
    """The column of both by whose values the aggregate is recomputed."""


class Lookup(BaseModel):
    """Columns that gold takes from a reference dataset, by one key.

    A row whose key is null, or that the reference lacks, gets nulls; so do all rows while the reference has no rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Name
    """The reference dataset, whose silver is read."""
    key: Name
    """Column of the reference. Where several of its rows have one value of it, one of them counts; see
    `spark_jobs.references`."""
    by: Name
    """Column of this dataset's silver, of the key's type; of the aggregate too, where the aggregate has `columns`."""
    columns: Mapping[Name, Name] = Field(min_length=1)
    """Column of features or aggregate to the column of the reference that it holds."""

    @property
    def table(self) -> str:
        """The reference's table."""
        return f"silver.{self.dataset}"


class Download(BaseModel):
    """A published source of the dataset's files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dag: str
    """The DAG that a person triggers with year and month."""
    file: str
    """The file's name at the source, with `{year}` and `{month:02d}`."""

    @field_validator("file")
    @classmethod
    def _has_places(cls, file: str) -> str:
        try:
            file.format(year=2025, month=1)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{file!r} cannot be filled in: {{year}} and {{month:02d}} were expected") from error
        return file


class Limits(BaseModel):
    """What a file may hold at most; see `contracts.loading`."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    max_bytes: int = Field(default=4 * 1024**3, ge=1)
    max_rows: int = Field(default=100_000_000, ge=1)
    max_uncompressed_bytes: int = Field(default=16 * 1024**3, ge=1)
    max_inflation: int = Field(default=100, ge=1)
    """Honest taxi files have 0.8 to 1.3; no codec but for long runs of one value reaches 100."""
    max_columns: int = Field(default=1000, ge=1)
    max_rejected_share: float = Field(default=1, ge=0, le=1)
    """Share of rejected rows above which the file is refused as a whole."""


class Completeness(BaseModel):
    """Gold waits for a set of files; see `contracts.loading`."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    manifest: str = Field(default="manifest.json", pattern=r"^[^/._][^/]*$")
    time_limit: timedelta = Field(gt=timedelta(0), le=timedelta(days=366))
    on_time_limit: Literal["release", "quarantine"]


class Upkeep(BaseModel):
    """How a dataset's tables are looked after; see `contracts.loading`."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    pack_below: int = Field(default=8 * 1024**2, ge=0, le=16 * 1024**2)
    pack_after: timedelta = Field(default=timedelta(days=1), ge=timedelta(0))
    keep_snapshots: timedelta = Field(default=timedelta(days=7), ge=timedelta(0))
    # Iceberg refuses less than a day: what a writer has not committed yet is in no snapshot either.
    keep_orphans: timedelta = Field(default=timedelta(days=3), ge=timedelta(days=1, hours=1))


class Period(BaseModel):
    """The month that a file stands for."""

    model_config = ConfigDict(frozen=True)

    year: int = Field(ge=1900, le=2200)
    month: int = Field(ge=1, le=12)

    @property
    def start(self) -> datetime:
        """First instant of the month, wall-clock."""
        return datetime(self.year, self.month, 1)

    @property
    def end(self) -> datetime:
        """First instant of the next month, wall-clock."""
        return datetime(self.year + self.month // 12, self.month % 12 + 1, 1)


class DatasetContract(BaseModel):
    """What the router and the jobs need to know of a dataset."""

    model_config = ConfigDict(frozen=True)

    dataset: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    """Of the contract: major.minor.patch. `contracts.changes` says what makes it rise."""
    kind: Literal["trips", "reference"] = "trips"
    """`reference` is a small table that the gold of others reads; it has no gold of its own."""
    title: str = ""
    owner: str = ""
    path: str
    period: str | None = None
    strict: bool = False
    """A file's column that no contract column names refuses the file; otherwise it is kept aside."""
    transforms: Name | None = None
    """Module of `spark_jobs.transforms`; only a reference may have none."""
    on_quarantine: Literal["copy", "keep"] = "copy"
    on_delete: Literal["keep", "retract"] = "keep"
    launch: Literal["connect", "submit"] = "connect"
    max_batch_files: int = Field(default=1000, ge=1)
    limits: Limits = Limits()
    retention: int | None = Field(default=None, ge=1)
    """Days that rows are kept at least; None: nothing is said."""
    keep_bronze: int | None = Field(default=None, ge=1)
    """Days that a file stays in bronze; None: for ever. Its rows stay when it expires, whatever `on_delete` says."""
    keep_quarantine: int | None = Field(default=None, ge=1)
    """Days that the copy of a refused file stays in quarantine; None: for ever."""
    references: tuple[Lookup, ...] = ()
    """What gold takes from other datasets."""
    completeness: Completeness | None = None
    download: Download | None = None
    upkeep: Upkeep = Upkeep()
    silver: Table
    gold: Gold | None = None
    """None only for a reference; `features`, `aggregate` and `aggregate_by` are its parts."""
    rules: tuple[Rule, ...] = ()
    negation: Negation | None = None
    """None: the rules do not know `_negated`."""

    @field_validator("path", "period")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern

    @field_validator("period")
    @classmethod
    def _names_month(cls, pattern: str | None) -> str | None:
        lacking = {"year", "month"} - set(re.compile(pattern).groupindex) if pattern is not None else set()
        if lacking:
            names = " and ".join(sorted(lacking, reverse=True))
            raise ValueError(f"{pattern!r} lacks the group {names}; (?P<year>...) and (?P<month>...) were expected")
        return pattern

    @property
    def features(self) -> Table:
        """The table of a row a silver row, with features. Raises ContractError for a reference."""
        return self._gold.features

    @property
    def aggregate(self) -> Table:
        """The table of a row a group of features. Raises ContractError for a reference."""
        return self._gold.aggregate

    @property
    def aggregate_by(self) -> str:
        """The column by whose values the aggregate is recomputed. Raises ContractError for a reference."""
        return self._gold.aggregate_by

    @property
    def _gold(self) -> Gold:
        if self.gold is None:
            raise ContractError(
                f"{self.dataset} is a reference dataset, which has no features and no aggregate. Make it of the kind "
                f"`trips` and describe both, or leave its gold alone."
            )
        return self.gold

    @property
    def last_layer(self) -> Layer:
        """The last layer that the dataset's files can reach."""
        return Layer.GOLD if self.gold else Layer.SILVER

    def table_of(self, layer: Layer) -> Table | None:
        """The table of whose commits a layer's markers tell; None where the dataset has no such layer."""
        if layer is Layer.SILVER:
            return self.silver
        return self.gold.features if self.gold else None

    @property
    def transform_functions(self) -> tuple[str, ...]:
        """What the module of the transformations has to offer."""
        return ("clean", "features", "aggregate") if self.gold else ("clean",)

    @property
    def rejects_table(self) -> str:
        """The table of rows that silver rejected."""
        return f"{self.silver.name}_rejects"

    @cached_property
    def source_names(self) -> frozenset[str]:
        """Names that columns of its files may have, casefolded."""
        return frozenset(name for column in self.silver.columns for name in column.source_names)

    @cached_property
    def _path(self) -> re.Pattern[str]:
        return re.compile(self.path)

    def accepts(self, key: str) -> bool:
        """Whether an object's key is one of this dataset's data files."""
        inside = self.owns(BRONZE, key) and not self.is_manifest(key) and hidden_part(key) is None
        return inside and self._path.fullmatch(key[len(self.dataset) + 1 :]) is not None

    def owns(self, bucket: str, key: str) -> bool:
        """Whether an object may be work of this dataset: it lies in bronze, in the dataset's folder.

        Wider than `accepts`, since rows of files that came before the path pattern changed are worked on still. No part
        of the key may be one that a path is climbed with, plain or percent-encoded, whoever decodes it.
        """
        parts = key.split("/")
        inside = bucket == BRONZE and len(parts) > 1 and parts[0] == self.dataset
        return inside and all(_unquoted(part) not in ("", ".", "..") for part in parts[1:])

    def is_manifest(self, key: str) -> bool:
        """Whether an object's key is that of a set's manifest, whatever the path pattern says."""
        folder, _, name = key.rpartition("/")
        inside = f"{folder}/".startswith(f"{self.dataset}/")
        return self.completeness is not None and inside and name == self.completeness.manifest

    def period_of(self, key: str) -> Period | None:
        """The month that a key stands for, or None when it names none."""
        found = re.search(self.period, key) if self.period else None
        if found is None:
            return None
        try:
            return Period(year=int(found["year"]), month=int(found["month"]))
        except (ValidationError, ValueError, TypeError):
            return None


def _unquoted(part: str) -> str:
    """A part of a key, decoded until nothing is left to decode."""
    while (decoded := unquote(part)) != part:
        part = decoded
    return part
