"""Every command of the README's blocks works as it stands there; see tests/sluice/test_docs.py for its text."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.settings import PROJECT
from tests.chain.conftest import MakeMonth
from tests.conftest import Stack
from tests.documents import shell_lines

pytestmark = [pytest.mark.stack, pytest.mark.alone, pytest.mark.timeout(1200)]

LINES = shell_lines(PROJECT / "README.md")
# `make test` is what runs this test, and `sluice down` is what ends the stack that these tests share: its fixture runs
# it, and checks that nothing is left running.
ELSEWHERE = {"make test", "sluice down"}


def test_readme_has_the_two_commands() -> None:
    assert LINES[:2] == ["make demo", "make test"]


def test_commands_of_the_readme_work_one_after_another(
    stack: Stack, month: MakeMonth, tmp_path: Path, unique: str
) -> None:
    (tmp_path / "trips_2025-01.parquet").write_bytes(month(40, seed=int(unique[:6], 16)))
    bins = Path(sys.executable).parent
    script = ["set -e", f"export PATH={shlex.quote(str(bins))}:$PATH"]
    for line in LINES:
        if line in ELSEWHERE or line.startswith("export PATH"):
            continue
        # The demo of the README's first block has 3 million rows; the short one stands in its text.
        command = 'make demo ARGS="--source sample --rows 20000"' if line == "make demo" else line
        if command.startswith("make "):
            command = command.replace("make ", f"make -C {shlex.quote(str(PROJECT))} ", 1)
        if line.startswith("sluice replay "):
            # `sluice profile` waits for that of a file that is done, which a replayed one is not for a while.
            profiled = f"until sluice profile {shlex.split(line)[-1]}; do sleep 1; done"
            script += [f"echo {shlex.quote('+ ' + profiled)}", f"timeout 300 sh -c {shlex.quote(profiled)}"]
        script += [f"echo {shlex.quote('+ ' + command)}", command]
    done = subprocess.run(
        ["/bin/sh", "-c", "\n".join(script)],
        cwd=tmp_path, env=stack.environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr


def test_job_by_hand_says_what_it_takes(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, str(PROJECT / "spark_jobs" / "data_preprocessing_job.py"), "--help"],
        env=stack.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "--year" in done.stdout
    assert "--month" in done.stdout
