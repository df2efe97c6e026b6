"""Conditions of quality rules: thresholds put into their places, and the names that a condition uses. No SQL parser."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_PLACE = re.compile(r"(?<![\w.$])\$\{(\w+)\}(?![\w.])")
"""Not beside a digit or letter, with which the number would run together."""
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r"`((?:[^`]|``)+)`|(?<![\w.])([A-Za-z_]\w*)(?!\s*\()(?!\w)")
_BIGINT = 1 << 63


def fill_in(template: str, thresholds: Mapping[str, float]) -> str:
    """A condition with the thresholds in the places of `${name}`.

    A whole number becomes an int of Spark's (a bigint above 32 bits), any other a double; a negative one stands in
    parentheses, since `--` begins a comment.

    Raises:
        ValueError: a place names no threshold, stands in a text or beside a letter; a threshold has no place, or is no
            number that Spark can read.
    """
    bare = _TEXT.sub("''", _COMMENT.sub(" ", template))
    places = _PLACE.findall(bare)
    known = ", ".join(thresholds) or "none"
    for name in places:
        if name not in thresholds:
            raise ValueError(f"${{{name}}} is not a threshold of this rule, which has {known}")
    if len(places) != template.count("${"):
        raise ValueError("a place for a threshold is ${name}, outside of texts and comments, with nothing beside it")
    unused = [name for name in thresholds if name not in places]
    if unused:
        raise ValueError(f"the threshold {unused[0]!r} has no place ${{{unused[0]}}} in the condition")
    return _PLACE.sub(lambda found: _literal(thresholds[found[1]]), template)


def names_in(condition: str) -> set[str]:
    """The names in a condition, in small letters: keywords too, but no functions and nothing that stands in a text."""
    bare = _TEXT.sub(" ", _COMMENT.sub(" ", condition))
    return {(quoted.replace("``", "`") or plain).lower() for quoted, plain in _NAME.findall(bare)}


def _literal(number: float) -> str:
    if isinstance(number, int):
        if not -_BIGINT < number < _BIGINT:
            raise ValueError(f"{number} is beyond 64 bits; a threshold is an int, a bigint or a double")
        shown = str(number)
    else:
        if not math.isfinite(number):
            raise ValueError(f"{number} is no threshold; a number was expected")
        # Without the D, Spark reads a decimal.
        shown = f"{number!r}D"
    return f"({shown})" if shown.startswith("-") else shown
