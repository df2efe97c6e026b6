"""One MinIO for the tests of this folder, on a free port, with data in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.settings import Settings
from ingest.bootstrap import bootstrap_store
from ingest.store import Store, store_for
from tests.servers import running_minio, settings_in


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a running MinIO that is not bootstrapped."""
    stack = settings_in(tmp_path_factory.mktemp("stack"))
    with running_minio(stack):
        yield stack


@pytest.fixture(scope="session")
def ready(settings: Settings) -> Settings:
    """The same, bootstrapped."""
    bootstrap_store(settings)
    return settings


@pytest.fixture
def ingest(ready: Settings) -> Store:
    """The store as the ingest user."""
    return store_for(ready, "ingest")


@pytest.fixture
def spark(ready: Settings) -> Store:
    """The store as the Spark user."""
    return store_for(ready, "spark")


@pytest.fixture
def consumers(ready: Settings) -> Store:
    """The store as the consumers' user."""
    return store_for(ready, "consumers")


@pytest.fixture
def root(ready: Settings) -> Store:
    """The store as its administrator."""
    return store_for(ready, "root")


@pytest.fixture
def down(tmp_path: Path) -> Settings:
    """Settings of a stack that has secrets but is not up."""
    return settings_in(tmp_path)
