"""Spark's column types as contracts name them: which there are, what fits them, what Iceberg widens in place."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches

_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}
_FLOATS = ("float", "double")
_PLAIN = (*_BITS, *_FLOATS, "string", "boolean", "date", "timestamp", "timestamp_ntz")
_OTHER_NAMES = {
    "byte": "tinyint", "short": "smallint", "integer": "int", "long": "bigint", "real": "float",
    "numeric": "decimal(p,s)", "number": "decimal(p,s)", "decimal": "decimal(p,s)", "dec": "decimal(p,s)",
    "text": "string", "varchar": "string", "char": "string", "str": "string", "bool": "boolean",
    "datetime": "timestamp_ntz", "timestamp_ltz": "timestamp", "timestamptz": "timestamp",
}  # fmt: skip
"""What other systems, or Spark too, call a type; a contract has one name for each."""
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)")
MAX_PRECISION = 38


def parse_type(text: str) -> str:
    """A column's type as the code compares it: small letters, no blanks, for example `decimal(10,2)`.

    Raises:
        ValueError: Spark has no such type, or a contract cannot have it; says which was meant, or which there are.
    """
    name = text.strip().lower()
    if name in _PLAIN:
        return name
    if found := _DECIMAL.fullmatch(name):
        precision, scale = int(found[1]), int(found[2])
        if 1 <= precision <= MAX_PRECISION and scale <= precision:
            return f"decimal({precision},{scale})"
        raise ValueError(f"{text!r} is no decimal: 1 to {MAX_PRECISION} digits, of which at most all behind the point")
    base = name.partition("(")[0]
    meant = _OTHER_NAMES.get(base) or next(iter(get_close_matches(base, _PLAIN, 1)), None)
    hint = f"did you mean {meant}? " if meant else ""
    raise ValueError(f"{text!r} is not a column's type; {hint}expected one of {', '.join(_PLAIN)}, decimal(p,s)")


def digits_of(kind: str) -> tuple[int, int] | None:
    """Precision and scale of a decimal type; None for any other."""
    found = _DECIMAL.fullmatch(kind)
    return (int(found[1]), int(found[2])) if found else None


def fits(value: object, kind: str) -> bool:
    """Whether a value of a contract can be one of a column, without being rounded, cut or read as another type.

    Args:
        value: as YAML has it; days and moments as ISO 8601 text.
        kind: as `parse_type` gives it.
    """
    if kind in _BITS:
        limit = 1 << (_BITS[kind] - 1)
        return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit
    if kind in _FLOATS or digits_of(kind):
        return not isinstance(value, bool) and isinstance(value, int | float) and _is_number(value, digits_of(kind))
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    return isinstance(value, str) and _is_moment(value, kind)


def promotes(old: str, new: str) -> bool:
    """Whether Iceberg takes a column from one type to another without rewriting files, or they are stored alike.

    Source: Iceberg's table specification, "Schema Evolution": int to bigint, float to double, more digits of a decimal.
    """
    old, new = stored(old), stored(new)
    if old == new or (old, new) in (("int", "bigint"), ("float", "double")):
        return True
    before, after = digits_of(old), digits_of(new)
    return bool(before and after and after[1] == before[1] and after[0] >= before[0])


def stored(kind: str) -> str:
    """The type that Iceberg keeps a column in: it has no whole numbers of fewer than 32 bits."""
    return "int" if kind in ("tinyint", "smallint") else kind


def _is_number(value: float, digits: tuple[int, int] | None) -> bool:
    try:
        exact = Decimal(str(value))
    except InvalidOperation:
        return False
    if not exact.is_finite():
        return False
    if digits is None:
        return True
    precision, scale = digits
    places = -int(exact.normalize().as_tuple().exponent)
    return abs(exact) < Decimal(10) ** (precision - scale) and places <= scale


def _is_moment(text: str, kind: str) -> bool:
    try:
        date.fromisoformat(text) if kind == "date" else datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
