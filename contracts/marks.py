"""A YAML text read once: its values, the line where each stands, and keys that are there twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

# libyaml's safe loader: 0.02 s instead of 0.17 s a contract, and every task start reads them.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Loc = tuple[str | int, ...]
"""Keys and indexes from the top of a document to a value."""


@dataclass(frozen=True)
class Finding:
    """What is wrong at a place of a document."""

    loc: Loc
    message: str
    line: int | None = None
    """Where the place alone does not tell it; counted from 1."""


class NotYaml(ValueError):
    """A text is not YAML, or holds a value that YAML cannot have."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Marked:
    """The values of a YAML text, and where they stand.

    Raises:
        NotYaml: see there; has the line.
    """

    def __init__(self, text: str) -> None:
        try:
            loader = _LOADER(text)
        except yaml.YAMLError as error:
            raise NotYaml(_said(error), 1) from error
        try:
            self._root: Any = loader.get_single_node()
            # Before the values are made: that takes merged keys (`<<`) out of the nodes.
            self.repeated = list(_repeated(self._root, (), set())) if self._root is not None else []
            self.values: Any = loader.construct_document(self._root) if self._root is not None else None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise NotYaml(_said(error), mark.line + 1 if mark else 1) from error
        except (ValueError, OverflowError, RecursionError) as error:
            # For example 2009-13-45, which looks like a day.
            raise NotYaml(f"a value cannot be read: {error}", _unreadable(self._root)) from error
        finally:
            loader.dispose()

    def line(self, loc: Loc) -> int:
        """The line of a place, or of the last part of it that is there; counted from 1."""
        line = 1
        for mark, _ in _walk(self._root, loc):
            line = mark.line + 1
        return line

    def field(self, loc: Loc) -> str:
        """A place as people read it: an item of a list by its name or property, where it has one."""
        shown: list[str] = []
        walked = list(_walk(self._root, loc))
        for position, part in enumerate(loc):
            node = walked[position][1] if position < len(walked) else None
            if isinstance(part, int):
                # Of what a custom property holds, an item's `name` may be anybody's.
                name = "" if "value" in loc[:position] else _name(node)
                if name:
                    shown.append(name)
                else:
                    shown[-1:] = [f"{shown[-1] if shown else ''}[{part}]"]
            elif not (part == "value" and position >= 2 and loc[position - 2] == "customProperties"):
                shown.append(part)
        return ".".join(shown) or "(the whole file)"


def _walk(node: Any, loc: Loc) -> Iterator[tuple[Any, Any]]:
    """Mark and node of each part of a place, as far as they are there."""
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            hits = [(key, value) for key, value in node.value if getattr(key, "value", None) == str(part)]
            if not hits:
                return
            # The last of a repeated key is the one that counts.
            key, node = hits[-1]
            yield key.start_mark, node
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            yield node.start_mark, node
        else:
            return


def _name(node: Any) -> str:
    """What an item of a list calls itself."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    named = {key.value: value.value for key, value in pairs if isinstance(value, yaml.ScalarNode)}
    return str(named.get("property") or named.get("name") or "")


def _repeated(node: Any, loc: Loc, seen: set[int]) -> Iterator[Finding]:
    # An alias may lead back to where it stands.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name = (key.tag, str(key.value))
            here = (*loc, str(key.value))
            line = key.start_mark.line + 1
            if name in first:
                yield Finding(here, f"the key is there twice, first in line {first[name]}; keep one", line)
            first.setdefault(name, line)
            yield from _repeated(value, here, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*loc, index), seen)


def _unreadable(node: Any) -> int:
    """The line of the first value that cannot be made."""
    queue, seen = [node], set()
    while queue:
        node = queue.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            maker = yaml.constructor.SafeConstructor()
            try:
                maker.construct_document(node)
            except (yaml.YAMLError, ValueError, OverflowError):
                return int(node.start_mark.line) + 1
        elif isinstance(node, yaml.MappingNode):
            queue += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            queue += node.value
    return 1


def _said(error: yaml.YAMLError) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())
