"""Spark's folder in the cache: its JVMs take their classes from the archive, and go without where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from contracts.settings import load_settings
from sluice import spark_home as module
from sluice.install import SUBMIT_DEFAULTS, Java, pyspark_home
from sluice.spark_home import CLASSES, make_spark_home, spark_environment, spark_home

OF_JAVA = ("java/", "javax/", "jdk/", "sun/", "com/sun/", "org/w3c/", "org/xml/sax/", "org/ietf/", "netscape/")


def test_classes_to_archive_are_sorted_and_are_in_the_jars() -> None:
    names = CLASSES.read_text("utf-8").splitlines()
    assert names == sorted(set(names))
    there = {
        entry.removesuffix(".class").removeprefix("META-INF/versions/9/").removeprefix("META-INF/versions/11/")
        for jar in (pyspark_home() / "jars").glob("*.jar")
        for entry in zipfile.ZipFile(jar).namelist()
        if entry.endswith(".class")
    }
    lacking = [name for name in names if not name.startswith(OF_JAVA) and name not in there]
    assert len(lacking) < len(names) / 100, lacking[:20]


@pytest.mark.parametrize("by_hand", [False, True], ids=["as-a-service", "by-hand"])
def test_spark_takes_its_classes_from_the_archive(by_hand: bool, tmp_path: Path) -> None:
    home = spark_home(load_settings().cache)
    if home == pyspark_home():
        pytest.skip("no archive of Spark's classes is here: `make setup` makes it, or says why not")
    loaded = f"-Xlog:class+load:file={tmp_path}/%p"
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "JDK_"))}
    if by_hand:
        program = Path(sys.executable).with_name("spark-submit")
        environment = {"JDK_JAVA_OPTIONS": loaded, "PYSPARK_PYTHON": sys.executable}
    else:
        program, environment = home / "bin" / "spark-submit", spark_environment(load_settings().cache)
        environment["JDK_JAVA_OPTIONS"] += f" {loaded}"
    done = subprocess.run(
        [str(program), "--version"], env=ours | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "version 4.1" in done.stderr
    assert "[warning]" not in done.stdout + done.stderr
    lines = [line for path in tmp_path.iterdir() for line in path.read_text("utf-8").splitlines()]
    submit = [line for line in lines if " org.apache.spark.deploy.SparkSubmit source:" in line]
    assert [line.partition("source: ")[2] for line in submit] == ["shared objects file (top)"]


def test_spark_is_pyspark_s_own_where_the_cache_has_none_or_one_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "spark-home-0123456789ab").mkdir()
    (tmp_path / "spark-home-0123456789ab" / "complete").touch()
    assert spark_home(tmp_path) == pyspark_home()
    environment = spark_environment(tmp_path)
    assert environment["SPARK_HOME"] == str(pyspark_home())
    assert "SharedArchiveFile" not in environment["JDK_JAVA_OPTIONS"]
    assert "log4j2.properties" in environment["JDK_JAVA_OPTIONS"]


def test_a_person_s_options_of_java_come_after_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Xlog:gc")
    assert spark_environment(tmp_path)["JDK_JAVA_OPTIONS"].endswith(" -Xlog:gc")


@pytest.fixture
def pyspark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pyspark of a few files."""
    home = tmp_path / "pyspark"
    for part in ("bin", "jars", "python", "conf"):
        (home / part).mkdir(parents=True)
    (home / "jars" / "slf4j-api-2.jar").write_bytes(b"")
    (home / "conf" / "spark-defaults.conf").symlink_to(SUBMIT_DEFAULTS)
    monkeypatch.setattr(module, "pyspark_home", lambda: home)
    return home


def test_defaults_of_spark_submit_have_java_options_alone_since_no_more_is_said_with_the_archive() -> None:
    lines = SUBMIT_DEFAULTS.read_text("utf-8").splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("#")] == ["spark.driver.extraJavaOptions"]


def _java(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """A Java that does as said with the archive that it is asked for."""
    (folder / "bin").mkdir(parents=True)
    (folder / "release").write_text('JAVA_VERSION="17.0.1"')
    program = folder / "bin" / "java"
    program.write_text(
        "#!/bin/sh\nfor option; do case $option in -XX:ArchiveClassesAtExit=*) archive=${option#*=};; esac; done\n"
        + does
    )
    program.chmod(0o755)
    monkeypatch.setattr(module, "ensure_java", lambda say: Java(folder, 17))
    monkeypatch.setattr(module, "find_java", lambda: Java(folder, 17))


def test_archive_is_made_once_and_another_one_for_other_jars(
    pyspark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path / "java", monkeypatch, 'echo made > "$archive"')
    cache, said = tmp_path / "cache", list[str]()
    for _ in range(2):
        make_spark_home(cache, said.append)
    first = spark_home(cache)
    assert (first / "spark.jsa").read_text() == "made\n"
    assert len(said) == 1
    (pyspark / "jars" / "iceberg.jar").write_bytes(b"new")
    assert spark_home(cache) == pyspark
    make_spark_home(cache, said.append)
    assert len(said) == 2
    assert (spark_home(cache) / "jars" / "iceberg.jar").read_bytes() == b"new"
    assert (first / "spark.jsa").is_file(), "a stack of the other version may run on it"


def test_folder_of_another_version_goes_a_month_after_its_last_setup_unless_a_process_runs_on_it(
    pyspark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path / "java", monkeypatch, 'echo made > "$archive"')
    cache = tmp_path / "cache"
    fresh, old, running, half = (cache / f"spark-home-{name}" for name in ("fresh", "old", "running", "half"))
    for home in (fresh, old, running, half):
        home.mkdir(parents=True)
    for home in (fresh, old, running):
        (home / "complete").touch()
    for home in (old, running):
        os.utime(home / "complete", (0, 0))
    with subprocess.Popen([sys.executable, "-c", "input()", str(running / "jars")], stdin=subprocess.PIPE) as process:
        make_spark_home(cache, print)
        process.communicate(b"\n")
    assert set(cache.glob("spark-home-*")) == {fresh, running, spark_home(cache)}


def test_java_that_makes_no_archive_is_told_and_spark_is_pyspark_s_own(
    pyspark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path / "java", monkeypatch, "echo this Java cannot >&2; exit 1")
    said: list[str] = []
    make_spark_home(tmp_path / "cache", said.append)
    assert said[-1].endswith("ended with 1: this Java cannot")
    assert spark_home(tmp_path / "cache") == pyspark
    assert list((tmp_path / "cache").glob("spark-home-*")) == []
    assert not (pyspark / "conf" / "spark-env.sh").exists()


def _sourced(pyspark: Path, *arguments: str, name: str = "SPARK_HOME") -> str:
    """A variable after `spark-submit` with these arguments has read its environment file, as it does."""
    script = f'SPARK_CONF_DIR="{pyspark}/conf"; SPARK_HOME=usual; . "$SPARK_CONF_DIR/spark-env.sh"; echo "${name}"'
    command = ["/bin/bash", "-euc", script, "spark-class", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        pytest.param([], True, id="nothing"),
        pytest.param(["--driver-java-options", "-XX:+UseG1GC"], False, id="driver-java-options"),
        pytest.param(["--conf", "spark.driver.extraJavaOptions=-XX:+UseG1GC"], False, id="conf"),
        pytest.param(["--properties-file", "mine.conf"], False, id="properties-file"),
    ],
)
def test_java_options_of_a_job_by_hand_are_the_person_s_where_they_give_some(
    arguments: list[str], ours: bool, pyspark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path / "java", monkeypatch, 'echo made > "$archive"')
    make_spark_home(tmp_path / "cache", print)
    options = _sourced(pyspark, *arguments, name="SPARK_SUBMIT_OPTS")
    assert ("-XX:+UseSerialGC" in options) is ours
    assert "-XX:SharedArchiveFile" in options


def test_spark_submit_takes_the_cache_s_spark_unless_a_person_has_settings_of_their_own(
    pyspark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path / "java", monkeypatch, 'echo made > "$archive"')
    cache = tmp_path / "cache of 'mine'"
    make_spark_home(cache, print)
    assert _sourced(pyspark) == str(spark_home(cache))
    shutil.rmtree(spark_home(cache))
    assert _sourced(pyspark) == "usual"
    make_spark_home(cache, print)
    (pyspark / "conf" / "log4j2.properties").touch()
    assert _sourced(pyspark) == "usual"
    (pyspark / "conf" / "log4j2.properties").unlink()
    assert _sourced(pyspark) == str(spark_home(cache))
    (pyspark / "conf" / "spark-defaults.conf").unlink()
    (pyspark / "conf" / "spark-defaults.conf").write_text("spark.ui.enabled false")
    assert _sourced(pyspark) == "usual"


def test_a_person_s_own_environment_of_spark_stays(
    pyspark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path / "java", monkeypatch, 'echo made > "$archive"')
    (pyspark / "conf" / "spark-env.sh").write_text("SPARK_HOME=mine")
    make_spark_home(tmp_path / "cache", print)
    assert _sourced(pyspark) == "mine"
