"""Many conditions, numbers or frames as one balanced tree: Spark Connect takes what is nested some 50 deep at most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add, and_, or_
from typing import TypeVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

_Part = TypeVar("_Part")


def any_of(conditions: Sequence[Column]) -> Column:
    """Whether one of them holds; false without any."""
    return _balanced(or_, conditions) if conditions else F.lit(False)


def all_of(conditions: Sequence[Column]) -> Column:
    """Whether all of them hold; true without any."""
    return _balanced(and_, conditions) if conditions else F.lit(True)


def sum_of(numbers: Sequence[Column]) -> Column:
    """Their sum; 0 without any."""
    return _balanced(add, numbers) if numbers else F.lit(0)


def union_of(frames: Sequence[DataFrame]) -> DataFrame:
    """The rows of all frames, one or more, whose columns have the same names."""
    return _balanced(DataFrame.unionByName, frames)


def _balanced(combine: Callable[[_Part, _Part], _Part], parts: Sequence[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return combine(_balanced(combine, parts[:middle]), _balanced(combine, parts[middle:]))
