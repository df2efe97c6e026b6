"""Fail points: nothing happens without the tests' folder, and an armed step is good for one death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from contracts.fail_points import FOLDER, Step

REACH = f"from contracts.fail_points import Step, reach; reach(Step.{Step.ROUTER_SENT.name}); print('alive')"


def reached(folder: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != FOLDER}
    if folder is not None:
        environment[FOLDER] = str(folder)
    command = [sys.executable, "-c", REACH]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_armed_step_kills_the_process_once_and_no_other_step_does(tmp_path: Path) -> None:
    (tmp_path / Step.ROUTER_READ).touch()
    assert reached(tmp_path).stdout == "alive\n"
    (tmp_path / Step.ROUTER_SENT).touch()
    died = reached(tmp_path)
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "")
    assert reached(tmp_path).stdout == "alive\n"
    assert [path.name for path in tmp_path.iterdir()] == [Step.ROUTER_READ]


def test_without_the_folder_no_step_does_anything() -> None:
    assert reached(None).stdout == "alive\n"
