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


def first_that_takes(value: Column, ends: Sequence[tuple[str, str]]) -> Column:
    """The name beside the first of some ends, in order, that is not less than a value; the last name where none is."""
    if len(ends) == 1:
        return F.lit(ends[0][1])
    middle = len(ends) // 2
    lower, upper = first_that_takes(value, ends[:middle]), first_that_takes(value, ends[middle:])
    return F.when(value <= ends[middle - 1][0], lower).otherwise(upper)


def union_of(frames: Sequence[DataFrame]) -> DataFrame:
    """The rows of all frames, one or more, whose columns have the same names."""
    return _balanced(DataFrame.unionByName, frames)


def _balanced(combine: Callable[[_Part, _Part], _Part], parts: Sequence[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return combine(_balanced(combine, parts[:middle]), _balanced(combine, parts[middle:]))
