"""Many conditions as one: Spark Connect takes expressions that are nested some 50 deep, and no deeper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add, and_, or_

from pyspark.sql import Column
from pyspark.sql import functions as F


def any_of(conditions: Sequence[Column]) -> Column:
    """Whether one of them holds; false without any."""
    return _balanced(or_, conditions) if conditions else F.lit(False)


def all_of(conditions: Sequence[Column]) -> Column:
    """Whether all of them hold; true without any."""
    return _balanced(and_, conditions) if conditions else F.lit(True)


def sum_of(numbers: Sequence[Column]) -> Column:
    """Their sum; 0 without any."""
    return _balanced(add, numbers) if numbers else F.lit(0)


def _balanced(combine: Callable[[Column, Column], Column], columns: Sequence[Column]) -> Column:
    if len(columns) == 1:
        return columns[0]
    middle = len(columns) // 2
    return combine(_balanced(combine, columns[:middle]), _balanced(combine, columns[middle:]))
