"""Trips of for-hire vehicles, which tell little: two times, two zones and the bases that sent the car. No I/O."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.dirt import leave_meters_on, lose_zones, repeat_some, spoil_times
from ingest.trips import ZONES, Columns, pickups

_BASES = 700
NO_ORIGIN, NO_TARGET, NO_AFFILIATION = 0.32, 0.055, 0.006  # null; shares of a sample of 2020-04
LOST_ORIGIN, LOST_TARGET = 0.1, 0.05  # zones 264 and 265
PADDED = 0.01  # bases with blanks behind them
SHARED = 0.2


def make_fhv_trips(random: np.random.Generator, year: int, month: int, rows: int) -> Columns:
    """Trips, dirt and all; NaN and None stand for null."""
    pickup = np.sort(pickups(random, year, month, rows))
    base = random.integers(0, _BASES, rows)
    elsewhere = random.random(rows) < 0.15
    trips: Columns = {
        "base": _base_names(base),
        "pickup": pickup,
        "dropoff": pickup + random.lognormal(6.7, 0.7, rows).clip(30, 20_000).astype(np.int64),
        "origin": random.integers(1, ZONES - 1, rows).astype(float),
        "target": random.integers(1, ZONES - 1, rows).astype(float),
        "shared": np.where(random.random(rows) < SHARED, 1.0, np.nan),
        "affiliated": _base_names(np.where(elsewhere, random.integers(0, _BASES, rows), base)),
    }
    spoil_times(random, trips)
    leave_meters_on(random, trips)
    lose_zones(random, trips, LOST_ORIGIN, LOST_TARGET)
    trips["origin"][random.random(rows) < NO_ORIGIN] = np.nan
    trips["target"][random.random(rows) < NO_TARGET] = np.nan
    padded = random.random(rows) < PADDED
    trips["base"][padded] += " " * 10
    trips["affiliated"][random.random(rows) < NO_AFFILIATION] = None
    repeat_some(random, trips)
    return trips


_NAMES = np.array([f"B{(number * 97 + 13) % 3500:05d}" for number in range(_BASES)], dtype=object)


def _base_names(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    names: npt.NDArray[Any] = _NAMES[numbers]
    return names
