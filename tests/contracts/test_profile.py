"""Keys of profiles, and how far two of them are apart."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.drift import Level, distance, drift, level
from contracts.loading import load_contracts
from contracts.profile import STEPS, ColumnProfile, Profile, key_of_the_month_before
from contracts.settings import load_settings

YELLOW = load_contracts(load_settings().contracts_dir)["nyc_yellow"]
ZONES = load_contracts(load_settings().contracts_dir)["taxi_zones"]
NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=STEPS + 1, max_size=STEPS + 1).map(sorted)
VALUES = st.dictionaries(st.text(max_size=3), st.integers(1, 1000), min_size=1, max_size=20)


def number(*quantiles: float, nulls: int = 0) -> ColumnProfile:
    return ColumnProfile(name="n", type="int", nulls=nulls, quantiles=quantiles)


def text(values: dict[str, int], most: int = 20) -> ColumnProfile:
    """A column of some values, of which a profile tells so many."""
    told = dict(sorted(values.items(), key=lambda item: -item[1])[:most])
    return ColumnProfile(name="t", type="string", nulls=0, values=told, counted=sum(values.values()))


COLUMNS = st.one_of(NUMBERS.map(lambda found: number(*found)), VALUES.map(text))


def profile(rows_in: int, accepted: int, *columns: ColumnProfile) -> Profile:
    return Profile(
        bucket="bronze", key="k", etag="e", dataset="d", snapshot_id=1, made_at=datetime(2026, 1, 1, tzinfo=UTC),
        rows_in=rows_in, rows_accepted=accepted, rows_rejected=rows_in - accepted, columns=columns,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("nyc_yellow/yellow_tripdata_2025-03.parquet", "nyc_yellow/yellow_tripdata_2025-02.parquet"),
        ("nyc_yellow/2025/a b+%_2025-01.parquet", "nyc_yellow/2025/a b+%_2024-12.parquet"),
        ("nyc_yellow/yellow.parquet", None),
        ("nyc_yellow/yellow_2025-13.parquet", None),
    ],
)
def test_file_of_the_month_before_is_named_alike(key: str, before: str | None) -> None:
    assert key_of_the_month_before(YELLOW, key) == before


def test_dataset_without_months_has_none_before() -> None:
    assert key_of_the_month_before(ZONES, "taxi_zones/zones_2025-03.parquet") is None


@given(COLUMNS)
def test_column_is_at_no_distance_from_itself(column: ColumnProfile) -> None:
    assert distance(column, column) == 0


@given(st.one_of(st.tuples(NUMBERS, NUMBERS).map(lambda two: tuple(number(*found) for found in two)),
                 st.tuples(VALUES, VALUES).map(lambda two: tuple(text(found) for found in two))))  # fmt: skip
def test_distance_is_the_same_both_ways_and_from_0_to_1(two: tuple[ColumnProfile, ColumnProfile]) -> None:
    there, back = distance(*two), distance(*reversed(two))
    assert there == pytest.approx(back, abs=1e-9)
    assert there is not None
    assert 0 <= there <= 1 + 1e-9


def test_values_that_have_nothing_in_common_are_at_distance_1() -> None:
    assert distance(number(0, 1, 2), number(3, 4, 5)) == 1
    assert distance(number(0, 0, 0), number(1, 1, 1)) == 1
    assert distance(text({"a": 5}), text({"b": 1})) == 1


def test_distance_of_numbers_is_the_largest_gap_between_the_shares_below_a_value() -> None:
    # Half of the values moved from below 10 to above 20.
    assert distance(number(0, 5, 10, 15, 20), number(10, 15, 20, 25, 30)) == pytest.approx(0.5)


def test_distance_of_texts_is_the_share_of_rows_with_other_values() -> None:
    assert distance(text({"a": 50, "b": 50}), text({"a": 3, "b": 1})) == pytest.approx(0.25)


@given(VALUES, VALUES, st.integers(1, 20))
def test_texts_of_which_not_all_are_told_are_no_further_apart_than_they_are(
    one: dict[str, int], other: dict[str, int], most: int
) -> None:
    there, back = distance(text(one, most), text(other, most)), distance(text(other, most), text(one, most))
    all_told = distance(text(one), text(other))
    assert there is not None
    assert all_told is not None
    assert there == pytest.approx(back, abs=1e-9)
    assert -1e-9 <= there <= all_told + 1e-9


def test_texts_that_are_all_alike_rare_did_not_drift_when_others_are_the_commonest() -> None:
    bases = {f"B{number:05}": 1000 for number in range(100)}
    # By chance other twenty are the commonest.
    now, before = ({name: rows + (place in lucky) for place, (name, rows) in enumerate(bases.items())}
                   for lucky in (range(20), range(50, 70)))  # fmt: skip
    assert distance(text(now), text(before)) == pytest.approx(0, abs=0.001)


def test_texts_whose_rows_went_to_many_new_values_drifted() -> None:
    before = {f"B{number}": 500 for number in range(20)}
    now = {name: 250 for name in before} | {f"new{number}": 1 for number in range(5000)}
    assert distance(text(now), text(before)) == pytest.approx(0.5)
    assert distance(text({"a": 80} | {f"x{n}": 1 for n in range(20)}, 1), text({"b": 1})) == pytest.approx(0.8)


def test_profile_from_before_values_were_counted_is_read_as_telling_all() -> None:
    old = ColumnProfile.model_validate_json('{"name": "t", "type": "string", "nulls": 0, "values": {"a": 3, "b": 1}}')
    assert old.untold == 0
    assert distance(old, text({"a": 50, "b": 50})) == pytest.approx(0.25)


def test_column_of_another_kind_is_at_no_known_distance() -> None:
    assert distance(number(0, 1), text({"a": 1})) is None
    assert distance(ColumnProfile(name="t", type="timestamp_ntz", nulls=0), number(0, 1)) is None


def test_drift_tells_rows_rejects_and_nulls() -> None:
    found = drift(profile(200, 100, number(0, 1, nulls=30)), profile(100, 100, number(0, 1)))
    assert (found.rows, found.rejected) == (1.0, 0.5)
    assert [(c.name, c.distance, c.nulls, c.level) for c in found.columns] == [("n", 0.0, 0.3, Level.DRIFTED)]


def test_drift_against_a_file_without_rows_tells_of_no_growth() -> None:
    assert drift(profile(1, 1), profile(0, 0)).rows is None


def test_levels_begin_at_a_tenth_and_a_quarter() -> None:
    assert [level(at) for at in (0, 0.099, 0.1, 0.249, 0.25, 1)] == [
        *(Level.STEADY, Level.STEADY, Level.MOVED, Level.MOVED, Level.DRIFTED, Level.DRIFTED)
    ]


@given(COLUMNS)
def test_profile_survives_json(column: ColumnProfile) -> None:
    made = profile(3, 2, column)
    assert Profile.model_validate_json(made.model_dump_json()) == made
