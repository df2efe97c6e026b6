"""What a taxi trip cost in a month: the TLC's tariffs, rounded to what makes plausible data. A table, no I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tariff:
    """The parts of a fare, in cents."""

    first: int
    click: int
    """For each fifth of a mile, and for each minute about half of it."""
    airport_flat: int
    night: int
    peak: int
    mta_tax: int
    tolls: int
    improvement: int
    congestion: int
    airport: int
    cbd: int


def tariff(year: int, month: int, green: bool = False) -> Tariff:
    """The tariff in force for most of a month."""
    at = (year, month)
    raised = at >= (2023, 1)
    return Tariff(
        first=300 if raised else 250,
        click=70 if raised else 50 if at >= (2012, 9) else 40,
        airport_flat=7000 if raised else 5200 if at >= (2012, 9) else 4500,
        night=100 if raised else 50,
        peak=250 if raised else 100,
        mta_tax=50 if at >= (2009, 11) else 0,
        tolls=_tolls(year),
        improvement=100 if raised else 30 if at >= (2015, 1) else 0,
        congestion=(275 if green else 250) if at >= (2019, 2) else 0,
        airport=0 if at < (2021, 1) or green else 175 if raised else 125,
        cbd=75 if at >= (2025, 1) else 0,
    )


def _tolls(year: int) -> int:
    """One bridge or tunnel with E-ZPass."""
    steps = {2009: 415, 2010: 457, 2011: 480, 2013: 533, 2015: 554, 2017: 576, 2019: 612, 2021: 655, 2023: 694}
    return steps[max(since for since in steps if since <= year)]
