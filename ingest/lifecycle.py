"""Decision: how long objects stay in which bucket, as lifecycle rules of S3. No I/O.

A bucket's rules are one document. Those of others in it stay as they are, to the last element: minio-py's own classes
know only some elements, and a rule that lost one of its filters would remove objects that nobody wanted gone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from contracts.dataset import DatasetContract
from ingest.policies import BRONZE, QUARANTINE

OURS = "sluice-"
"""How the ids of our rules begin; any other rule is somebody else's."""


@dataclass(frozen=True, order=True)
class ExpiryRule:
    """Objects below a prefix are removed some days after they came, at the next midnight (UTC)."""

    id: str
    prefix: str
    days: int

    @property
    def ours(self) -> bool:
        """Whether the bootstrap made it."""
        return self.id.startswith(OURS)


def wanted_rules(contracts: Iterable[DatasetContract]) -> dict[str, tuple[ExpiryRule, ...]]:
    """Bucket to the rules that the contracts ask for, none where they ask for none."""
    contracts = tuple(contracts)
    days = {
        BRONZE: {contract.dataset: contract.keep_bronze for contract in contracts},
        QUARANTINE: {contract.dataset: contract.keep_quarantine for contract in contracts},
    }
    return {
        bucket: tuple(
            ExpiryRule(f"{OURS}{dataset}", f"{dataset}/", days) for dataset, days in sorted(of.items()) if days
        )
        for bucket, of in days.items()
    }


def with_rules(document: str, rules: Sequence[ExpiryRule]) -> str:
    """A bucket's lifecycle document with these rules for ours; empty where no rule is left.

    Args:
        document: as the store has it; empty where it has none.

    Raises:
        ValueError: the document is not XML.
    """
    root = _parsed(document)
    for rule in list(_rules(root)):
        if _text(rule, "ID").startswith(OURS):
            root.remove(rule)
    for one in rules:
        root.append(_element(one))
    return ET.tostring(root, encoding="unicode") if len(root) else ""


def expiry_rules(document: str) -> tuple[ExpiryRule, ...]:
    """The enabled rules of a bucket that remove objects some days after they came, whoever made them.

    Raises:
        ValueError: the document is not XML.
    """
    found = [
        ExpiryRule(_text(rule, "ID"), _text(rule, "Filter/Prefix", "Filter/And/Prefix", "Prefix"), int(days))
        for rule in _rules(_parsed(document))
        if _text(rule, "Status") == "Enabled" and (days := _text(rule, "Expiration/Days")).isdecimal()
    ]
    return tuple(sorted(found))


def _parsed(document: str) -> ET.Element:
    root = ET.Element("LifecycleConfiguration")
    if not document:
        return root
    try:
        read = ET.fromstring(document)  # noqa: S314 - the stack's own store made it
    except ET.ParseError as error:
        raise ValueError(f"the lifecycle rules are not XML: {error}") from error
    # Without the namespace that S3 allows and MinIO does not need: searching is by plain names then.
    for element in read.iter():
        element.tag = element.tag.rpartition("}")[2]
    return read


def _rules(root: ET.Element) -> Iterator[ET.Element]:
    return root.iterfind("Rule")


def _text(rule: ET.Element, *paths: str) -> str:
    return next((text for path in paths if (text := rule.findtext(path))), "")


def _element(rule: ExpiryRule) -> ET.Element:
    element = ET.Element("Rule")
    ET.SubElement(element, "ID").text = rule.id
    ET.SubElement(element, "Status").text = "Enabled"
    ET.SubElement(ET.SubElement(element, "Filter"), "Prefix").text = rule.prefix
    ET.SubElement(ET.SubElement(element, "Expiration"), "Days").text = str(rule.days)
    return element
