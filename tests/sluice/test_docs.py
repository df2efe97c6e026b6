"""What the documents name is there: commands, paths, tests, links."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.settings import PROJECT
from tests.documents import DOCUMENTS, inline_code, prose, resolve, shell_lines, sluice_commands

FOLDERS = tuple(f"{path.name}/" for path in PROJECT.iterdir() if path.is_dir() and not path.name.startswith("."))
TESTS = {
    path: re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    for path in (PROJECT / "tests").rglob("test_*.py")
}
ALL_TESTS = {name for names in TESTS.values() for name in names}
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@each_document
def test_command_line_takes_every_sluice_command(document: Path) -> None:
    for command in sluice_commands(document):
        found, words = resolve(command)
        if words:
            found.make_context(command, words)


@each_document
def test_every_path_is_there(document: Path) -> None:
    words = (word.split("::")[0] for code in inline_code(document) for word in code.split())
    for path in filter(lambda word: word.startswith(FOLDERS), words):
        # `<dataset>` and the like stand for any name.
        assert list(PROJECT.glob(re.sub(r"<\w+>", "*", path))), path


@each_document
def test_every_test_is_there(document: Path) -> None:
    for code in inline_code(document):
        file, _, name = code.rpartition("::")
        if re.fullmatch(r"test_\w+\.py", code):
            assert code in {path.name for path in TESTS}, code
        elif re.fullmatch(r"test_\w+…?", name):
            known = TESTS[PROJECT / file] if file else ALL_TESTS
            start = name.removesuffix("…")
            # The ellipsis stands for the rest of a long name.
            assert any(test.startswith(start) if name != start else test == name for test in known), code


@each_document
def test_every_pytest_command_selects_tests(document: Path) -> None:
    for command in (*shell_lines(document), *inline_code(document)):
        _, pytest_, arguments = command.partition("-m pytest ")
        if pytest_:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "--collect-only", "-q", *shlex.split(arguments)],
                cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}"


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def _anchors(document: Path) -> set[str]:
    """What GitHub calls a document's headings in addresses."""
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
