"""Conditions of rules: thresholds in their places, and the names that are used."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.conditions import fill_in, names_in


@pytest.mark.parametrize(
    ("number", "shown"),
    [(24, "24"), (-1, "(-1)"), (0.5, "0.5D"), (-2.5, "(-2.5D)"), (1e-7, "1e-07D"), (1e300, "1e+300D"), (2.0, "2.0D")],
)
def test_threshold_is_an_int_or_a_double_for_spark(number: float, shown: str) -> None:
    assert fill_in("a <= ${threshold}", {"threshold": number}) == f"a <= {shown}"


@pytest.mark.parametrize(
    ("template", "thresholds", "said"),
    [
        ("a <= ${most}", {"least": 1}, "which has least"),
        ("a <= ${most}", {}, "which has none"),
        ("a = '${x}'", {"x": 1}, "outside of texts"),
        ("a <= 1 -- ${x}", {"x": 1}, "outside of texts and comments"),
        ("a <= 1${x}", {"x": 1}, "nothing beside it"),
        ("a <= ${x}0", {"x": 1}, "nothing beside it"),
        ("a <= ${ x }", {"x": 1}, "nothing beside it"),
        ("a <= ${x", {}, "nothing beside it"),
        ("a <= 1", {"x": 1}, "'x' has no place"),
        ("a <= ${x}", {"x": 2**63}, "beyond 64 bits"),
        ("a <= ${x}", {"x": float("inf")}, "no threshold"),
    ],
)
def test_threshold_that_cannot_be_put_in_is_told(template: str, thresholds: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        fill_in(template, thresholds)


@given(st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_stands_in_the_condition_as_a_number_of_its_own(number: float) -> None:
    condition = fill_in("a -${x} > 0", {"x": number})
    assert re.fullmatch(r"a -(\d[\d.e+-]*D?|\(-\d[\d.e+-]*D?\)) > 0", condition)
    assert type(number)(condition.removeprefix("a -").removesuffix(" > 0").strip("()D")) == number


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("Fare >= 0", {"fare"}),
        ("unix_timestamp(b) - unix_timestamp( a ) <= 24 * 3600", {"a", "b"}),
        ("kind = 'fare' or kind = \"it's\"", {"kind", "or"}),
        ("`odd name` > 100D / 3600 * x1", {"odd name", "x1"}),
        ("a > 1e5 and t.b", {"a", "and", "t"}),
        ("a -- b\n > /* c */ 1", {"a"}),
        ("upper (a) = ''", {"a"}),
    ],
)
def test_names_of_a_condition_are_those_that_may_be_columns(condition: str, names: set[str]) -> None:
    assert names_in(condition) == names


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.floats()))
def test_any_text_is_a_condition_or_told_to_be_none(text: str, thresholds: dict[str, float]) -> None:
    names_in(text)
    with suppress(ValueError):
        assert "${" not in fill_in(text, thresholds)
