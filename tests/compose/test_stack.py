"""The stack in containers, on a real engine: the same journeys as on the host's processes, and what is only theirs."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pytest

from contracts.settings import PROJECT
from contracts.story import FileStory
from ingest.generator import generate_month
from sluice.containers import PARTS
from sluice.query import run_query
from tests.chain.test_privileges import airflow
from tests.chain.test_secrets_stay_secret import airflow_pages
from tests.compose.conftest import NUMBERS, Containers, accounted, unique_key
from tests.documents import docker_commands
from tests.servers import free_port_block

pytestmark = [pytest.mark.xdist_group("compose"), pytest.mark.timeout(3000)]

LASTING = (
    "postgres", "minio", "kafka", "valkey", "spark-master", "spark-worker", "spark-worker-ui", "spark-connect",
    "router", "airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker",
)  # fmt: skip
MOST_MEMORY_MB = 6 * 1024

Month = Callable[..., Path]


@pytest.fixture
def month(tmp_path: Path) -> Month:
    """Make a generated month: `month(rows, seed)`."""

    def make(rows: int = 400, seed: int = 1) -> Path:
        path = tmp_path / f"{uuid.uuid4().hex[:8]}_2025-01.parquet"
        generate_month(path, 2025, 1, rows, seed)
        return path

    return make


def test_a_put_reaches_gold_and_a_correction_replaces_its_own_rows(containers: Containers, month: Month) -> None:
    key = unique_key()
    containers.put(key, month(500, 1))
    first = accounted(containers, key, 500)
    corrected = containers.sluice("drop", str(month(300, 2)), "--dataset", "nyc_yellow", "--key", key, "--wait")
    assert corrected["etag"] != first.etag
    accounted(containers, key, 300)


def test_bad_input_ends_in_quarantine_with_a_reason(containers: Containers, tmp_path: Path) -> None:
    path = tmp_path / "broken_2025-01.parquet"
    path.write_bytes(b"no parquet at all")
    story = containers.sluice("drop", str(path), "--dataset", "nyc_yellow", "--key", unique_key(), "--wait", codes=(4,))
    assert story["state"] == "quarantined"
    assert story["reason"]


def test_at_rest_the_stack_takes_at_most_six_gigabytes(containers: Containers) -> None:
    services = containers.sluice("status")["services"]
    assert {re.sub(r"-\d+$", "", item["name"].removeprefix("sluice-test-")) for item in services} == set(LASTING)
    held = sum(item["memory_mb"] for item in services)
    NUMBERS.append(f"memory of {len(services)} containers at rest: {held} MB")
    assert held <= MOST_MEMORY_MB


@pytest.mark.long
def test_a_job_can_be_run_by_hand_in_the_master_s_container(containers: Containers, month: Month) -> None:
    key = unique_key()
    containers.put(key, month(200, 4))
    accounted(containers, key, 200)
    done = containers.compose(
        "exec", "-T", "spark-master", "spark-submit", "--driver-memory", "512m", "--executor-memory", "512m",
        "spark_jobs/data_preprocessing_job.py", "--year", "2025",
    )  # fmt: skip
    assert f"bronze/{key!r}" in done.stdout


def test_every_link_on_spark_s_pages_opens_on_this_machine(containers: Containers) -> None:
    for port, title in (
        ("SPARK_MASTER_UI_PORT", "Spark Master at"), ("SPARK_WORKER_UI_PORT", "Spark Worker at"),
        ("SPARK_CONNECT_UI_PORT", "Spark Jobs"),
    ):  # fmt: skip
        page = opened(spark_page(containers, port))
        assert title in page.text
        links = {html.unescape(link) for link in re.findall(r'(?:href|src)="([^"#]+)"', page.text)}
        assert any("/proxy/" in link for link in links)
        for link in links:
            assert opened(page.url.join(link)).content


def spark_page(containers: Containers, port: str) -> str:
    """URL of what is published on a port, which is given by its variable."""
    return f"http://127.0.0.1:{containers.environment[port]}/"


def opened(url: httpx.URL | str) -> httpx.Response:
    """What a browser shows."""
    return httpx.get(url, follow_redirects=True, timeout=30).raise_for_status()


def test_the_spark_connection_is_there_without_a_click(containers: Containers) -> None:
    done = containers.compose("exec", "-T", "airflow-api-server", "python", "-c", SHOW_CONNECTION)
    assert done.stdout.split()[-1] == "spark://spark-master.lake:7077"


SHOW_CONNECTION = """
import os
from contracts.settings import load_settings
from sluice.airflow_config import airflow_environment
os.environ.update(airflow_environment(load_settings()))
from airflow.models import Connection
found = Connection.get_connection_from_secrets("spark_default")
print(f"{found.host}:{found.port}")
"""


def secrets_of(containers: Containers) -> Iterator[str]:
    """Every password of the stack."""
    folder = Path(containers.environment["SECRETS_FOLDER"]) / "operator" / "secrets.env"
    yield from (line.partition("=")[2] for line in folder.read_text("utf-8").splitlines() if "=" in line)


def test_no_password_is_in_inspect_history_or_logs(containers: Containers) -> None:
    ids = containers.compose("ps", "--all", "--quiet").stdout.split()
    shown = containers.run("docker", "inspect", *ids).stdout
    for image in ("sluice/airflow:test", "sluice/spark:test"):
        shown += containers.run("docker", "history", "--no-trunc", image).stdout
        shown += containers.run("docker", "inspect", image).stdout
    shown += containers.compose("logs", "--no-color").stdout
    found = [secret[:4] for secret in secrets_of(containers) if secret in shown]
    assert not found


@pytest.fixture(scope="module")
def arrived(containers: Containers, tmp_path_factory: pytest.TempPathFactory) -> FileStory:
    """A file that went to gold."""
    path = tmp_path_factory.mktemp("arrived") / "a_2025-01.parquet"
    generate_month(path, 2025, 1, 130, 7)
    key = unique_key()
    containers.put(key, path)
    return accounted(containers, key, 130)


@pytest.fixture
def admin(containers: Containers) -> Iterator[httpx.Client]:
    """Airflow's API, as a person's user."""
    settings = containers.settings
    with airflow(containers, settings.airflow_admin_user, settings.airflow_admin_password) as client:
        yield client


def test_no_password_is_in_airflow_s_database_task_logs_and_pages(
    containers: Containers, arrived: FileStory, admin: httpx.Client
) -> None:
    user = f"--username={containers.settings.postgres_superuser}"
    dump = containers.compose("exec", "-T", "postgres", "pg_dump", user, "--data-only", "airflow").stdout
    logs = containers.compose(
        "exec", "-T", "airflow-worker", "sh", "-c", f"find {AIRFLOW_LOGS} -type f -exec cat {{}} +"
    )
    pages = airflow_pages(admin)
    # The search sees what it should.
    run = arrived.layers[-1].run_id
    assert run
    tables = dict(re.findall(r"^COPY public\.(\w+) .*?;\n(.*?)^\\\.$", dump, re.MULTILINE | re.DOTALL))
    for table in ("rendered_task_instance_fields", "xcom", "dag_run", "task_instance"):
        assert run in tables[table], table
    assert run in logs.stdout
    assert any('"rendered_fields"' in page for page in pages.values())
    texts = {"database": dump, "logs": logs.stdout} | pages
    held = list(secrets_of(containers))
    assert len(held) > 15
    assert not [(place, secret[:4]) for place, text in texts.items() for secret in held if secret in text]


AIRFLOW_LOGS = "/var/lib/sluice/airflow/logs"


def test_secrets_are_files_of_mode_0600_of_those_who_read_them(containers: Containers) -> None:
    folder = Path(containers.environment["SECRETS_FOLDER"])
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    for path in files:
        uid = PARTS[path.parent.name].uid
        assert path.stat().st_uid == (folder.stat().st_uid if uid is None else uid), path


@pytest.mark.parametrize(("image", "package"), [("airflow", "apache-airflow"), ("spark", "pyspark")])
def test_the_bill_of_materials_lists_an_image_s_packages_in_the_locked_versions(
    containers: Containers, image: str, package: str
) -> None:
    bill = json.loads(containers.run("compose/sbom.sh", f"sluice/{image}:test").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    listed = {part["name"].lower(): part["version"] for part in bill["components"]}
    lock = (PROJECT / "requirements.lock").read_text("utf-8")
    locked = dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", lock, re.MULTILINE))
    assert listed[package] == locked[package]
    assert len(listed) > 40


@pytest.mark.parametrize("image", ["sluice/airflow:test", "sluice/spark:test"])
def test_an_image_holds_no_compiler_no_cache_and_no_secret(containers: Containers, image: str) -> None:
    script = (
        "for p in gcc cc g++ clang go rustc; do command -v $p; done; "
        "find / -xdev -path /proc -prune -o -type d \\( -path '*/.cache/pip' -o -path '*/.cache/uv' "
        "-o -name secrets -path '*sluice*' \\) -print 2>/dev/null; find / -xdev -name 'secrets.env' 2>/dev/null; true"
    )
    done = containers.run("docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script)
    assert done.stdout.split() == []
    size = int(containers.run("docker", "inspect", "--format", "{{.Size}}", image).stdout)
    NUMBERS.append(f"image {image}: {size / 1e9:.2f} GB")


def test_the_airflow_image_has_no_jvm(containers: Containers) -> None:
    script = "command -v java; find / -xdev -name '*.jar' 2>/dev/null | head -3; true"
    done = containers.run(
        "docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", "sluice/airflow:test", "-c", script
    )
    assert done.stdout.split() == []


def rejected(containers: Containers, key: str) -> dict[str, int]:
    """Rejected rows of a file by their reason."""
    query = f"select _reason, count(*) from silver.nyc_yellow_rejects where _source_key = '{key}' group by 1"
    return dict(run_query(containers.settings, query)[1])


def test_a_rule_edited_in_a_mounted_contract_holds_for_the_next_file(containers: Containers, month: Month) -> None:
    before, after, again = unique_key(), unique_key(), unique_key()
    body = month(200, 51)
    containers.put(before, body)
    accounted(containers, before, 200)
    bound = ("trip_distance > 0\n", "trip_distance > 1000000\n")
    with containers.edited("contracts/datasets/nyc_yellow.yaml", lambda text: text.replace(*bound)):
        containers.put(after, body)
        accounted(containers, after, 200)
    assert sum(rejected(containers, after).values()) == 200
    assert rejected(containers, after)["distance_not_positive"] > rejected(containers, before)["distance_not_positive"]
    containers.put(again, body)
    accounted(containers, again, 200)
    assert rejected(containers, again) == rejected(containers, before)


def test_a_line_edited_in_a_mounted_job_runs_with_the_next_file_and_by_hand(
    containers: Containers, month: Month
) -> None:
    key, line = unique_key(), f"edited {uuid.uuid4().hex}"
    first = "from __future__ import annotations\n"
    with containers.edited(
        "spark_jobs/data_preprocessing_job.py", lambda text: text.replace(first, f"{first}\nprint({line!r})\n")
    ):
        containers.put(key, month(60, 52))
        accounted(containers, key, 60)
        shown = containers.compose("exec", "-T", "airflow-worker", "grep", "-rlF", line, AIRFLOW_LOGS).stdout
        by_hand = ("spark-submit", "spark_jobs/data_preprocessing_job.py", "--help")
        done = containers.compose("exec", "-T", "spark-master", *by_hand)
    assert "dag_id=nyc_yellow_to_silver" in shown
    assert line in done.stdout


def test_an_edited_dag_shows_in_airflow(containers: Containers, admin: httpx.Client) -> None:
    text = f"Edited {uuid.uuid4().hex}"

    def description() -> str:
        return str(admin.get("/api/v2/dags/profiles").raise_for_status().json()["description"])

    before = description()
    with containers.edited("airflow/dags/profiles.py", lambda code: code.replace(before, text)):
        wait_until(lambda: description() == text, "the edited description")
    wait_until(lambda: description() == before, "the description as it was")


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Ask once a second until it holds."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, f"{what}: not within {seconds} s"
        time.sleep(1)


PAGE = PROJECT / "docs" / "troubleshooting.md"
NOT_TYPED = {
    "docker compose down": "the fixture does, with the volumes",
    "docker kill": "what somebody else did; it names no container",
}
QUIET = "docker compose logs --tail 100 minio"
"""MinIO, which the page says it of, tells of errors alone."""
TYPED = [command for command in docker_commands(PAGE) if command not in NOT_TYPED]


def unattended(command: str) -> list[str]:
    """A command of the page, as it is run where nobody sits at a terminal."""
    words = shlex.split(command)
    if words[:3] == ["docker", "compose", "exec"]:
        words.insert(3, "-T")
    if words[:3] == ["docker", "builder", "prune"]:
        # It would ask; and whoever runs the tests keeps their build cache.
        words += ["--force", "--filter", "until=8760h"]
    return words


@pytest.mark.usefixtures("arrived")
@pytest.mark.parametrize("command", TYPED)
def test_a_docker_command_of_the_troubleshooting_page_answers(containers: Containers, command: str) -> None:
    done = containers.run(*unattended(command))
    # Of what it starts Compose tells on the other stream.
    told = done.stderr if " up " in command else done.stdout
    assert told.strip() or command == QUIET, done.stderr


def test_what_runs_once_shows_that_it_ended_with_0(containers: Containers) -> None:
    shown = containers.compose("ps", "--all", "--format", "{{.Service}} {{.State}} {{.ExitCode}}").stdout
    assert {f"{name} exited 0" for name in ("init", "bootstrap", "warmup")} <= set(shown.splitlines())


@pytest.mark.long
def test_up_of_spark_connect_starts_what_it_needs(containers: Containers, month: Month) -> None:
    (command,) = (command for command in TYPED if command.endswith("up -d --wait spark-connect"))
    key = unique_key()
    containers.compose("stop", "spark-connect", "spark-worker", "spark-master")
    containers.put(key, month(90, 53))
    containers.run(*unattended(command))
    containers.wait_healthy()
    accounted(containers, key, 90)


@pytest.fixture(scope="module")
def with_java(containers: Containers) -> Containers:
    """The same stack, with Airflow's image as contracts that say `launch: submit` need it; nothing is started."""
    variables = {"AIRFLOW_TARGET": "submit", "SLUICE_VERSION": "test-submit"}
    stack = replace(containers, environment=containers.environment | variables)
    stack.compose("build", "init", timeout=2400)
    return stack


@pytest.mark.long
def test_the_target_submit_has_java_and_a_whole_spark(with_java: Containers) -> None:
    image, script = "sluice/airflow:test-submit", "java -version && spark-submit --version"
    done = with_java.run(
        "docker", "run", "--rm", "--network", "none", "--hostname", "localhost", "--read-only", "--tmpfs", "/tmp",
        "--entrypoint", "sh", image, "-c", script,
    )  # fmt: skip
    lock = (PROJECT / "requirements.lock").read_text("utf-8")
    (version,) = re.findall(r"^pyspark==(\S+)", lock, re.MULTILINE)
    assert 'version "17.' in done.stderr
    assert f"version {version}" in done.stderr
    size = int(with_java.run("docker", "inspect", "--format", "{{.Size}}", image).stdout)
    NUMBERS.append(f"image {image}: {size / 1e9:.2f} GB")


@pytest.mark.long
def test_a_contract_that_says_submit_takes_a_file_to_gold(
    containers: Containers, with_java: Containers, month: Month
) -> None:
    key = unique_key()
    launch = ("property: launch, value: connect", "property: launch, value: submit")
    worker = ("up", "--detach", "--wait", "--no-deps", "airflow-worker")
    try:
        with with_java.edited("contracts/datasets/nyc_yellow.yaml", lambda text: text.replace(*launch)):
            with_java.compose(*worker)
            with_java.put(key, month(110, 54))
            accounted(with_java, key, 110)
    finally:
        containers.compose(*worker)
    logs = containers.compose("exec", "-T", "airflow-worker", "grep", "-rlF", "Spark-Submit cmd", AIRFLOW_LOGS).stdout
    assert "dag_id=nyc_yellow_to_silver" in logs
    assert "dag_id=nyc_yellow_to_gold" in logs


def crash(containers: Containers, service: str) -> None:
    """End a service's processes from outside: its containers start again by themselves."""
    for container in containers.ids(service):
        pid = int(containers.run("docker", "inspect", "--format", "{{.State.Pid}}", container).stdout)
        os.kill(pid, signal.SIGKILL)


def docker_kill(containers: Containers, service: str) -> None:
    """The engine takes `docker kill` for a person's wish, and does not start it again; a person does."""
    containers.run("docker", "kill", *containers.ids(service))
    containers.compose("start", service)


@pytest.mark.long
@pytest.mark.parametrize(("kill", "seed"), [(crash, 100), (docker_kill, 150)])
def test_all_of_a_service_can_be_killed_and_nothing_is_lost(
    containers: Containers, month: Month, kill: Callable[[Containers, str], None], seed: int
) -> None:
    put: list[str] = []
    for place, service in enumerate(LASTING):
        key, path = unique_key(), month(120, seed + place)
        if service != "minio":
            containers.put(key, path)
        kill(containers, service)
        containers.wait_healthy()
        if service == "minio":
            containers.put(key, path)
        accounted(containers, key, 120)
        put.append(key)
    for key in put:
        accounted(containers, key, 120)
    NUMBERS.append(f"{kill.__name__}, a file under way: {', '.join(LASTING)} in turn; {len(put)} files, none lost")


@pytest.mark.long
def test_each_service_can_be_paused_and_nothing_is_lost(containers: Containers, month: Month) -> None:
    for place, service in enumerate(LASTING):
        key, path = unique_key(), month(120, 200 + place)
        containers.compose("pause", service)
        try:
            if service != "minio":
                containers.put(key, path)
        finally:
            containers.compose("unpause", service)
        if service == "minio":
            containers.put(key, path)
        accounted(containers, key, 120)
    containers.wait_healthy()
    NUMBERS.append(f"paused while a file arrived, each of {len(LASTING)} services: {len(LASTING)} files, none lost")


@pytest.mark.long
def test_replicas_come_and_go_under_load_and_every_file_is_counted_once(containers: Containers, month: Month) -> None:
    bodies = {unique_key(): month(100, 300 + n) for n in range(24)}
    keys = list(bodies)

    def put(some: list[str]) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: containers.put(key, bodies[key]), some))

    put(keys[:8])
    more = ("--scale", "spark-worker=3", "--scale", "airflow-worker=2", "--scale", "router=3")
    containers.compose("up", "--detach", "--wait", "--wait-timeout", "400", "--no-recreate", *more)
    put(keys[8:16])
    master = spark_page(containers, "SPARK_MASTER_UI_PORT")
    workers = [item["id"] for item in opened(f"{master}json/").json()["workers"] if item["state"] == "ALIVE"]
    assert len(workers) == 3
    for worker in workers:
        assert "Spark Worker at" in opened(f"{master}proxy/{worker}/").text
    assert "Spark Worker at" in opened(spark_page(containers, "SPARK_WORKER_UI_PORT")).text
    containers.compose("up", "--detach", "--no-recreate")
    put(keys[16:])
    for key in keys:
        accounted(containers, key, 100)


@pytest.mark.long
def test_a_new_version_comes_in_while_files_arrive_and_each_is_counted_once(
    containers: Containers, month: Month
) -> None:
    for image in ("airflow", "spark"):
        containers.run("docker", "tag", f"sluice/{image}:test", f"sluice/{image}:next")
    keys = [unique_key() for _ in range(12)]
    bodies = [month(100, 500 + place) for place in range(len(keys))]

    def arrive() -> None:
        for key, body in zip(keys, bodies, strict=True):
            containers.put(key, body)
            stopping.wait(8)

    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        arriving = pool.submit(arrive)
        try:
            containers.environment["SLUICE_VERSION"] = "next"
            containers.compose("run", "--rm", "bootstrap")
            for services in upgrade_order():
                containers.compose("up", "--detach", "--wait", "--wait-timeout", "300", "--no-deps", *services)
        finally:
            stopping.set()
        arriving.result()
    for key in keys:
        accounted(containers, key, 100)
    images = containers.compose("ps", "--format", "{{.Image}}").stdout.split()
    assert "sluice/airflow:next" in images
    assert "sluice/airflow:test" not in images


def upgrade_order() -> list[list[str]]:
    """The services that docs/compose.md names, in its order."""
    section = (
        (PROJECT / "docs" / "compose.md").read_text("utf-8").partition("## A new version")[2].partition("\n## ")[0]
    )
    lines = re.findall(r"^docker compose up -d --wait --no-deps (.+?)(?: +#.*)?$", section, re.MULTILINE)
    return [line.split() for line in lines]


def test_bootstrap_can_be_run_again_and_changes_nothing(containers: Containers) -> None:
    before = containers.variables()
    containers.compose("run", "--rm", "init")
    containers.compose("run", "--rm", "bootstrap")
    assert containers.variables() == before
    containers.wait_healthy()


def test_status_of_the_containers_is_json_with_a_service_a_line(containers: Containers) -> None:
    found = containers.sluice("status")
    assert found["ready"]
    assert all(json.dumps(item) for item in found["services"])


def test_postgres_has_no_port_of_this_machine_and_is_told_at_its_container_s_address(containers: Containers) -> None:
    (postgres,) = containers.ids("postgres")
    bound = containers.run("docker", "inspect", "--format", "{{json .HostConfig.PortBindings}}", postgres)
    assert not json.loads(bound.stdout)
    urls = {item["name"]: item["url"] for item in containers.sluice("status")["services"]}
    address = containers.settings.postgres_address
    assert address is not None
    assert re.fullmatch(r"(?!127\.)[\d.]+:5432", address)
    assert urls["sluice-test-postgres-1"] == address
    assert f"@{address}/lake" in containers.variables()["PYICEBERG_CATALOG__LAKE__URI"]


@pytest.mark.long
def test_an_overlay_gives_postgres_a_port_for_who_cannot_reach_its_container(containers: Containers) -> None:
    port = str(free_port_block(1))
    overlay = {"COMPOSE_FILE": "compose/compose.yaml:compose/postgres-port.yaml", "POSTGRES_PORT": port}
    start = ("up", "--detach", "--wait", "--wait-timeout", "300", "--no-deps", "postgres")
    with_port = replace(containers, environment=containers.environment | overlay)
    try:
        with_port.compose(*start)
        # What is there counts, not the files that the command is called with.
        assert containers.settings.postgres_address == f"127.0.0.1:{port}"
        assert containers.sluice("sql", "select 1 as one") == [{"one": 1}]
    finally:
        containers.compose(*start)
    containers.wait_healthy()
    assert containers.sluice("sql", "select 1 as one") == [{"one": 1}]


def test_retention_is_told_as_the_servers_in_containers_have_it(containers: Containers) -> None:
    found = containers.sluice("status", "--retention")
    assert "lake.bronze.events" in json.dumps(found)


@pytest.mark.long
def test_an_airflow_that_is_there_already_is_given_the_connections(containers: Containers, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    environment = {
        "AIRFLOW_HOME": str(tmp_path),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLUICE_SECRETS_FILE": str(Path(containers.environment["SECRETS_FOLDER"]) / "operator" / "secrets.env"),
        "SLUICE_SPARK_MASTER_ADDRESS": "spark.example.com:7077",
    }
    for command in ("airflow db migrate", "bash compose/setup_airflow_connections.sh"):
        subprocess.run(command.split(), cwd=PROJECT, env=environment, check=True, capture_output=True)
    shown = subprocess.run(
        [str(programs / "airflow"), "connections", "get", "spark_default", "--output", "json"],
        cwd=PROJECT, env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    (found,) = json.loads(shown[shown.index("[") :])
    assert (found["conn_type"], found["host"], str(found["port"])) == ("spark", "spark://spark.example.com", "7077")


@pytest.mark.long
def test_a_backup_brings_back_databases_that_were_lost_and_an_older_one_leaves_newer_files_to_reconcile(
    containers: Containers, month: Month, tmp_path: Path
) -> None:
    old, newer = unique_key(), unique_key()
    containers.put(old, month(150, 41))
    accounted(containers, old, 150)
    first = containers.sluice("backup", str(tmp_path / "first"))["folder"]
    containers.put(newer, month(170, 42))
    accounted(containers, newer, 170)
    runs = runs_of_airflow(containers)
    second = containers.sluice("backup", str(tmp_path / "second"))["folder"]

    containers.compose("rm", "--stop", "--force", "postgres")
    containers.run("docker", "volume", "rm", f"{containers.environment['COMPOSE_PROJECT_NAME']}_postgres")
    containers.sluice("restore", second)
    accounted(containers, old, 150)
    accounted(containers, newer, 170)
    assert runs <= runs_of_airflow(containers)

    containers.sluice("restore", first)
    accounted(containers, old, 150)
    containers.sluice("reconcile", "--full")
    accounted(containers, newer, 170)


def runs_of_airflow(containers: Containers) -> set[str]:
    """Ids of the runs to silver and gold that Airflow remembers."""
    with psycopg.connect(containers.settings.postgres_url("airflow", "airflow")) as link:
        rows = link.execute("select run_id from dag_run where dag_id like 'nyc_yellow_to_%'").fetchall()
    return {str(row[0]) for row in rows}
