"""The headers by which a Kafka message tells that it is a dead letter sent again. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

REDRIVEN_FROM = "sluice-redriven-from"
"""Id of the dead letter."""
ATTEMPT = "sluice-attempt"
"""How many times the message has been sent, this one included."""

_MOST_DIGITS = 18
"""Of a number that Postgres and every JSON reader hold."""


def text_headers(pairs: Iterable[tuple[str, bytes | None]] | None) -> dict[str, str]:
    """Headers as a Kafka client gives them, as text; the last of two with one name counts.

    Anybody may have written them: bytes that are not UTF-8 stand as `\\\\xNN`.
    """
    return {name: (value or b"").decode("utf-8", errors="backslashreplace") for name, value in pairs or ()}


def origin(headers: Mapping[str, str]) -> tuple[int | None, int]:
    """Which dead letter a message was sent again from (None: it is an original), and its attempt (1 for an original).

    Headers that are not ours count as none.
    """
    letter, attempt = _number(headers.get(REDRIVEN_FROM)), _number(headers.get(ATTEMPT))
    return (None, 1) if letter is None else (letter, max(attempt or 2, 2))


def _number(text: str | None) -> int | None:
    fits = text is not None and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text or "") if fits else None
