"""Contracts that differ from a small valid one, as text whose lines can be counted."""

from __future__ import annotations

from pathlib import Path

from contracts.dataset import DatasetContract
from contracts.loading import load_contract

SMALL = """\
apiVersion: v3.1.0
kind: DataContract
id: rides
name: Rides
version: 1.2.0
status: active
team: {name: data-platform}
customProperties:
  - {property: path, value: '.+[.]parquet'}
  - {property: period, value: '(?P<year>[0-9]{4})-(?P<month>[0-9]{2})'}
  - {property: transforms, value: nyc_taxi}
  - {property: aggregateBy, value: day}
schema:
  - name: silver
    physicalName: silver.rides
    properties:
      - name: zone
        physicalType: int
        required: true
        synonyms: [{synonym: PULocationID}]
      - name: payment
        physicalType: int
      - name: fare
        physicalType: decimal(10,2)
        required: true
        customProperties: [{property: unit, value: USD}]
      - name: started
        physicalType: timestamp_ntz
    quality:
      - name: fare_absurd
        type: custom
        engine: sparkSQL
        implementation: fare <= ${threshold}
        customProperties: [{property: threshold, value: 5000}]
      - name: negative_fare
        type: custom
        engine: sparkSQL
        implementation: fare >= 0
  - name: features
    physicalName: gold.rides_features
    properties:
      - {name: day, physicalType: date}
      - {name: speed, physicalType: float, customProperties: [{property: unit, value: mile/hour}]}
  - name: aggregate
    physicalName: gold.rides_zone_hour
    properties:
      - {name: day, physicalType: date}
      - {name: trips, physicalType: int}
"""

REFERENCE = """\
apiVersion: v3.1.0
kind: DataContract
id: zones
version: 1.0.0
customProperties:
  - {property: path, value: '.+[.]parquet'}
  - {property: kind, value: reference}
schema:
  - name: silver
    physicalName: silver.zones
    properties:
      - {name: zone, physicalType: int, required: true}
      - {name: name, physicalType: string}
"""

LOOKUP = "{dataset: zones, key: zone, by: zone, columns: {zone_name: name}}"


def refers(lookups: str = LOOKUP) -> tuple[tuple[str, str], ...]:
    """Edits of the small contract: its lookups, and a column of the features that holds the zone's name."""
    named = "      - {name: day, physicalType: date}\n      - {name: zone_name, physicalType: string}\n"
    return (
        ("schema:\n", f"  - {{property: references, value: [{lookups}]}}\nschema:\n"),
        ("      - {name: day, physicalType: date}\n      - {name: speed", f"{named}      - {{name: speed"),
    )


def changed(*edits: tuple[str, str], text: str = SMALL) -> str:
    """The text with some of its parts replaced, each of which is there once."""
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def line_of(text: str, part: str) -> int:
    """The line of the only place where a part of a text is; counted from 1."""
    assert text.count(part) == 1, part
    return text[: text.index(part)].count("\n") + 1


def load(folder: Path, *edits: tuple[str, str], text: str = SMALL) -> DatasetContract:
    """The contract with some parts of its text replaced."""
    file = folder / "rides.yaml"
    file.write_text(changed(*edits, text=text), "utf-8")
    return load_contract(file)
