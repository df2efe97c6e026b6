"""Dataset contracts: Open Data Contract Standard files, read into the few models the code uses.

One file in `contracts/datasets/` is one dataset. The standard's own keys say columns, types, synonyms,
requiredness and quality; what the standard does not know stands in its `customProperties`:

=================  ==========================================================================
`path`             regular expression that a key must match in full, below `<dataset>/`
`period`           regular expression with groups `year` and `month`, searched in the key
`transforms`       module of `spark_jobs.transforms` with `clean`, `features`, `aggregate`
`aggregateBy`      column of the features by whose values the aggregate is recomputed
`onQuarantine`     `copy` the original to the bucket `quarantine`, or `keep` it only in place
`onDelete`         `keep` or `retract`
`launch`           `connect` (the warm Spark Connect server) or `submit` (an application of its own)
`maxBatchFiles`    how many files one DAG run takes at most
`limits`           what a file may hold at most, below
`completeness`     gold waits for a set of files, below; without it each file goes to gold by itself
`download`         `dag` and `file` of a published source, with `{year}` and `{month:02d}`; a `.csv` or
                   `.csv.gz` lands as parquet
=================  ==========================================================================

`limits` are checked before Spark reads a file, from its size and its footer; one that is left out has its default:

======================  ==============  ===============================================================
`maxBytes`              4 GiB           of the object
`maxRows`               100 million     in the file
`maxUncompressedBytes`  16 GiB          of its pages once they are decompressed
`maxInflation`          100             times the object's size that those are; held against a file only
                                        once they are more than 64 MiB
`maxColumns`            1000            as stored: each field of a nested column is one
======================  ==============  ===============================================================

They hold for what the footer says. A file whose page headers contradict its footer is not found out by them; Spark
then reads it page by page, as far as the executors' memory allows.

`completeness` makes each folder a set: its files go to gold once all that the folder's manifest lists are in silver
with the rows that it states. The manifest is an object of the folder, read by `contracts/manifest.py`:

===============  ==========================================================================
`manifest`       its name, the last part of its key; `manifest.json` when left out
`timeLimit`      ISO 8601, for example `PT6H`, at most 366 days: how long a file may wait in silver
`onTimeLimit`    what then becomes of the folder's waiting files: `release` them to gold as they are,
                 or `quarantine` them
===============  ==========================================================================

A silver column may carry `optionalInFile` (a file may lack it) and `fillNull` (a value that stands for
null), and a quality rule is `type: custom`, `engine: sparkSQL`, with a condition that a good row fulfils.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from contracts.errors import ContractError, UnknownDataset

# libyaml's safe loader: 0.02 s instead of 0.17 s a contract, and every task start reads them.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Column(BaseModel):
    """One column of a table."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    type: str
    """Spark SQL type, for example `decimal(10,2)`."""
    required: bool = False
    """Null rejects the row."""
    optional_in_file: bool = False
    """A file may lack the column; its rows then hold null."""
    fill_null: str | int | float | None = None
    synonyms: tuple[str, ...] = ()
    """Names in source files, compared without case."""
    unit: str = ""
    description: str = ""


class Rule(BaseModel):
    """A condition that a good row fulfils; null counts as fulfilled, since `required` covers nulls."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    condition: str
    """Spark SQL over the silver columns, and `_period_start`, `_period_end` (null when the key names no month)."""
    description: str = ""


class Table(BaseModel):
    """A table that a stage writes."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^(silver|gold)\.[a-z][a-z0-9_]*$")
    columns: tuple[Column, ...] = Field(min_length=1)
    description: str = ""


class Download(BaseModel):
    """A published source of the dataset's files."""

    model_config = ConfigDict(frozen=True)

    dag: str
    """The DAG that a person triggers with year and month."""
    file: str
    """The file's name at the source, with `{year}` and `{month:02d}`."""


class Limits(BaseModel):
    """What a file may hold at most; see the module's text."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    max_bytes: int = Field(default=4 * 1024**3, ge=1)
    max_rows: int = Field(default=100_000_000, ge=1)
    max_uncompressed_bytes: int = Field(default=16 * 1024**3, ge=1)
    max_inflation: int = Field(default=100, ge=1)
    """Honest taxi files have 0.8 to 1.3; no codec but for long runs of one value reaches 100."""
    max_columns: int = Field(default=1000, ge=1)


class Completeness(BaseModel):
    """Gold waits for a set of files; see the module's text."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    manifest: str = Field(default="manifest.json", pattern=r"^[^/._][^/]*$")
    time_limit: timedelta = Field(gt=timedelta(0), le=timedelta(days=366))
    on_time_limit: Literal["release", "quarantine"]


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

    dataset: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: str
    title: str = ""
    owner: str = ""
    path: str
    period: str | None = None
    transforms: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    aggregate_by: str
    on_quarantine: Literal["copy", "keep"] = "copy"
    on_delete: Literal["keep", "retract"] = "keep"
    launch: Literal["connect", "submit"] = "connect"
    max_batch_files: int = Field(default=1000, ge=1)
    limits: Limits = Limits()
    completeness: Completeness | None = None
    download: Download | None = None
    silver: Table
    features: Table
    aggregate: Table
    rules: tuple[Rule, ...] = ()

    @field_validator("path", "period")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            re.compile(pattern)
        return pattern

    @property
    def rejects_table(self) -> str:
        """The table of rows that silver rejected."""
        return f"{self.silver.name}_rejects"

    @cached_property
    def source_names(self) -> frozenset[str]:
        """Names that columns of its files may have, casefolded."""
        return frozenset(name.casefold() for column in self.silver.columns for name in (column.name, *column.synonyms))

    @cached_property
    def _path(self) -> re.Pattern[str]:
        return re.compile(self.path)

    def accepts(self, key: str) -> bool:
        """Whether an object's key is one of this dataset's data files."""
        prefix = f"{self.dataset}/"
        inside = key.startswith(prefix) and not self.is_manifest(key)
        return inside and self._path.fullmatch(key[len(prefix) :]) is not None

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
        except (ValidationError, ValueError):
            return None


def load_contract(path: Path) -> DatasetContract:
    """Read one contract file.

    Raises:
        ContractError: not YAML, not an Open Data Contract, or our own keys are missing or wrong; names file and field.
    """
    # Imported here: it costs 0.2 s, and the command line reads no contract in most commands.
    from open_data_contract_standard.model import OpenDataContractStandard

    try:
        document = OpenDataContractStandard.model_validate(
            yaml.load(path.read_text("utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
        )
        return _from_standard(document)
    except yaml.YAMLError as error:
        raise ContractError(f"{path.name} is not YAML: {error}") from error
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ContractError(f"{path.name} is not a valid dataset contract: {fields}") from error
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise ContractError(f"{path.name} is not a valid dataset contract: {error}") from error


def load_contracts(folder: Path) -> dict[str, DatasetContract]:
    """Read every contract of a folder.

    Returns:
        Dataset name to contract.

    Raises:
        ContractError: a file is not valid, or two name the same dataset.
    """
    contracts: dict[str, DatasetContract] = {}
    for path in sorted(folder.glob("*.yaml")):
        contract = load_contract(path)
        if contract.dataset in contracts:
            raise ContractError(f"{path.name} names the dataset {contract.dataset}, as another contract does.")
        contracts[contract.dataset] = contract
    return contracts


def get_contract(contracts: Mapping[str, DatasetContract], dataset: str) -> DatasetContract:
    """The contract of a dataset.

    Raises:
        UnknownDataset: there is none; names those that there are.
    """
    if dataset not in contracts:
        raise UnknownDataset(f"No dataset is called {dataset!r}. Known: {', '.join(sorted(contracts)) or 'none'}.")
    return contracts[dataset]


def _custom(node: Any) -> dict[str, Any]:
    return {item.property: item.value for item in node.customProperties or []}


def _from_standard(document: Any) -> DatasetContract:
    custom = _custom(document)
    tables = {item.name: item for item in document.schema_ or []}
    for role in ("silver", "features", "aggregate"):
        if role not in tables:
            raise ValueError(f"schema has no object named {role!r}; it has {', '.join(map(repr, tables)) or 'none'}")
    return DatasetContract(
        dataset=document.id,
        version=document.version,
        title=document.name or "",
        owner=document.team.name if document.team and document.team.name else "",
        path=custom["path"],
        period=custom.get("period"),
        transforms=custom.get("transforms", document.id),
        aggregate_by=custom["aggregateBy"],
        on_quarantine=custom.get("onQuarantine", "copy"),
        on_delete=custom.get("onDelete", "keep"),
        launch=custom.get("launch", "connect"),
        max_batch_files=custom.get("maxBatchFiles", 1000),
        limits=custom.get("limits", {}),
        completeness=custom.get("completeness"),
        download=custom.get("download"),
        silver=_table(tables["silver"]),
        features=_table(tables["features"]),
        aggregate=_table(tables["aggregate"]),
        rules=tuple(
            Rule(code=rule.name, condition=rule.implementation, description=rule.description or "")
            for rule in tables["silver"].quality or []
        ),
    )


def _table(node: Any) -> Table:
    return Table(
        name=node.physicalName,
        description=node.description or "",
        columns=tuple(
            Column(
                name=item.name,
                type=item.physicalType,
                required=bool(item.required),
                optional_in_file=bool(_custom(item).get("optionalInFile")),
                fill_null=_custom(item).get("fillNull"),
                synonyms=tuple(synonym.synonym for synonym in item.synonyms or []),
                unit=_custom(item).get("unit", ""),
                description=item.description or "",
            )
            for item in node.properties or []
        ),
    )
