"""What can be said of the files in compose/ without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.settings import PROJECT, USUAL_PORTS, Settings
from sluice.airflow_config import airflow_environment
from sluice.containers import PARTS, SERVICES
from sluice.postgres_server import tuning
from sluice.secrets import SECRETS

COMPOSE = PROJECT / "compose"
FILES = sorted(COMPOSE.glob("*.yaml"))
STACK: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))
PARTS_OF_STACK: dict[str, dict[str, Any]] = STACK["services"]
ONE_SHOT = {"init", "bootstrap", "warmup"}
DOCKERFILES = sorted(COMPOSE.glob("Dockerfile.*"))
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")

each_service = pytest.mark.parametrize("name", PARTS_OF_STACK)


TOOLS = Path(sys.executable).parent
# Debian's mirrors keep no older version of a package, so one that is pinned cannot be built a month later.
LINT_IGNORES = ("DL3008",)


def written(value: str) -> str:
    """A value with each variable's default in its place."""
    return DEFAULT.sub(r"\1", value)


def plain_yaml(path: Path) -> str:
    """A file's text without the tag that is Compose's own, for a merge."""
    return path.read_text("utf-8").replace("!override", "")


@each_service
def test_every_image_is_ours_or_names_one_version(name: str) -> None:
    image = written(PARTS_OF_STACK[name]["image"])
    tag = image.partition("@")[0].rpartition(":")[2]
    assert image.startswith("sluice/") or (re.match(r"v?\d|RELEASE\.\d", tag) and "." in tag), image
    assert "latest" not in image


@pytest.mark.parametrize("overlay", [path for path in FILES if path.name != "compose.yaml"], ids=lambda path: path.name)
def test_each_image_of_ours_is_built_by_one_service_which_no_overlay_leaves_out(overlay: Path) -> None:
    built = [name for name, service in PARTS_OF_STACK.items() if "build" in service]
    ours = {service["image"] for service in PARTS_OF_STACK.values() if service["image"].startswith("sluice/")}
    assert sorted(PARTS_OF_STACK[name]["image"] for name in built) == sorted(ours)
    changed = yaml.safe_load(plain_yaml(overlay))["services"]
    assert not [name for name in built if "profiles" in {**PARTS_OF_STACK[name], **changed.get(name, {})}]


def test_the_store_is_pinned_by_tag_and_digest() -> None:
    assert re.fullmatch(r"pgsty/silo:RELEASE[\w.-]+@sha256:[0-9a-f]{64}", written(PARTS_OF_STACK["minio"]["image"]))


@each_service
def test_no_service_may_more_than_it_needs(name: str) -> None:
    service = PARTS_OF_STACK[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert "/var/run/docker.sock" not in str(service)
    if name != "init":
        assert "cap_add" not in service
        assert not str(service.get("user", "1")).startswith("0")


@each_service
def test_every_service_has_limits_logs_that_rotate_and_a_restart_policy(name: str) -> None:
    service = PARTS_OF_STACK[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= set(limits)
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@pytest.mark.parametrize("name", sorted(set(PARTS_OF_STACK) - ONE_SHOT))
def test_every_lasting_service_has_a_health_check_that_asks_for_its_job(name: str) -> None:
    check = PARTS_OF_STACK[name]["healthcheck"]
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(check)
    asked = " ".join(check["test"])
    if f"/{name}.py" not in asked and "health.py" in asked:
        assert asked.endswith(f"health.py {name}")


@each_service
def test_ports_are_published_on_the_loopback_address_alone_and_can_be_moved(name: str) -> None:
    for port in PARTS_OF_STACK[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+\}:\d+", port), port


def test_published_ports_are_the_usual_ones() -> None:
    published = {
        match[1].lower(): int(match[2])
        for service in PARTS_OF_STACK.values()
        for port in service.get("ports", ())
        if (match := re.search(r"\$\{([A-Z_]+)_PORT:-(\d+)\}", port))
    }
    other = {"kafka": 9094, "kafka_ui": 8084}  # Kafka's outside listener; a page of its own.
    assert published == {**{name: USUAL_PORTS[name] for name in published if name not in other}, **other}


def test_only_what_people_and_their_tools_go_to_has_a_port_of_this_machine() -> None:
    assert {name for name, service in PARTS_OF_STACK.items() if "ports" in service} == {
        "minio", "kafka", "spark-master", "spark-worker-ui", "spark-connect", "airflow-api-server", "kafka-ui"
    }  # fmt: skip
    assert not any(service.get("network_mode", "none") != "none" for service in PARTS_OF_STACK.values())


def test_the_overlay_for_its_port_alone_publishes_postgres_and_no_other_overlay_anything() -> None:
    overlays = [path for path in FILES if path.name != "compose.yaml"]
    services = {path.name: yaml.safe_load(plain_yaml(path))["services"] for path in overlays}
    published = {
        (file, name): service["ports"]
        for file, parts in services.items()
        for name, service in parts.items()
        if "ports" in service
    }
    usual = f"127.0.0.1:${{POSTGRES_PORT:-{USUAL_PORTS['postgres']}}}:5432"
    assert published == {("postgres-port.yaml", "postgres"): [usual]}
    assert services["postgres-port.yaml"] == {"postgres": {"ports": [usual]}}


@each_service
def test_whoever_waits_for_another_waits_for_its_health_or_its_end(name: str) -> None:
    for other, how in PARTS_OF_STACK[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how == {"condition": wanted}, other


def test_every_one_shot_is_waited_for_since_compose_would_call_its_end_a_failure() -> None:
    waited = {other for service in PARTS_OF_STACK.values() for other in service.get("depends_on", {})}
    assert waited >= ONE_SHOT


def test_only_what_must_reach_postgres_kafka_and_the_queue_is_in_their_networks() -> None:
    members = {
        network: {name for name, service in PARTS_OF_STACK.items() if network in service.get("networks", ())}
        for network in ("database", "events", "queue")
    }
    airflow = {name for name in PARTS_OF_STACK if name.startswith("airflow-")}
    spark = {"spark-master", "spark-connect", "warmup"}
    assert members["database"] == {"postgres", "bootstrap", "router", *spark, *airflow}
    assert members["events"] == {
        "kafka", "kafka-ui", "minio", "bootstrap", "router", "airflow-triggerer", "airflow-worker"
    }  # fmt: skip
    assert members["queue"] == {"valkey", "airflow-scheduler", "airflow-worker"}


def test_no_secret_is_in_an_environment_and_each_part_gets_its_own_alone() -> None:
    for name, service in PARTS_OF_STACK.items():
        for variable in service.get("environment", {}):
            assert not any(variable == f"SLUICE_{secret.upper()}" for secret in SECRETS), name
            assert not variable.endswith("PASSWORD")
        assert len(service.get("secrets", ())) <= 1
    assert set(STACK["secrets"]) == set(PARTS) - {"operator"}
    for name, secret in STACK["secrets"].items():
        assert secret == {"file": f"${{SECRETS_FOLDER:-./secrets}}/{name}"}


def test_secrets_belong_to_the_user_that_the_service_runs_as() -> None:
    for name, service in PARTS_OF_STACK.items():
        if "user" in service and service.get("secrets"):
            assert int(service["user"].partition(":")[0]) == PARTS[service["secrets"][0]].uid, name
    for image, user in (("airflow", PARTS["airflow"].uid), ("spark", PARTS["spark-connect"].uid)):
        last = re.findall(r"^USER (.+)$", (COMPOSE / f"Dockerfile.{image}").read_text("utf-8"), re.MULTILINE)[-1]
        assert last == f"{user}:0"


def test_the_folder_of_every_part_s_secrets_is_there_and_nothing_in_it_is_committed() -> None:
    for part in PARTS:
        assert "*\n!.gitignore" in (COMPOSE / "secrets" / part / ".gitignore").read_text("utf-8")


def test_dags_jobs_and_contracts_of_this_repository_are_mounted_where_nothing_else_is_said() -> None:
    mounted = {
        (written(volume).split(":")[0], *volume.split(":")[-2:])
        for service in PARTS_OF_STACK.values()
        for volume in service.get("volumes", ())
        if "CODE_FOLDER" in volume
    }
    folders = ("airflow/dags", "spark_jobs", "contracts")
    assert mounted == {(f"../{folder}", f"/opt/sluice/{folder}", "ro") for folder in folders}


def test_postgres_has_the_same_options_as_without_containers() -> None:
    assert PARTS_OF_STACK["postgres"]["command"] == ["postgres", *tuning()]


def test_what_our_containers_run_is_a_service_that_the_code_knows() -> None:
    commands = {
        name: service["command"]
        for name, service in PARTS_OF_STACK.items()
        if service["image"].startswith("sluice/") and service.get("command") and "entrypoint" not in service
    }
    for name, command in commands.items():
        assert command == [name]
        assert name == "init" or name in SERVICES


def test_the_order_of_an_upgrade_names_every_part_that_is_built_here_once() -> None:
    page = (PROJECT / "docs" / "compose.md").read_text("utf-8").partition("## A new version")[2].partition("\n## ")[0]
    named = [name for line in re.findall(r"--no-deps ([^#\n]+)", page) for name in line.split()]
    ours = {name for name, service in PARTS_OF_STACK.items() if service["image"].startswith("sluice/")}
    assert sorted(named) == sorted(ours - {"init", "bootstrap", "warmup"})


def test_the_env_file_holds_no_secret() -> None:
    names = {line.partition("=")[0] for line in (PROJECT / ".env").read_text("utf-8").splitlines() if "=" in line}
    assert names == {"COMPOSE_FILE", "COMPOSE_PROJECT_NAME"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_nobody_special_from_a_pinned_base_with_locked_dependencies(path: Path) -> None:
    text = path.read_text("utf-8")
    bases = re.findall(r"^ARG \w+_IMAGE=(\S+)$", text, re.MULTILINE)
    assert bases
    assert all(re.search(r":\d[\w.-]*", base) and "latest" not in base for base in bases)
    assert not re.findall(r"^USER (?:root|0)\b", text, re.MULTILINE) or text.rstrip().rfind("USER") > 0
    assert "--constraints requirements.lock" in text
    assert not re.findall(r"^(?:ENV|ARG) \w*(?:PASSWORD|SECRET|TOKEN)", text, re.MULTILINE)
    assert "ADD " not in text
    assert "rm -rf /var/lib/apt/lists/*" in text


def test_an_image_gets_nothing_but_what_it_copies() -> None:
    lines = (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    assert not any("secrets" in line or ".sluice" in line for line in lines if line.startswith("!"))


def test_every_compose_file_is_valid_by_the_compose_specification(tmp_path: Path) -> None:
    for path in FILES:
        # With the defaults in place, as the engine sees it.
        (tmp_path / path.name).write_text(written(plain_yaml(path)), "utf-8")
    done = _checked("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, tmp_path.iterdir()))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_the_linter(path: Path) -> None:
    ignored = [f"--ignore={rule}" for rule in LINT_IGNORES]
    done = _checked("hadolint", "--no-color", *ignored, str(path))
    assert done.returncode == 0, done.stdout


def test_shell_scripts_pass_the_linter() -> None:
    scripts = [*COMPOSE.glob("*.sh"), *(PROJECT / "tests" / "compose").rglob("*.sh")]
    done = _checked("shellcheck", *map(str, scripts))
    assert done.returncode == 0, done.stdout


def _checked(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(TOOLS / tool), *arguments], capture_output=True, text=True, check=False)


def test_each_setting_of_how_long_what_is_kept_reaches_the_containers_and_is_the_same_by_default() -> None:
    kept = {name: field.default for name, field in Settings.model_fields.items() if name.endswith("_retention_days")}
    assert len(kept) == 3
    for part in ("bootstrap", "airflow-worker"):
        environment = PARTS_OF_STACK[part]["environment"]
        for name, days in kept.items():
            variable = f"SLUICE_{name.upper()}"
            assert environment[variable] == f"${{{variable}:-{days}}}"


def test_task_that_waits_for_a_worker_is_never_failed_for_that() -> None:
    environment = airflow_environment(Settings(redis_address="valkey:6379"))
    # Airflow looks after ten minutes at the earliest: 19 years.
    assert int(environment["AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES"]) * 600 > 19 * 365 * 86_400
