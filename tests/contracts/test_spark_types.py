"""Types of columns: which there are, what fits them, what Iceberg widens."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.spark_types import fits, parse_type, promotes


@pytest.mark.parametrize(
    ("text", "kind"),
    [("INT", "int"), (" decimal( 10 , 2 ) ", "decimal(10,2)"), ("timestamp_ntz", "timestamp_ntz"), ("Date", "date")],
)
def test_type_is_written_one_way(text: str, kind: str) -> None:
    assert parse_type(text) == kind


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("integer", "int"),
        ("long", "bigint"),
        ("varchar(20)", "string"),
        ("tinyin", "tinyint"),
        ("decimal", "decimal(p,s)"),
    ],
)
def test_type_that_spark_calls_otherwise_is_told_with_the_one_that_was_meant(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match="not a column's type") as raised:
        parse_type(text)
    assert f"did you mean {meant}?" in str(raised.value)


@pytest.mark.parametrize("text", ["decimal(39,0)", "decimal(0,0)", "decimal(2,3)", "decimal(2)", "", "struct<a:int>"])
def test_type_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|digits"):
        parse_type(text)


@given(st.text(max_size=20))
def test_any_text_is_a_type_that_reads_back_or_is_refused(text: str) -> None:
    try:
        kind = parse_type(text)
    except ValueError:
        return
    assert parse_type(kind) == kind


@pytest.mark.parametrize(
    ("value", "kind", "does"),
    [
        (127, "tinyint", True), (128, "tinyint", False), (True, "int", False), (1.0, "int", False), ("1", "int", False),
        (2**63 - 1, "bigint", True), (2**63, "bigint", False),
        (1, "double", True), (float("nan"), "double", False), (False, "double", False),
        (0.01, "decimal(10,2)", True), (0.001, "decimal(10,2)", False), (10**8, "decimal(10,2)", False),
        (99999999.99, "decimal(10,2)", True), (100, "decimal(3,0)", True),
        ("a", "string", True), (1, "string", False), (True, "boolean", True), (1, "boolean", False),
        ("2020-01-31", "date", True), ("2020-02-31", "date", False), ("2020-01-31 10:00", "timestamp_ntz", True),
        ("noon", "timestamp", False),
    ],
)  # fmt: skip
def test_value_fits_a_type_that_holds_it_as_it_is(value: object, kind: str, does: bool) -> None:
    assert fits(value, kind) is does


@given(st.integers(-(10**9), 10**9), st.integers(0, 9))
def test_number_fits_a_decimal_exactly_when_it_comes_back_from_it(units: int, scale: int) -> None:
    value = units / 10**scale
    exact = Decimal(str(value))
    assert fits(value, "decimal(6,3)") == (abs(exact) < 1000 and exact == round(exact, 3))


@pytest.mark.parametrize(
    ("old", "new", "does"),
    [
        ("int", "bigint", True), ("bigint", "int", False), ("float", "double", True), ("double", "float", False),
        ("decimal(10,2)", "decimal(12,2)", True), ("decimal(10,2)", "decimal(12,3)", False),
        ("decimal(10,2)", "decimal(9,2)", False), ("int", "double", False), ("int", "string", False),
        ("smallint", "int", True), ("tinyint", "bigint", True), ("date", "timestamp_ntz", False),
        ("timestamp", "timestamp_ntz", False),
    ],
)  # fmt: skip
def test_iceberg_widens_some_types_in_place(old: str, new: str, does: bool) -> None:
    assert promotes(old, new) is does
