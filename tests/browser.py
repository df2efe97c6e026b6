"""A real headless browser for tests: one that is there, or, where that may be installed, Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PACKAGE = "chromium-headless-shell"


@cache
def browser() -> str:
    """Path of a headless browser; skips the test, with the reason, where there is none and none can be installed."""
    found = _on_path()
    apt = shutil.which("apt-get")
    if found is None and apt and os.geteuid() == 0:
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", PACKAGE]):
            subprocess.run([apt, *command], capture_output=True, timeout=600, check=False)
        found = _on_path()
    if found is None:
        pytest.skip(f"no headless browser: install one of {', '.join(NAMES)}, for example the package {PACKAGE}")
    return found


def _on_path() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def look_at(page: Path, folder: Path, *, dark: bool = False) -> tuple[str, str, Path]:
    """Open a page; what became of its text, what the browser complained of, and a picture of it."""
    picture = folder / f"{page.stem}{'-dark' if dark else ''}.png"
    options = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user",
        "--enable-logging=stderr", "--window-size=1280,2300",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]  # fmt: skip
    told = subprocess.run(
        [*options, f"--screenshot={picture}", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    dom = subprocess.run(
        [*options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    complaints = [line for line in told.stderr.splitlines() if ":CONSOLE" in line]
    return dom.stdout, "\n".join(complaints), picture
