"""Pictures of a column's distribution, for a terminal and for a page. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.drift import share_below
from contracts.profile import ColumnProfile

BARS = 20
_BLOCKS = " ▁▂▃▄▅▆▇█"


def axis(*columns: ColumnProfile) -> tuple[float, float] | None:
    """From where to where to draw: nine tenths of each column's values are between; None where there are no numbers.

    A few far values would make one bar of all others; those beyond belong to the outermost bars.
    """
    known = [column.quantiles for column in columns if column.quantiles]
    if not known:
        return None
    return min(found[1] for found in known), max(found[-2] for found in known)


def shares(quantiles: Sequence[float], low: float, high: float, bars: int = BARS) -> list[float]:
    """The share of values in each of some bars of equal width; their sum is 1.

    Args:
        low: the first bar holds whatever is below, too; `high`, the last one whatever is above.
    """
    if high <= low:
        return [1.0]
    edges = [share_below(quantiles, low + (high - low) * bar / bars) for bar in range(1, bars)]
    return [above - below for below, above in zip([0.0, *edges], [*edges, 1.0], strict=True)]


def blocks(heights: Sequence[float]) -> str:
    """A line of block characters, the highest of which stands for the largest share; any share at all shows."""
    most = max(heights, default=0.0)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[max(1, round(height / most * steps)) if height > 0 else 0] for height in heights)


def sketch(column: ColumnProfile) -> str:
    """A column on a line: the commonest values with their shares, blocks for numbers without such, else nothing."""
    span = axis(column)
    if column.values or span is None:
        return ", ".join(f"{name} {share:.0%}" for name, share in commonest(column, 3))
    return blocks(shares(column.quantiles, *span))


def commonest(column: ColumnProfile, most: int) -> list[tuple[str, float]]:
    """The values of most rows, and the share of each among the rows that were counted, 0 to 1."""
    counted = sum(column.values.values()) + column.untold
    return [(name, count / counted) for name, count in list(column.values.items())[:most]]
