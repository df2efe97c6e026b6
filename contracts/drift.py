"""Decision: how far the rows of one file are from those of another. No I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from contracts.profile import ColumnProfile, Profile

MOVED, DRIFTED = 0.1, 0.25
"""Distances from which a column counts as moved and as drifted: a tenth, and a quarter, of the rows would have to have
other values for the two to be alike. The same two numbers are the custom for the population stability index."""


class Level(StrEnum):
    """How far apart two files are."""

    STEADY = "steady"
    MOVED = "moved"
    DRIFTED = "drifted"


class ColumnDrift(NamedTuple):
    """How far a column is from what it was."""

    name: str
    distance: float | None
    """0 to 1: the largest gap between the two distributions; None where there is nothing to hold against another."""
    nulls: float
    """The share of nulls less that of before, -1 to 1."""

    @property
    def level(self) -> Level | None:
        """By whichever is further; None where there is neither a distance nor another share of nulls."""
        return level(max(self.distance or 0.0, abs(self.nulls))) if self.distance is not None or self.nulls else None


class Drift(NamedTuple):
    """How far a file is from another."""

    rows: float | None
    """Rows in by those of before, less 1; None where there were none."""
    rejected: float
    """The share of rejected rows less that of before."""
    columns: tuple[ColumnDrift, ...]
    """Those that both have, in the newer one's order."""


def level(distance: float) -> Level:
    """What a distance of 0 to 1 is called."""
    if distance >= DRIFTED:
        return Level.DRIFTED
    return Level.MOVED if distance >= MOVED else Level.STEADY


def drift(now: Profile, before: Profile) -> Drift:
    """How far a file's rows are from those of another, column by column."""
    earlier = {column.name: column for column in before.columns}
    pairs = [(column, earlier[column.name]) for column in now.columns if column.name in earlier]
    return Drift(
        rows=now.rows_in / before.rows_in - 1 if before.rows_in else None,
        rejected=_share(now.rows_rejected, now.rows_in) - _share(before.rows_rejected, before.rows_in),
        columns=tuple(
            ColumnDrift(
                new.name,
                distance(new, old),
                _share(new.nulls, now.rows_accepted) - _share(old.nulls, before.rows_accepted),
            )
            for new, old in pairs
        ),
    )


def distance(one: ColumnProfile, other: ColumnProfile) -> float | None:
    """The largest gap between the distributions of two columns' values that are not null, 0 to 1.

    Of texts and codes half the sum of the differences of the values' shares, and where a profile does not tell all
    values, what it is at the least; of other numbers that of Kolmogorov and Smirnov, by the quantiles, so up to a
    twentieth off. None where either has neither, as times have not.
    """
    if one.values and other.values:
        # Without the values that are not told either may come out lower, so the larger is nearer.
        return max(_surplus(one, other), _surplus(other, one))
    if one.quantiles and other.quantiles:
        return _gap(one.quantiles, other.quantiles)
    return None


def _gap(one: Sequence[float], other: Sequence[float]) -> float:
    # The gap is largest at, or right before, one of the places where either rises.
    places = {*one, *other}
    return max(
        abs(share_below(one, place, strictly) - share_below(other, place, strictly))
        for place in places
        for strictly in (True, False)
    )


def share_below(quantiles: Sequence[float], at: float, strictly: bool = False) -> float:
    """The share of values up to a number, or strictly below it, 0 to 1; by two quantiles or more, evenly spaced."""
    last = len(quantiles) - 1
    place = bisect_left(quantiles, at) if strictly else bisect_right(quantiles, at)
    if place == 0:
        return 0.0
    if place > last:
        return 1.0
    low, high = quantiles[place - 1], quantiles[place]
    # Between two quantiles the values are taken to lie evenly.
    return (place - 1 + ((at - low) / (high - low) if high > low else 0.0)) / last


def _surplus(one: ColumnProfile, other: ColumnProfile) -> float:
    """By how much at the least the values of `one` have larger shares there than in `other`, all in all.

    With all values told it is half the sum of the differences, and the same both ways. A value that `other` does not
    tell has at most the share of the rarest that it does, and all such together what it does not tell.
    """
    shares, others = _shares(one.values, one.untold), _shares(other.values, other.untold)
    missing = [share for name, share in shares.items() if name not in others]
    told = sum(max(0.0, share - others[name]) for name, share in shares.items() if name in others)
    untold = _share(other.untold, sum(other.values.values()) + other.untold)
    rarest = min(others.values())
    return told + max(sum(max(0.0, share - rarest) for share in missing), sum(missing) - untold)


def _shares(values: Mapping[str, int], untold: int) -> dict[str, float]:
    whole = sum(values.values()) + untold
    return {name: _share(rows, whole) for name, rows in values.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
