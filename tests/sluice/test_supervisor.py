"""The process manager's folder, and what its services inherit; no process is started."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from contracts.errors import NotRunning
from contracts.settings import Settings, load_settings
from sluice import supervisor


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(supervisor, "_RUN_FOLDERS", tmp_path)
    return Settings(home=tmp_path / "home")


def test_stack_is_found_whatever_folder_of_temporary_files_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = supervisor.run_folder(Settings(home=tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert supervisor.run_folder(Settings(home=tmp_path)) == before


def test_a_look_makes_no_folder_and_a_start_makes_a_private_one(settings: Settings) -> None:
    assert not supervisor.running(settings)
    with pytest.raises(NotRunning, match="sluice up"):
        supervisor.processes(settings)
    folder = supervisor.run_folder(settings)
    assert not folder.exists()
    supervisor.write_configuration(settings)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_folder_that_is_not_private_is_refused(settings: Settings, tmp_path: Path, kind: str) -> None:
    folder = supervisor.run_folder(settings)
    if kind == "open":
        folder.mkdir()
        folder.chmod(0o755)
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.touch(mode=0o600)
    for look in (supervisor.run_folder, supervisor.running, supervisor.write_configuration):
        with pytest.raises(NotRunning, match="is not a private folder of this user"):
            look(settings)


def test_folder_of_another_user_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    folder = supervisor.run_folder(settings)
    folder.mkdir(mode=0o700)
    with pytest.raises(NotRunning, match="is not a private folder of this user"):
        supervisor.run_folder(settings)


def test_services_inherit_paths_that_hold_in_any_folder_and_a_locale_that_can_write_any_name(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C")
    for name in ("SLUICE_HOME", "SLUICE_CACHE", "SLUICE_CONTRACTS_DIR", "SLUICE_SECRETS_FILE"):
        monkeypatch.setenv(name, f"below/{name.lower()}")
    inherited: dict[str, str] = {}

    def run(*arguments: object, env: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
        inherited.update(env)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(supervisor.subprocess, "run", run)
    supervisor.start(load_settings())
    for name in ("SLUICE_HOME", "SLUICE_CACHE", "SLUICE_CONTRACTS_DIR", "SLUICE_SECRETS_FILE"):
        assert inherited[name] == str(tmp_path / "below" / name.lower())
    assert inherited["LC_ALL"] == "C.UTF-8"
