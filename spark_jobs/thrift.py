"""Thrift's compact protocol, as much of it as a look into a parquet footer needs. No I/O.

pyarrow has the same numbers, but ends the whole process when asked for a column chunk that is encrypted or that has
no metadata: what strangers wrote is not to be handed to it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(1, 14)
_INTEGERS = frozenset({_I16, _I32, _I64})
_FIXED = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}
# The format itself nests seven deep at most.
_MAX_DEPTH = 16

Read = Callable[["Compact"], Any]


class Compact:
    """Reads values one after the other. Every method raises ValueError or IndexError when the bytes make no sense."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at(self) -> int:
        """How many bytes were read."""
        return self._at

    def integer(self) -> int:
        """A signed whole number of any width."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def struct(self, wanted: Mapping[int, Read]) -> dict[int, Any]:
        """The wanted fields of a struct, each by the function that reads it; the others are passed over."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self.integer()
            if number not in wanted:
                self._skip(kind, 0)
                continue
            expected = _INTEGERS if wanted[number] is Compact.integer else {_LIST, _STRUCT}
            if kind not in expected:
                raise ValueError(f"field {number} has type {kind}")
            found[number] = wanted[number](self)
        return found

    def structs(self, read: Read) -> None:
        """Read a list of structs, one after the other, so that nobody holds them all."""
        kind, count = self._list_head()
        if kind != _STRUCT:
            raise ValueError(f"a list of type {kind}")
        for _ in range(count):
            read(self)

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number of more than 64 bits")

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        # No value is shorter than a byte: a list that claims more is not walked through.
        if count > len(self._data) - self._at:
            raise ValueError(f"a list of {count} values")
        return head & 0x0F, count

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        if kind in _INTEGERS:
            self._varint()
        elif kind in _FIXED:
            self._at += _FIXED[kind]
        elif kind == _BINARY:
            length = self._varint()
            self._at += length
        elif kind in (_LIST, _SET):
            of, count = self._list_head()
            for _ in range(count):
                self._skip_item(of, depth + 1)
        elif kind == _MAP:
            self._skip_map(depth + 1)
        elif kind == _STRUCT:
            while head := self._byte():
                if not head >> 4:
                    self._varint()
                self._skip(head & 0x0F, depth + 1)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"type {kind}")

    def _skip_item(self, kind: int, depth: int) -> None:
        if kind in (_TRUE, _FALSE):
            # In a field the type is the value; in a list each takes a byte.
            self._at += 1
        else:
            self._skip(kind, depth)

    def _skip_map(self, depth: int) -> None:
        count = self._varint()
        if count > len(self._data) - self._at:
            raise ValueError(f"a map of {count} values")
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._skip_item(kinds >> 4, depth)
            self._skip_item(kinds & 0x0F, depth)
