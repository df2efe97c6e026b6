"""Which of the two kinds of stack is meant, and what both can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from contracts.settings import Settings
from sluice.status import Say, StackStatus


class Stack(Protocol):
    """A module that starts, looks at and stops one kind of stack."""

    def up(self, say: Say) -> Settings:
        """Start what is not running and wait until all is healthy; the settings by which it is reached."""

    def start_storage(self, say: Say) -> Settings:
        """Leave nothing running that writes to databases or tables, but what holds them."""

    def postgres_client(self, settings: Settings, tool: str) -> tuple[list[str], dict[str, str]]:
        """Command line and environment of `pg_dump` or `pg_restore`, signed in as the superuser."""

    def down(self, say: Say) -> None:
        """Stop everything; the data stays."""

    def status(self, settings: Settings) -> StackStatus:
        """Look at every service once."""

    def require_running(self, settings: Settings) -> None:
        """Raise `NotRunning` where nothing can be asked."""

    def last_lines(self, settings: Settings, service: str, count: int) -> list[str]:
        """The last lines of a service's log."""

    def follow_lines(self, settings: Settings, service: str) -> Iterator[str]:
        """New lines of a service's log as they come."""


def chosen(settings: Settings) -> Stack:
    """The kind of stack that the settings name."""
    if settings.stack == "compose":
        from sluice import compose_stack

        return compose_stack
    from sluice import stack

    return stack
