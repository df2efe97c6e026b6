"""The environment that `make setup` makes; Python, pip and uv are stand-ins that note what they are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.settings import PROJECT

MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")

PIP = """#!/bin/sh
echo "pip $*" >> "$NOTES"
case "$*" in *install*) printf '#!/bin/sh\\n' > .venv/bin/uv; chmod +x .venv/bin/uv ;; esac
"""
WITHOUT_PIP = "#!/bin/sh\nexit 1\n"
VENV = """#!/bin/sh
echo "venv $*" >> "$NOTES"
rm -rf .venv; mkdir -p .venv/bin; cp "$(dirname "$0")/pip" .venv/bin/python
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("there", "made", "installed"),
    [
        pytest.param({}, True, True, id="nothing"),
        pytest.param({"python": WITHOUT_PIP}, True, True, id="interrupted-before-pip"),
        pytest.param({"python": PIP}, False, True, id="interrupted-before-uv"),
        pytest.param({"python": WITHOUT_PIP, "uv": "#!/bin/sh\n"}, False, False, id="whole-and-pip-is-gone"),
        pytest.param({"uv": "#!/bin/sh\n"}, True, True, id="its-python-is-gone"),
    ],
)
def test_environment_is_made_where_it_is_not_whole(
    tmp_path: Path, there: dict[str, str], made: bool, installed: bool
) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    program(tmp_path / "tools" / "python", VENV)
    program(tmp_path / "tools" / "pip", PIP)
    for name, text in there.items():
        program(tmp_path / ".venv" / "bin" / name, text)
    notes = tmp_path / "notes"
    notes.touch()
    subprocess.run(
        [str(MAKE), "--silent", ".venv/.ready", f"PYTHON={tmp_path / 'tools' / 'python'}"],
        cwd=tmp_path, env=os.environ | {"NOTES": str(notes)}, check=True, capture_output=True,
    )  # fmt: skip
    asked = notes.read_text()
    assert ("venv -m venv" in asked) is made
    assert ("pip install" in asked) is installed
    assert (tmp_path / ".venv" / ".ready").exists()
