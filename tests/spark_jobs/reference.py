"""What should become of each row of a trips file: the contract's judgement in plain Python, without Spark and its SQL.

Columns, codes and thresholds are the contract's; what a rule, a type or a feature means is said here once more, so that
the jobs can be held against it. Rules and derived columns that are not known here fail loudly.
"""

from __future__ import annotations

import calendar
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from contracts.dataset import Column, DatasetContract, Negation, Period, Severity, code_key

Row = Mapping[str, Any]
NEW_YORK = ZoneInfo("America/New_York")
EPOCH = datetime(1970, 1, 1)
_CENT = Decimal("0.01")
_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}


@dataclass(frozen=True)
class Verdict:
    """What should become of one row."""

    reasons: tuple[str, ...]
    """Why it is rejected, in the order of the checks; empty: it is accepted."""
    values: dict[str, Any]
    """Contract column to value, those of derived columns too."""
    warnings: tuple[str, ...]
    """Codes of the rules with the severity `warn` that it fails, in the contract's order."""
    features: dict[str, Any]
    """Column of the features to value; only right for accepted rows."""


@dataclass(frozen=True)
class _Facts:
    """What rules know of a row beside its values."""

    copy: int
    negated: bool
    period: Period | None


def judge(
    rows: Sequence[Row],
    names: Sequence[str],
    contract: DatasetContract,
    period: Period | None,
    reference: Mapping[int, Row],
) -> list[Verdict]:
    """The verdict on each row of one file.

    Args:
        rows: file column to value; times as `datetime`, or microseconds since 1970 where Python has no such year.
        names: the file's columns that are not of the null type.
        period: the month that the file's key names.
        reference: key to row of the one reference dataset that the contract takes columns from.
    """
    found = {name.casefold(): name for name in names}
    columns = [column for column in contract.silver.columns if not column.derived]
    sources = {column.name: next((found[n] for n in column.source_names if n in found), None) for column in columns}
    conformed = [[_conform(row, column, sources[column.name]) for column in columns] for row in rows]
    values = [{c.name: value for c, (value, _) in zip(columns, row, strict=True)} for row in conformed]
    copies = _copies(values)
    negated = _negated(values, contract.negation)
    verdicts = []
    for index, row in enumerate(values):
        bad = {c.name for c, (_, is_bad) in zip(columns, conformed[index], strict=True) if is_bad}
        silver = _clean(row)
        facts = _Facts(copies[index], negated[index], period)
        failed = [rule for rule in contract.rules if RULES[rule.code](silver, facts, rule.thresholds)]
        verdicts.append(
            Verdict(
                reasons=(
                    *_of_columns(columns, sources, row, bad),
                    *(rule.code for rule in failed if rule.severity is Severity.REJECT),
                ),
                values=silver,
                warnings=tuple(rule.code for rule in failed if rule.severity is Severity.WARN),
                features=_features(silver, contract, reference),
            )
        )
    return verdicts


def _of_columns(columns: Sequence[Column], sources: Mapping[str, str | None], row: Row, bad: set[str]) -> list[str]:
    reasons = []
    for column in columns:
        excused = sources[column.name] is None and (column.optional_in_file or bool(column.optional_with))
        if column.name in bad:
            reasons.append(f"bad_{column.name}")
        elif column.required and row[column.name] is None and not excused:
            reasons.append(f"null_{column.name}")
    return reasons


# Types


def _conform(row: Row, column: Column, source: str | None) -> tuple[Any, bool]:
    """A value of the contract's type, and whether one was there that cannot be."""
    raw = row[source] if source else None
    if raw is None:
        return None, False
    if column.codes and code_key(str(raw)) in column.codes:
        return column.codes[code_key(str(raw))], False
    if isinstance(raw, float) and math.isnan(raw):
        return None, False
    value = _cast(raw, column.type)
    return value, value is None


def _cast(raw: Any, kind: str) -> Any:
    """The value as a type; None where it is none of that type."""
    if kind == "string":
        return raw
    if kind == "double":
        return float(raw)
    if kind == "timestamp_ntz":
        return _time(raw)
    if kind in _BITS:
        return _whole(raw, 1 << (_BITS[kind] - 1))
    found = re.fullmatch(r"decimal\((\d+),(\d+)\)", kind)
    assert found, f"no reference for the type {kind}"
    precision, scale = int(found[1]), int(found[2])
    exact = Decimal(raw) if isinstance(raw, str | int) else _micros(raw)
    if exact is None:
        return None
    value = exact.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)
    return value if abs(value) < Decimal(10) ** (precision - scale) else None


def _micros(raw: float) -> Decimal | None:
    """A floating-point amount to six places; what it has beyond them is the noise of its type."""
    return Decimal(raw * 1e6).quantize(Decimal(1), ROUND_HALF_UP).scaleb(-6) if abs(raw) < 1e12 else None


def _time(raw: Any) -> datetime | None:
    if isinstance(raw, datetime):
        return raw
    try:
        return datetime.fromisoformat(raw) if isinstance(raw, str) else EPOCH + timedelta(microseconds=raw)
    except (ValueError, OverflowError):
        return None


def _whole(raw: Any, limit: int) -> int | None:
    if isinstance(raw, str):
        raw = int(raw) if re.fullmatch(r"\s*[+-]?\d+\s*", raw) else None
    elif isinstance(raw, float):
        raw = int(raw) if math.isfinite(raw) and raw == int(raw) else None
    return raw if raw is not None and -limit <= raw < limit else None


# Rows beside each other


def _copies(rows: Sequence[Row]) -> list[int]:
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    copies = []
    for row in rows:
        key = tuple(row.values())
        copies.append(seen[key])
        seen[key] += 1
    return copies


def _negated(rows: Sequence[Row], negation: Negation | None) -> list[bool]:
    if negation is None:
        return [False] * len(rows)
    same = [tuple(row[name] for name in negation.same) for row in rows]
    amounts = [tuple(row[name] for name in negation.negated) for row in rows]
    there = set(zip(same, amounts, strict=True))
    return [
        None not in mine and any(mine) and (key, tuple(-amount for amount in mine)) in there
        for key, mine in zip(same, amounts, strict=True)
    ]


# What the transformation makes


def _clean(row: Row) -> dict[str, Any]:
    flag = (row["store_and_fwd_flag"] or "").strip(" ").upper() or None
    pickup, dropoff = row["pickup_datetime"], row["dropoff_datetime"]
    seconds, odd = (None, None) if pickup is None or dropoff is None else passed(pickup, dropoff)
    return {**row, "store_and_fwd_flag": flag, "duration_seconds": seconds, "_ambiguous_time": odd}


def passed(pickup: datetime, dropoff: datetime) -> tuple[int, bool]:
    """Seconds between two times of New York's clock, by the tz database, and whether they are uncertain."""
    pickup, dropoff = pickup.replace(microsecond=0), dropoff.replace(microsecond=0)
    clock = round((dropoff - pickup).total_seconds())
    if not (_is_odd(pickup) or _is_odd(dropoff)):
        between = dropoff.replace(tzinfo=NEW_YORK).astimezone(UTC) - pickup.replace(tzinfo=NEW_YORK).astimezone(UTC)
        return round(between.total_seconds()), False
    return clock + (3600 if clock <= 0 and _is_twice(pickup) and _is_twice(dropoff) else 0), True


def _is_odd(time: datetime) -> bool:
    first, second = _offsets(time)
    return first != second


def _is_twice(time: datetime) -> bool:
    first, second = _offsets(time)
    return first > second


def _offsets(time: datetime) -> tuple[timedelta, timedelta]:
    """Those of the first and of the second time that the clock shows this; in a gap, those after and before it."""
    first, second = (time.replace(tzinfo=NEW_YORK, fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    assert second is not None
    return first, second


# Rules: whether a row fails; what is null fails none of them, but where a rule is about nulls.

Fails = Callable[[Row, _Facts, Mapping[str, Any]], bool]
_ZONES = ("pickup_location_id", "dropoff_location_id")
_MONEY = ("fare_amount", "total_amount")


def _any(row: Row, names: Sequence[str], fails: Callable[[Any], bool]) -> bool:
    return any(row[name] is not None and fails(row[name]) for name in names)


def _outside_file_month(row: Row, facts: _Facts, limits: Mapping[str, Any]) -> bool:
    if facts.period is None or row["pickup_datetime"] is None:
        return False
    grace = timedelta(days=limits["grace_days"])
    return not facts.period.start - grace <= row["pickup_datetime"] < facts.period.end + grace


def _speed_absurd(row: Row, facts: _Facts, limits: Mapping[str, Any]) -> bool:
    seconds, miles = row["duration_seconds"], row["trip_distance"]
    if seconds is None or miles is None or seconds <= 0:
        return False
    return float(miles) > limits["mph"] / 3600 * seconds


def _totals_do_not_add_up(row: Row, facts: _Facts, limits: Mapping[str, Any]) -> bool:
    if row["fare_amount"] is None or row["total_amount"] is None:
        return False
    parts = ("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "ehail_fee")
    paid = sum((row.get(name) or Decimal(0) for name in parts), Decimal(0))
    surcharge = row["improvement_surcharge"] or Decimal(0)
    others = sum(
        (row.get(name) or Decimal(0) for name in ("congestion_surcharge", "airport_fee", "cbd_congestion_fee")),
        Decimal(0),
    )
    totals = (paid, paid + surcharge, paid + surcharge + others)
    return min(abs(row["total_amount"] - total) for total in totals) > Decimal(str(limits["tolerance"]))


def _coordinates_absurd(row: Row, facts: _Facts, box: Mapping[str, Any]) -> bool:
    longitudes, latitudes = (
        tuple(f"{end}_{name}" for end in ("pickup", "dropoff")) for name in ("longitude", "latitude")
    )
    return _any(row, longitudes, lambda value: not box["west"] <= value <= box["east"]) or _any(
        row, latitudes, lambda value: not box["south"] <= value <= box["north"]
    )


def _seconds_fail(fails: Callable[[int, Mapping[str, Any]], bool]) -> Fails:
    return lambda row, _, t: row["duration_seconds"] is not None and fails(row["duration_seconds"], t)


RULES: dict[str, Fails] = {
    "dropoff_not_after_pickup": _seconds_fail(lambda seconds, t: seconds <= 0),
    "longer_than_a_day": _seconds_fail(lambda seconds, t: seconds > t["hours"] * 3600),
    "outside_file_month": _outside_file_month,
    "negative_amount": lambda row, _, t: _any(row, _MONEY, lambda amount: amount < 0),
    "refund_pair": lambda row, facts, t: facts.negated,
    "repeated_trip": lambda row, facts, t: facts.copy > 0,
    "absurd_amount": lambda row, _, t: _any(row, _MONEY, lambda amount: amount > t["threshold"]),
    "distance_not_positive": lambda row, _, t: _any(row, ["trip_distance"], lambda miles: miles <= 0),
    "distance_absurd": lambda row, _, t: _any(row, ["trip_distance"], lambda miles: miles > t["threshold"]),
    "speed_absurd": _speed_absurd,
    "unknown_zone": lambda row, _, t: _any(row, _ZONES, lambda zone: not 1 <= zone <= t["zones"]),
    "passengers_absurd": lambda row, _, t: _any(row, ["passenger_count"], lambda n: not 0 <= n <= t["threshold"]),
    "zone_outside_or_unknown": lambda row, _, t: _any(row, _ZONES, lambda zone: zone in (t["unknown"], t["outside"])),
    "passengers_missing": lambda row, _, t: not row["passenger_count"],
    "ratecode_unknown": lambda row, _, t: row["ratecode_id"] == t["threshold"],
    "ratecode_not_in_dictionary": lambda row, _, t: row["ratecode_id"] not in (None, 1, 2, 3, 4, 5, 6, 99),
    "payment_unknown": lambda row, _, t: row["payment_type"] == t["threshold"],
    "payment_not_in_dictionary": lambda row, _, t: row["payment_type"] not in (None, 0, 1, 2, 3, 4, 5, 6),
    # Green files have a column more, and no vendors 3 and 7.
    "vendor_not_in_dictionary": lambda row, _, t: (
        row["vendor_id"] not in ((None, 1, 2, 6) if "trip_type" in row else (None, 1, 2, 3, 6, 7))
    ),
    "totals_do_not_add_up": _totals_do_not_add_up,
    "coordinates_absurd": _coordinates_absurd,
}


# Features


def _features(row: Row, contract: DatasetContract, reference: Mapping[int, Row]) -> dict[str, Any]:
    pickup, seconds = row["pickup_datetime"], row["duration_seconds"]
    names = [column.name for column in contract.features.columns]
    if pickup is None:
        return dict.fromkeys(names)
    zones = [row[name] for name in _ZONES]
    miles, fare, total, tip, tolls = (
        None if row[name] is None else float(row[name])
        for name in ("trip_distance", "fare_amount", "total_amount", "tip_amount", "tolls_amount")
    )
    weekday = pickup.isoweekday()
    found = {
        name: reference.get(row[lookup.by], {}).get(source)
        for lookup in contract.references
        for name, source in lookup.columns.items()
    }
    boroughs = [found["pickup_borough"], found["dropoff_borough"]]
    made = found | {
        "borough_pair": None if None in boroughs else "-".join(boroughs),
        "pickup_date": pickup.date(),
        "pickup_hour": pickup.replace(minute=0, second=0, microsecond=0),
        "hour_of_day": pickup.hour,
        "day_of_week": weekday,
        "day_of_month": pickup.day,
        "month": pickup.month,
        "is_weekend": weekday in (6, 7),
        "is_holiday": pickup.date() in holidays(pickup.year),
        "is_rush_hour": weekday <= 5 and 16 <= pickup.hour < 20,
        "is_night": pickup.hour >= 20 or pickup.hour < 6,
        "is_same_zone": None if None in zones else zones[0] == zones[1],
        "is_airport": None if None in zones else any(zone in (1, 132, 138) for zone in zones),
        "log_distance": None if miles is None or miles < 0 else math.log1p(miles),
        "distance_bucket": None if miles is None else sum(miles >= bound for bound in (1, 2, 5, 10, 20)),
        "log_fare": None if fare is None or fare < 0 else math.log1p(fare),
        "duration_minutes": None if seconds is None else seconds / 60,
        "speed_mph": _ratio(miles, seconds, 3600),
        "miles_per_minute": _ratio(miles, seconds, 60),
        "fare_per_mile": _ratio(fare, miles),
        "fare_per_minute": _ratio(fare, seconds, 60),
        "tip_share": _ratio(tip, total),
        "tolls_share": _ratio(tolls, total),
    }
    return {name: made[name] if name in made else row[name] for name in names}


def _ratio(part: float | None, whole: float | None, factor: int = 1) -> float | None:
    return None if part is None or not whole else part * factor / whole


def holidays(year: int) -> set[date]:
    """Federal holidays of a year, on the day itself (5 U.S.C. 6103)."""
    found = {date(year, 1, 1), date(year, 7, 4), date(year, 11, 11), date(year, 12, 25)}
    found |= {_nth(year, 1, calendar.MONDAY, 2), _nth(year, 2, calendar.MONDAY, 2), _nth(year, 5, calendar.MONDAY, -1)}
    found |= {
        _nth(year, 9, calendar.MONDAY, 0),
        _nth(year, 10, calendar.MONDAY, 1),
        _nth(year, 11, calendar.THURSDAY, 3),
    }
    return found | ({date(year, 6, 19)} if year >= 2021 else set())


def _nth(year: int, month: int, weekday: int, place: int) -> date:
    days = [day for day in calendar.Calendar().itermonthdates(year, month) if day.month == month]
    return [day for day in days if day.weekday() == weekday][place]
