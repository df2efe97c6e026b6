"""Clean trips of yellow and green taxis, and what they cost: random values in plausible distributions. No I/O."""

from __future__ import annotations

import calendar
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.tariffs import Tariff

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]
"""Name to values: amounts in cents, distances in hundredths of a mile, times in seconds since 1970 (wall-clock)."""

AMOUNTS = (
    *("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge"),
    *("total_amount", "congestion_surcharge", "airport_fee", "cbd_congestion_fee"),
)

_HOURS = (28, 18, 14, 14, 6, 5, 14, 28, 38, 41, 44, 44, 45, 52, 52, 55, 59, 69, 80, 61, 66, 62, 63, 44)
_WEEKDAYS = (108, 129, 144, 149, 161, 170, 138)
ZONES = 265
UNKNOWN_ZONES = (264, 265)
_AIRPORTS = (132, 138)
_BUSY = (236, 237, 161, 132, 186, 234, 230, 162, 68, 249, 239, 79, 163, 138, 142, 170, 48, 164, 141, 107)
# The zones where yellow taxis alone may take passengers from the street.
_CORE: tuple[int, ...] = (
    *(4, 12, 13, 24, 43, 45, 48, 50, 68, 79, 87, 88, 90, 100, 103, 104, 105, 107, 113, 114, 125, 137, 140, 141, 142),
    *(143, 144, 148, 151, 158, 161, 162, 163, 164, 170, 186, 194, 209, 211, 224, 229, 230, 231, 232, 233, 234, 236),
    *(237, 238, 239, 246, 249, 261, 262, 263),
)


def make_trips(random: np.random.Generator, year: int, month: int, rows: int, green: bool = False) -> Columns:
    """Trips without what they cost, sorted by pickup."""
    pickup = np.sort(pickups(random, year, month, rows))
    weights = _zone_weights(green)
    origin, target = _zones(random, rows, weights), _zones(random, rows, weights)
    to_airport = np.isin(origin, _AIRPORTS) | np.isin(target, _AIRPORTS)
    miles = np.where(to_airport, random.normal(13, 4, rows), random.lognormal(0.5, 0.75, rows)).clip(0.1, 60)
    # Cars go faster at night and on long ways.
    hour = pickup // 3600 % 24
    slow = 8.5 - 2 * ((hour >= 8) & (hour < 19))
    speed = ((slow + 1.2 * miles.clip(0, 25)) * random.lognormal(0, 0.25, rows)).clip(2, 60)
    seconds = (60 + miles / speed * 3600).astype(np.int64)
    rate = random.choice([1, 99, 5, 4, 3], rows, p=[0.979, 0.012, 0.006, 0.002, 0.001])
    rate[to_airport & (random.random(rows) < 0.4)] = 2
    return {
        "vendor": random.choice([1, 2, 6, 7], rows, p=[0.2, 0.7974, 0.0006, 0.002]),
        "pickup": pickup,
        "dropoff": pickup + seconds,
        "passengers": random.choice(7, rows, p=[0.006, 0.797, 0.135, 0.032, 0.018, 0.008, 0.004]),
        "distance": (miles * 100).astype(np.int64),
        "rate": rate,
        "flag": np.where(random.random(rows) < 0.008, "Y", "N").astype(object),
        "origin": origin,
        "target": target,
        "payment": random.choice([1, 2, 4, 3], rows, p=[0.84, 0.13, 0.022, 0.008]),
    }


def make_amounts(random: np.random.Generator, trips: Columns, tariff: Tariff) -> Columns:
    """What clean trips cost."""
    rows = len(trips["vendor"])
    pickup = trips["pickup"].astype(np.int64)
    minutes = (trips["dropoff"] - pickup) / 60
    hour, weekend = pickup // 3600 % 24, (pickup // 86400 + 3) % 7 >= 5
    clicks = np.rint(4 * trips["distance"].astype(float) / 100 + 0.55 * minutes).astype(np.int64)
    core = np.isin(trips["origin"], _CORE) | np.isin(trips["target"], _CORE)
    airport = np.isin(trips["origin"], _AIRPORTS) | np.isin(trips["target"], _AIRPORTS)
    night = (hour >= 20) | (hour < 6)
    fare = np.where(trips["rate"] == 2, tariff.airport_flat, tariff.first + tariff.click * clicks)
    costs = {
        "fare_amount": fare,
        "extra": np.where(night, tariff.night, np.where((hour >= 16) & ~weekend, tariff.peak, 0)),
        "mta_tax": np.where(random.random(rows) < 0.991, tariff.mta_tax, 0),
        "tolls_amount": np.where(random.random(rows) < np.where(airport, 0.4, 0.01), tariff.tolls, 0),
        "improvement_surcharge": np.full(rows, tariff.improvement),
        "congestion_surcharge": np.where(core, tariff.congestion, 0),
        "airport_fee": np.where(np.isin(trips["origin"], _AIRPORTS), tariff.airport, 0),
        "cbd_congestion_fee": np.where(core & (random.random(rows) < 0.85), tariff.cbd, 0),
    }
    before_tip = sum(costs.values())
    share = np.where(random.random(rows) < 0.65, 0.2, random.lognormal(-1.9, 0.5, rows).clip(0, 1))
    tipping = (trips["payment"] == 1) & (random.random(rows) < 0.94)
    tip = np.where(tipping, np.rint(before_tip * share), 0).astype(np.int64)
    return costs | {"tip_amount": tip, "total_amount": before_tip + tip}


def make_places(random: np.random.Generator, trips: Columns) -> Columns:
    """Longitudes and latitudes, in degrees: each zone has a point somewhere in the city, and trips begin around it."""
    places: Columns = {}
    for end in ("origin", "target"):
        zone = trips[end].astype(float)
        # Multiples of the golden ratio spread the zones evenly.
        lon, lat = -74.03 + 0.28 * (zone * 0.618034 % 1), 40.57 + 0.33 * (zone * 0.754878 % 1)
        places[f"{end}_lon"] = np.round(lon + random.normal(0, 0.004, len(zone)), 6)
        places[f"{end}_lat"] = np.round(lat + random.normal(0, 0.003, len(zone)), 6)
    return places


def pickups(random: np.random.Generator, year: int, month: int, rows: int) -> Ints:
    """Instants of a month as busy as the hours of the week are; not sorted."""
    first, days = calendar.monthrange(year, month)
    weights = np.concatenate([_WEEKDAYS[(first + day) % 7] * np.array(_HOURS, dtype=float) for day in range(days)])
    hours = random.choice(days * 24, rows, p=weights / weights.sum())
    start = int(np.datetime64(f"{year}-{month:02d}-01", "s").astype(np.int64))
    return start + hours * 3600 + random.integers(0, 3600, rows)


def _zone_weights(green: bool) -> npt.NDArray[np.float64]:
    weights = np.full(ZONES, 10.0 if green else 0.3)
    weights[np.array(_CORE) - 1] = 0.5 if green else 10
    if not green:
        weights[np.array(_BUSY) - 1] = np.linspace(50, 22, len(_BUSY))
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def _zones(random: np.random.Generator, rows: int, weights: npt.NDArray[np.float64]) -> Ints:
    return 1 + random.choice(ZONES, rows, p=weights)
