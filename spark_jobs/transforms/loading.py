"""Find the transformations that a dataset contract names."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from pyspark.sql import DataFrame

from contracts.dataset import DatasetContract
from contracts.errors import ContractError


class Transforms(Protocol):
    """What a module of `spark_jobs.transforms` offers."""

    def clean(self, df: DataFrame) -> DataFrame:
        """Silver columns, conformed, to silver columns with missing and untidy values handled; same rows."""
        ...

    def features(self, df: DataFrame) -> DataFrame:
        """Silver rows to feature rows, one each; further columns are kept."""
        ...

    def aggregate(self, df: DataFrame) -> DataFrame:
        """Feature rows to aggregate rows."""
        ...


class _Unchanged:
    """The transformations of a reference that names none: its rows stay as they are, and it has no gold."""

    def clean(self, df: DataFrame) -> DataFrame:
        return df

    def features(self, df: DataFrame) -> DataFrame:
        raise ContractError("A reference dataset has no features; only datasets of the kind `trips` have.")

    aggregate = features


def load_transforms(contract: DatasetContract) -> Transforms:
    """The transformations of a dataset. A reference may have none, and needs `clean` alone.

    Raises:
        ContractError: there is no such module, or it lacks one of the functions.
    """
    if contract.transforms is None:
        return _Unchanged()
    name = f"spark_jobs.transforms.{contract.transforms}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ContractError(
            f"The contract of {contract.dataset} names the transforms {contract.transforms!r}, but there is no module "
            f"{name}. Add it, or correct `transforms`."
        ) from error
    missing = [function for function in contract.transform_functions if not hasattr(module, function)]
    if missing:
        raise ContractError(f"The module {name} lacks {', '.join(missing)}, which {contract.dataset} needs.")
    return cast(Transforms, module)
