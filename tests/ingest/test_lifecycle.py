"""How long files stay: rules made of contracts, and a bucket's document that holds those of others too."""

from __future__ import annotations

import pytest

from contracts.dataset import DatasetContract
from ingest.lifecycle import ExpiryRule, expiry_rules, wanted_rules, with_rules
from tests.consumers.samples import CONTRACT

ORDERS = ExpiryRule("sluice-orders", "orders/", 30)
OTHERS = (
    "<Rule><ID>large</ID><Status>Enabled</Status><Filter><And><ObjectSizeGreaterThan>100</ObjectSizeGreaterThan>"
    "<Prefix>x/</Prefix></And></Filter><Expiration><Days>3</Days></Expiration></Rule>"
)


def document(*rules: str) -> str:
    return f"<LifecycleConfiguration>{''.join(rules)}</LifecycleConfiguration>"


def contract(dataset: str, **days: int) -> DatasetContract:
    return CONTRACT.model_copy(update={"dataset": dataset, **days})


def test_contracts_that_say_nothing_ask_for_no_rule() -> None:
    assert wanted_rules([contract("orders")]) == {"bronze": (), "quarantine": ()}


def test_each_dataset_has_a_rule_for_its_folder_of_each_bucket_it_speaks_of() -> None:
    found = wanted_rules([contract("orders", keep_bronze=30), contract("a", keep_bronze=1, keep_quarantine=7)])
    assert found == {
        "bronze": (ExpiryRule("sluice-a", "a/", 1), ORDERS),
        "quarantine": (ExpiryRule("sluice-a", "a/", 7),),
    }


def test_rules_come_back_as_they_were_set() -> None:
    rules = (ExpiryRule("sluice-a", "a/", 1), ORDERS)
    assert expiry_rules(with_rules("", rules)) == rules
    assert with_rules(with_rules("", rules), rules) == with_rules("", rules)


def test_rules_of_others_stay_to_the_last_element_and_ours_go_when_nobody_asks_for_them() -> None:
    both = with_rules(document(OTHERS), [ORDERS])
    assert OTHERS in both
    assert [rule.ours for rule in expiry_rules(both)] == [False, True]
    assert with_rules(both, []) == document(OTHERS)
    assert with_rules(with_rules("", [ORDERS]), []) == ""


def test_document_of_a_store_that_names_its_namespace_is_read_as_well() -> None:
    named = document(OTHERS).replace("<LifecycleConfiguration>", '<LifecycleConfiguration xmlns="http://s3/doc/">')
    assert expiry_rules(named) == (ExpiryRule("large", "x/", 3),)
    assert with_rules(named, []) == document(OTHERS)


@pytest.mark.parametrize(
    "rule",
    [
        "<Rule><ID>sluice-a</ID><Status>Disabled</Status><Expiration><Days>3</Days></Expiration></Rule>",
        "<Rule><ID>sluice-a</ID><Status>Enabled</Status><Expiration><Date>2026-01-01</Date></Expiration></Rule>",
    ],
)
def test_rule_that_is_off_or_goes_by_date_is_none_of_days(rule: str) -> None:
    assert expiry_rules(document(rule)) == ()


def test_what_is_no_xml_is_refused() -> None:
    with pytest.raises(ValueError, match="not XML"):
        expiry_rules("<LifecycleConfiguration>")
