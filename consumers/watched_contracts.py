"""The dataset contracts of a folder, read again when a file of it changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from contracts.dataset import DatasetContract
from contracts.errors import ContractError
from contracts.loading import load_contracts

log = structlog.get_logger(__name__)


class WatchedContracts:
    """The contracts as they are now.

    Raises:
        ContractError: at the start, when one is not valid. Later a bad change is logged and the old ones stay.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = self._look()
        self._contracts: Mapping[str, DatasetContract] = load_contracts(folder)

    def current(self) -> Mapping[str, DatasetContract]:
        """Dataset -> contract; a stat per file unless something changed."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._contracts = load_contracts(self._folder)
                log.info("contracts_read", datasets=sorted(self._contracts))
            except (ContractError, OSError) as error:
                log.error("contracts_refused", detail=str(error), kept=sorted(self._contracts))
        return self._contracts

    def _look(self) -> frozenset[tuple[str, int, int]]:
        found = set()
        for path in self._folder.glob("*.yaml"):
            try:
                about = path.stat()
            except FileNotFoundError:
                continue
            found.add((path.name, about.st_mtime_ns, about.st_size))
        return frozenset(found)
