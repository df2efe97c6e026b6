"""Spark's programs in the cache folder, with an archive of the classes that its processes load (class data sharing).

A JVM finds, parses and verifies some 20,000 classes before Spark's first query ends: half of the CPU time until then
(docs/architecture.md). With the archive it maps them into memory. A JVM takes an archive only with the class path that
it was made for, so the jars have one place for all environments of a user, and no folder with files is on the path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import psutil

from sluice.install import (
    JARS,
    LOGGING,
    QUICK_JVM,
    SUBMIT_DEFAULTS,
    Java,
    Say,
    ensure_java,
    find_java,
    pyspark_home,
)

CLASSES = JARS / "spark.classes"
"""Names of classes, sorted, a line each; docs/architecture.md tells how they are recorded."""
LOADER = JARS / "LoadClasses.java"
# Where it was made for, all JVMs share its pages; moved, as is Java's default, each has 200 MB of its own.
_AT_ITS_ADDRESS = "-XX:+UnlockDiagnosticVMOptions -XX:ArchiveRelocationMode=0"
_SILENT = "-Xlog:cds=off -Xlog:cds+dynamic=off"
KEPT_SECONDS = 30 * 86400
"""For how long the folder of another version stays after its last `make setup`."""
_PARTS = ("bin", "jars", "python")


def spark_home(cache: Path) -> Path:
    """Spark as its services run it: the cache's, or pyspark's own where that is none of this version and Java."""
    java = find_java()
    home = None if java is None else _home(cache, java)
    return home if home is not None and _complete(home).is_file() else pyspark_home()


def spark_environment(cache: Path) -> dict[str, str]:
    """Environment of a Spark process: where Spark is, and its JVM's options; executors have it of their worker."""
    home = spark_home(cache)
    options = (
        f'-Dlog4j2.configurationFile="{LOGGING}" {_archive_options(home)} {os.environ.get("JDK_JAVA_OPTIONS", "")}'
    )
    return {"SPARK_HOME": str(home), "SPARK_CONF_DIR": str(_no_conf(home)), "JDK_JAVA_OPTIONS": options.strip()}


def _archive_options(home: Path) -> str:
    """Options of a JVM that uses the archive, if there is one; with another class path it goes on without, silently."""
    archive = _archive(home)
    return f'-XX:SharedArchiveFile="{archive}" {_AT_ITS_ADDRESS} {_SILENT}' if archive.is_file() else ""


def make_spark_home(cache: Path, say: Say) -> None:
    """Put Spark's programs and jars into the cache and make the archive, unless they are there; and have `spark-submit`
    of this environment use them.

    Raises:
        SetupError: Java is missing.
    """
    java = ensure_java(say)
    home = _home(cache, java)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "spark-home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _complete(home).is_file():
            say("Archiving the classes that Spark loads, so that it starts sooner; half a minute to two, once ...")
            shutil.rmtree(home, ignore_errors=True)
            for part in _PARTS:
                shutil.copytree(pyspark_home() / part, home / part, copy_function=_link_or_copy)
            wrong = _make_archive(java, home)
            if wrong:
                say(f"Java makes no archive, so Spark starts without: {wrong}")
                shutil.rmtree(home)
                return
        _complete(home).touch()
        for old in cache.glob("spark-home-*"):
            if old != home and not _in_use(old):
                shutil.rmtree(old)
    _write_submit_environment(home)


def _home(cache: Path, java: Java) -> Path:
    """The folder for this version, so that a stack of another one keeps what it runs on."""
    jars = sorted((jar.name, jar.stat().st_size) for jar in (pyspark_home() / "jars").glob("*.jar"))
    release = (java.home / "release").read_bytes()
    parts = (CLASSES.read_bytes(), LOADER.read_bytes(), release, repr((str(java.home), jars)).encode())
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    return cache / f"spark-home-{key[:12]}"


def _complete(home: Path) -> Path:
    """A file that is there once all else is; its time is that of the last `make setup`."""
    return home / "complete"


def _in_use(home: Path) -> bool:
    """Whether an environment was set up with it not long ago, or a process runs on it."""
    if _complete(home).is_file() and time.time() - _complete(home).stat().st_mtime < KEPT_SECONDS:
        return True
    return any(
        str(home) in part for process in psutil.process_iter(["cmdline"]) for part in process.info["cmdline"] or ()
    )


def _archive(home: Path) -> Path:
    return home / "spark.jsa"


def _no_conf(home: Path) -> Path:
    """A folder that is not there: Spark puts it on the class path, and one with files would keep archives out."""
    return home / "conf.none"


def _class_path(home: Path) -> str:
    """The class path that Spark's launcher gives to a JVM."""
    first = next((home / "jars").glob("slf4j-api-*.jar"))
    return f"{_no_conf(home)}/:{first}:{home}/jars/*"


def _make_archive(java: Java, home: Path) -> str:
    """Make it; what went wrong, or nothing."""
    # Janino, which Spark brings along, runs the loader from its source: a Java without a compiler is enough.
    command = [str(java.binary), *QUICK_JVM, f"-XX:ArchiveClassesAtExit={_archive(home)}", "-Xlog:disable"]
    command += [
        "-cp",
        _class_path(home),
        "org.codehaus.janino.SimpleCompiler",
        str(LOADER),
        "LoadClasses",
        str(CLASSES),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "JDK_JAVA_OPTIONS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode or not _archive(home).is_file():
        said = (done.stderr + done.stdout).strip().splitlines() or ["it said nothing"]
        return f"{java.binary} ended with {done.returncode}: {said[0][:300]}"
    return ""


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # Another file system, or one without such links.
        shutil.copy2(source, target)


def _write_submit_environment(home: Path) -> None:
    """Have a `spark-submit` by hand take the cache's Spark too, unless its folder has a person's own settings.

    None of that folder is read then: it would be on the class path.
    """
    conf = pyspark_home() / "conf"
    mine, script = "# Made by `make setup`.", conf / "spark-env.sh"
    if script.exists() and not script.read_text("utf-8", errors="replace").startswith(mine):
        return
    lines = SUBMIT_DEFAULTS.read_text("utf-8").splitlines()
    defaults = dict(line.split(maxsplit=1) for line in lines if not line.startswith("#"))
    script.write_text(
        f"""{mine} Spark from the cache folder, with its archive of classes, if that is there and
# this folder has no settings of your own. What our defaults say is said here, where the command line says nothing.
if [ -L "$SPARK_CONF_DIR/spark-defaults.conf" ] && [ -f {shlex.quote(str(_complete(home)))} ] &&
    [ "$(echo $(ls -A "$SPARK_CONF_DIR"))" = "spark-defaults.conf spark-env.sh" ]; then
    SPARK_HOME={shlex.quote(str(home))}
    SPARK_CONF_DIR={shlex.quote(str(_no_conf(home)))}
    SPARK_SUBMIT_OPTS={shlex.quote(_archive_options(home))}" ${{SPARK_SUBMIT_OPTS:-}}"
    case "$*" in
        *--driver-java-options* | *spark.driver.extraJavaOptions* | *--properties-file*) ;;
        *) SPARK_SUBMIT_OPTS="{defaults["spark.driver.extraJavaOptions"]} $SPARK_SUBMIT_OPTS" ;;
    esac
fi
""",
        "utf-8",
    )
