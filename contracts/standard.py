"""Edge: the package that knows the Open Data Contract Standard; what it finds wrong, in places of the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

from contracts.checking import meant
from contracts.marks import Finding, Loc


def against_standard(values: dict[Any, Any]) -> Iterator[Finding]:
    """All that the standard does not allow, keys that it does not have among them."""
    # Imported here: it costs 0.2 s, and the command line reads no contract in most commands.
    from open_data_contract_standard.model import OpenDataContractStandard

    try:
        OpenDataContractStandard.model_validate(values, extra="forbid")
    except ValidationError as error:
        for item in error.errors(include_url=False):
            loc = _in_file(values, item["loc"], missing=item["type"] in ("missing", "extra_forbidden"))
            if loc is None:
                continue
            if item["type"] == "extra_forbidden":
                name = str(loc[-1])
                yield Finding(loc, f"the standard has no key {name!r} here{_nearest_key(name)}")
            else:
                yield Finding(loc, sentence(item))


def _in_file(values: Any, loc: Sequence[Any], missing: bool) -> Loc | None:
    """A place as the file has it: without the names of the alternatives that were tried on the way.

    None for a list that was expected where the file has keys: the other alternative tells what is wrong with those.
    """
    found: list[str | int] = []
    for part in loc:
        is_index = isinstance(part, int) and isinstance(values, list) and part < len(values)
        if is_index or (isinstance(values, dict) and part in values):
            values = values[part]
        elif isinstance(part, str) and part.startswith("list[") and isinstance(values, dict):
            return None
        elif not (missing and part is loc[-1]):
            continue
        found.append(part)
    return tuple(found)


@lru_cache(maxsize=1)
def _standard_keys() -> frozenset[str]:
    from open_data_contract_standard import model

    kinds = [kind for kind in vars(model).values() if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return frozenset(item.alias or name for kind in kinds for name, item in kind.model_fields.items())


def _nearest_key(name: str) -> str:
    told = meant(name, _standard_keys())
    return told if "did you mean" in told else "; our own keys stand in customProperties"


def sentence(item: Any) -> str:
    """One of pydantic's findings as a sentence of ours, with the value where it is short."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        return "it is missing"
    if item["type"] == "extra_forbidden":
        return "there is no such key here"
    if item["type"] == "value_error":
        return message
    value = item["input"]
    shown = repr(value) if value is None or isinstance(value, str | int | float) else type(value).__name__
    return f"{message[:1].lower()}{message[1:]}, not {shown[:80]}"
