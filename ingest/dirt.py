"""The known dirt of published months: spoils some of the generated trips in place, at the shares it has there.

Shares with many digits are counts over 327 million published yellow rows (2009 to 2025); the others are of the right
order of magnitude.
"""

from __future__ import annotations

import numpy as np

from ingest.trips import AMOUNTS, UNKNOWN_ZONES, Columns, Flags

REFUND = 0.014  # fare < 0: all amounts negated
NO_DISTANCE = 0.017
NO_CODES = 0.079  # no passengers, rate code and flag, and what else `PublishedColumn.with_codes` says
NO_TIME = 0.0031  # dropoff at or before pickup
WRONG_YEAR = 6.4e-6
FAR_AWAY = 2.5e-5  # more than 200 miles
DUPLICATE = 4e-5

OVER_A_DAY = 3e-4
WRONG_TOTAL = 0.002
UNKNOWN_PAYMENT = 2e-4
NOWHERE = 0.003  # both zones unknown
NO_PLACE = 0.018  # coordinates of 0
ABSURD_PLACE = 4e-4
BY_DISPATCH = 0.025  # green trips that were ordered, trip type 2


def spoil(random: np.random.Generator, trips: Columns) -> None:
    """Each kind of dirt independently of the others; taxis only."""
    rows = len(trips["pickup"])
    refund = _some(random, rows, REFUND)
    for name in AMOUNTS:
        trips[name][refund] *= -1
    trips["payment"][refund] = 4
    trips["distance"][_some(random, rows, NO_DISTANCE)] = 0
    far = _some(random, rows, FAR_AWAY)
    trips["distance"][far] = random.integers(20_001, 8_000_000, int(far.sum()))
    spoil_times(random, trips)
    repeat_some(random, trips)


def spoil_times(random: np.random.Generator, trips: Columns) -> None:
    """Trips that take no time, and trips of another year."""
    pickup, dropoff = trips["pickup"], trips["dropoff"]
    no_time = _some(random, len(pickup), NO_TIME)
    dropoff[no_time] = pickup[no_time] - random.choice([0, 0, 0, 3600], int(no_time.sum()))
    wrong_year = _some(random, len(pickup), WRONG_YEAR)
    shift = random.choice([-16, -6, -1, 1, 60], int(wrong_year.sum())) * 366 * 86_400
    pickup[wrong_year] += shift
    dropoff[wrong_year] += shift


def repeat_some(random: np.random.Generator, trips: Columns) -> None:
    """Records that are there twice."""
    twice = np.flatnonzero(_some(random, len(trips["pickup"]), DUPLICATE)[1:]) + 1
    for values in trips.values():
        values[twice] = values[twice - 1]


def spoil_further(random: np.random.Generator, trips: Columns) -> None:
    """What `spoil` leaves out; coordinates only where the trips have some."""
    rows = len(trips["pickup"])
    leave_meters_on(random, trips)
    wrong = _some(random, rows, WRONG_TOTAL)
    trips["total_amount"][wrong] += random.choice([-100, 1, 25, 50, 100], int(wrong.sum()))
    trips["payment"][_some(random, rows, UNKNOWN_PAYMENT)] = 5
    lose_zones(random, trips, NOWHERE, NOWHERE)
    if "origin_lon" in trips:
        _spoil_places(random, trips)
    _pair_refunds(trips)


def leave_meters_on(random: np.random.Generator, trips: Columns) -> None:
    """Trips that last longer than a day."""
    long = _some(random, len(trips["pickup"]), OVER_A_DAY)
    trips["dropoff"][long] = trips["pickup"][long] + random.integers(86_401, 5 * 86_400, int(long.sum()))


def lose_zones(random: np.random.Generator, trips: Columns, origins: float, targets: float) -> None:
    """Zones that stand for "unknown" and "outside of the city"."""
    for end, share in (("origin", origins), ("target", targets)):
        lost = _some(random, len(trips[end]), share)
        trips[end][lost] = random.choice(UNKNOWN_ZONES, int(lost.sum()))


def _spoil_places(random: np.random.Generator, trips: Columns) -> None:
    rows = len(trips["pickup"])
    names = ("origin_lon", "origin_lat", "target_lon", "target_lat")
    nowhere, absurd = _some(random, rows, NO_PLACE), _some(random, rows, ABSURD_PLACE)
    for name in names:
        trips[name][nowhere] = 0.0
        trips[name][absurd] = np.round(random.uniform(-3300, 3300, int(absurd.sum())), 6)


def _pair_refunds(trips: Columns) -> None:
    """A refund is a second record of the trip before it, with all amounts negated; a few have no such trip."""
    refund = trips["fare_amount"] < 0
    second = np.flatnonzero(refund[1:] & ~refund[:-1]) + 1
    for values in trips.values():
        values[second] = values[second - 1]
    for name in AMOUNTS:
        trips[name][second] *= -1
    # The trip itself is marked as disputed too.
    trips["payment"][np.concatenate([second, second - 1])] = 4


def _some(random: np.random.Generator, rows: int, share: float) -> Flags:
    return random.random(rows) < share
