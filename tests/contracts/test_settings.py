"""Where a stack's folders are, and what is told when they cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import UsageError
from contracts.settings import PROJECT, SECRETS_FILE, Settings, load_settings


def test_home_of_another_user_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.delenv("SLUICE_SECRETS_FILE", raising=False)
    (tmp_path / SECRETS_FILE).touch()

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match=f"{tmp_path / SECRETS_FILE} cannot be read: it belongs to the user who start"):
        load_settings()


@pytest.mark.parametrize("variable", ["SLUICE_HOME", "SLUICE_SECRETS_FILE"])
def test_path_that_is_too_long_is_told_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.delenv("SLUICE_SECRETS_FILE", raising=False)
    monkeypatch.setenv(variable, "/" + "x" * 300)
    with pytest.raises(UsageError, match=f"xxx.* cannot be read: File name too long. Point {variable} elsewhere"):
        load_settings()


def test_links_in_a_circle_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "a"))
    monkeypatch.setattr(Path, "resolve", _as_before_3_13)
    with pytest.raises(UsageError, match=f"{tmp_path / 'a'} cannot be read: Symlink loop"):
        load_settings()


def _as_before_3_13(path: Path) -> Path:
    raise RuntimeError(f"Symlink loop from {str(path)!r}")


@pytest.mark.parametrize("variable", ["SLUICE_CACHE", "SLUICE_CONTRACTS_DIR"])
def test_relative_folder_is_one_of_the_folder_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "below")
    field = variable.removeprefix("SLUICE_").lower()
    assert getattr(load_settings(), field) == tmp_path / "below"
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.setenv(variable, "~/below")
    assert getattr(load_settings(), field) == tmp_path / "person" / "below"


def test_folder_of_contracts_may_be_a_link_that_is_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "now").symlink_to(tmp_path / "v1")
    monkeypatch.setenv("SLUICE_CONTRACTS_DIR", str(tmp_path / "now"))
    assert load_settings().contracts_dir == tmp_path / "now"


def default_cache(code: str = "", **environment: str) -> str:
    """The cache folder of a fresh process, which runs some code first."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom contracts.settings import Settings; print(Settings().cache)"],
        env=inherited | environment, cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_cache_folder_is_the_user_s_also_where_the_variable_is_empty(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert default_cache(**home, XDG_CACHE_HOME="") == str(tmp_path / ".cache" / "sluice")
    assert default_cache(**home, XDG_CACHE_HOME=str(tmp_path / "xdg")) == str(tmp_path / "xdg" / "sluice")


def test_user_without_a_home_can_read_settings() -> None:
    no_entry = "import os, pwd\nos.environ.pop('HOME', None)\ndef unknown(uid): raise KeyError\npwd.getpwuid = unknown"
    assert default_cache(no_entry).endswith("/sluice")


def test_folders_that_settings_name_by_default_are_absolute() -> None:
    assert Settings().cache.is_absolute()
    assert Settings().contracts_dir.is_absolute()
