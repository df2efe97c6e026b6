"""Every way of reading gold that docs/reading.md shows, as a user types it after `eval "$(sluice env)"`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import nbformat
import psycopg
import pytest
from nbclient import NotebookClient
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.expressions import EqualTo
from pyiceberg.utils.config import Config

from contracts.settings import PROJECT
from sluice.environment import user_environment
from tests.chain.conftest import Drop, MakeMonth
from tests.conftest import CONNECT_MODE, Stack

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(600)]

BLOCKS = re.findall(
    r"^## (.+?)$.*?^```python\n(.*?)^```", (PROJECT / "docs" / "reading.md").read_text("utf-8"), re.M | re.S
)


@pytest.fixture(scope="module")
def environment(stack: Stack) -> dict[str, str]:
    """What a shell has after the exports, and nothing else of the stack."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", *CONNECT_MODE))}
    return own | user_environment(stack.settings)


@pytest.fixture(scope="module")
def gold(put: Drop, month: MakeMonth) -> str:
    """Gold has trips of January 2025; the key of their file."""
    key = f"nyc_yellow/{uuid.uuid4().hex[:10]}_2025-01.parquet"
    assert put(key, month(300, seed=5)).state == "done"
    return key


@pytest.mark.parametrize("code", [pytest.param(code, id=title.lower()) for title, code in BLOCKS])
def test_snippet_reads_gold_as_it_stands(gold: str, environment: dict[str, str], code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"\d", done.stdout), done.stdout


def test_notebook_runs_from_its_first_cell_to_its_picture(
    gold: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(PROJECT / "examples" / "gold.ipynb", as_version=4)
    done = NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [data for cell in done.cells for output in cell.get("outputs", ()) for data in output.get("data", ())]
    assert "image/png" in shown


@pytest.fixture
def catalog(stack: Stack, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """PyIceberg's, as the environment makes it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Read anew: PyIceberg looks at the environment when it is imported.
    return load_catalog("lake", **(Config().get_catalog_config("lake") or {}))


def test_reader_sees_what_it_opened_while_a_file_is_corrected(
    gold: str, catalog: Catalog, put: Drop, month: MakeMonth
) -> None:
    opened = catalog.load_table("gold.nyc_yellow_features")

    def rows() -> int:
        # Of this file alone: other tests put theirs meanwhile.
        return len(opened.scan(EqualTo("_source_key", gold), selected_fields=("_source_key",)).to_arrow())

    before = rows()
    put(gold, month(100, seed=6))
    assert rows() == before
    opened.refresh()
    assert 0 < rows() < before


def test_reader_can_change_nothing(gold: str, catalog: Catalog, stack: Stack) -> None:
    table = catalog.load_table("gold.nyc_yellow_zone_hour")
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        table.io.new_output(f"{table.location()}/data/nothing").create()
    link = psycopg.connect(stack.settings.postgres_url("reader", "lake"))
    with link, pytest.raises(psycopg.errors.InsufficientPrivilege):
        link.execute("update public.iceberg_tables set metadata_location = 'x'")
