"""Dataset contracts: Open Data Contract Standard files, read into the models of `contracts.dataset`.

One file in `contracts/datasets/` is one dataset. The standard's own keys say columns, types, synonyms,
requiredness, quality and retention; what the standard does not know stands in its `customProperties`:

=================  ==========================================================================
`path`             regular expression that a key must match in full, below `<dataset>/`
`period`           regular expression with groups `year` and `month`, searched in the key
`kind`             `trips`, or `reference`: a small table without features and aggregate
`transforms`       module of `spark_jobs.transforms` with `clean`, `features`, `aggregate`
`aggregateBy`      column of the features by whose values the aggregate is recomputed
`strict`           `true`: a file's column that no contract column names refuses the file
`references`       lookups, below: columns that gold takes from reference datasets
`onQuarantine`     `copy` the original to the bucket `quarantine`, or `keep` it only in place
`onDelete`         `keep` or `retract`
`launch`           `connect` (the warm Spark Connect server) or `submit` (an application of its own)
`maxBatchFiles`    how many files one DAG run takes at most
`limits`           what a file may hold at most, below
`completeness`     gold waits for a set of files, below; without it each file goes to gold by itself
`download`         `dag` and `file` of a published source, with `{year}` and `{month:02d}`; a `.csv` or
                   `.csv.gz` lands as parquet
`upkeep`           when small files are put together and old snapshots go, below
=================  ==========================================================================

`limits` are checked before Spark reads a file, from its size and its footer; one that is left out has its default:

======================  ==============  ===============================================================
`maxBytes`              4 GiB           of the object
`maxRows`               100 million     in the file
`maxUncompressedBytes`  16 GiB          of its pages once they are decompressed
`maxInflation`          100             times the object's size that those are; held against a file only
                                        once they are more than 64 MiB
`maxColumns`            1000            as stored: each field of a nested column is one
`maxRejectedShare`      1               of its rows, 0 to 1; told by Spark, so after it read the file
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

`upkeep` is how the tables are looked after, once a day; times are ISO 8601:

==================  =======  ==================================================================
`packBelow`         8 MiB    of a source file's rows in a table; less is put together with others,
                             at 0 nothing
`packAfter`         `P1D`    after a file came, that it stays by itself
`keepSnapshots`     `P7D`    how far back a table can be read as it was
`keepOrphans`       `P3D`    how long a file of a table's folder stays that no snapshot knows of;
                             more than a day
==================  =======  ==================================================================

`references` is a list of lookups. Each names columns of features or aggregate that hold what a reference says of a
key; rows whose key it lacks hold null:

=================  ==========================================================================
`dataset`          a dataset of the kind `reference`
`key`              its column that is looked up
`by`               the column of silver that holds the key; of the aggregate too, where the aggregate has `columns`
`columns`          column of features or aggregate: column of the reference
=================  ==========================================================================

A column of silver may have:

=================  ==========================================================================
`earlier`          list of `{until: 'YYYY-MM', name, type}`: what it was in files up to that month
`codes`            what earlier files wrote to the value that it stands for
`optionalInFile`   a file may lack the column
`optionalWith`     other columns; a file that has all of them may lack this one
`derived`          the transformation makes the column; files are not searched for it, and its name may begin with _
`fillNull`         a value that stands for null
`unit`             of its values; columns of features and aggregate may have it too
=================  ==========================================================================

The silver table itself may have `negation`, with the lists `same` and `negated` of its columns: two rows of a file that
are equal in the first and opposite in the second, which are not all 0, take each other back.

A quality rule of silver is `type: custom`, `engine: sparkSQL`, with a condition that a good row fulfils and a
`severity`: `reject` (the default), `warn` or `refuse`. It may have:

=================  ==========================================================================
`threshold`        a number, for `${threshold}` in the condition, or names to numbers, for `${name}`
`source`           where the rule comes from
`maxShare`         with `refuse`: the share of failing rows up to which the file is taken in
=================  ==========================================================================

`retention` is a property of the standard's `slaProperties`, in days, months or years: with the element `bronze` or
`quarantine` how long files stay there, for ever without it; otherwise how long rows do. A custom property that names a
`vendor` is somebody else's. docs/contracts.md has an example of each key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

from contracts.checking import meant
from contracts.dataset import DatasetContract, Lookup
from contracts.errors import ContractError, UnknownDataset
from contracts.marks import Loc, Marked, NotYaml
from contracts.reading import parts, read_values


@dataclass(frozen=True)
class Problem:
    """Something wrong in a contract file."""

    file: str
    line: int
    """Counted from 1."""
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.message}"


def load_contract(path: Path) -> DatasetContract:
    """Read one contract file.

    Raises:
        ContractError: not YAML, not an Open Data Contract, or our own keys are missing or wrong; names the file, and
            line and field of every problem, which are also in its context as `problems`.
        OSError: there is no such file.
    """
    contract, problems = read_contract(path)
    if contract is None or problems:
        told = "; ".join(map(str, problems))
        raise ContractError(
            f"{path.name} is not a valid dataset contract: {told}", problems=[asdict(problem) for problem in problems]
        )
    return contract


def read_contract(path: Path) -> tuple[DatasetContract | None, tuple[Problem, ...]]:
    """Read one contract file, and find all that is wrong with it; the contract is None where that is anything.

    Raises:
        OSError: there is no such file.
    """
    return _read(path.name, path.read_bytes())


# By content, since files are read for each batch and change hardly ever; forked tasks find what was read before.
@lru_cache(maxsize=256)
def _read(name: str, content: bytes) -> tuple[DatasetContract | None, tuple[Problem, ...]]:
    try:
        document = Marked(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return None, (Problem(name, 1, "(the whole file)", f"not UTF-8: byte {error.start} cannot be read"),)
    except NotYaml as error:
        return None, (Problem(name, error.line, "(the whole file)", f"not YAML: {error}"),)
    contract, findings = read_values(document)
    problems = {
        Problem(name, item.line or document.line(item.loc), document.field(item.loc), item.message): None
        for item in findings
    }
    return contract, tuple(sorted(problems, key=lambda problem: problem.line))


def problem_with(path: Path, key: str, message: str) -> Problem:
    """A problem that the file alone does not tell, at one of its custom properties, or at its id without that.

    The file can be read: `read_contract` found nothing wrong with it.
    """
    document = Marked(path.read_text("utf-8"))
    loc: Loc = ("id",)
    for index, item in parts(document.values, "customProperties"):
        if item.get("property") == key:
            loc = ("customProperties", index, "value")
    return Problem(path.name, document.line(loc), document.field(loc), message)


def load_contracts(folder: Path) -> dict[str, DatasetContract]:
    """Read every contract of a folder.

    Returns:
        Dataset name to contract.

    Raises:
        ContractError: a file is not valid, two name the same dataset, or a reference is not there.
    """
    contracts: dict[str, DatasetContract] = {}
    for path in sorted(folder.glob("*.yaml")):
        contract = load_contract(path)
        if contract.dataset in contracts:
            raise ContractError(f"{path.name} names the dataset {contract.dataset}, as another contract does.")
        contracts[contract.dataset] = contract
    for contract in contracts.values():
        if wrong := wrong_references(contract, contracts):
            raise ContractError(f"The contract of {contract.dataset} is not valid: references: {wrong}.")
    return contracts


def wrong_references(contract: DatasetContract, known: Mapping[str, DatasetContract]) -> str:
    """The first thing that is wrong between a contract's lookups and the datasets they name; empty when nothing is."""
    return next(chain.from_iterable(_wrong_lookup(contract, lookup, known) for lookup in contract.references), "")


def _wrong_lookup(contract: DatasetContract, lookup: Lookup, known: Mapping[str, DatasetContract]) -> Iterator[str]:
    if lookup.dataset not in known:
        yield f"{lookup.dataset!r} is no dataset{meant(lookup.dataset, set(known) - {contract.dataset})}"
        return
    reference = known[lookup.dataset]
    if reference.kind != "reference":
        yield f"{lookup.dataset!r} is of the kind {reference.kind!r}, a dataset of the kind 'reference' was expected"
    there = {column.name: column.type for column in reference.silver.columns}
    for name in (lookup.key, *lookup.columns.values()):
        if name not in there:
            yield f"{name!r} is no column of {reference.silver.name}{meant(name, set(there))}"
            return
    own = {column.name: column.type for column in contract.silver.columns}
    if own[lookup.by] != there[lookup.key]:
        yield (
            f"{lookup.by} is {own[lookup.by]}, but {lookup.key} of {reference.silver.name} is {there[lookup.key]}; "
            "one type was expected"
        )
    for table in (contract.features, contract.aggregate):
        for column in table.columns:
            source = lookup.columns.get(column.name)
            if source is not None and column.type != there[source]:
                yield (
                    f"{table.name}.{column.name} is {column.type}, but {source} of {reference.silver.name} is "
                    f"{there[source]}; one type was expected"
                )


def get_contract(contracts: Mapping[str, DatasetContract], dataset: str) -> DatasetContract:
    """The contract of a dataset.

    Raises:
        UnknownDataset: there is none; names those that there are.
    """
    if dataset not in contracts:
        raise UnknownDataset(f"No dataset is called {dataset!r}. Known: {', '.join(sorted(contracts)) or 'none'}.")
    return contracts[dataset]
