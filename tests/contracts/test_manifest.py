"""Manifests of sets."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadManifest
from contracts.manifest import MAX_FILES, Manifest, ManifestFile, parse_manifest

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=100).filter(
    lambda name: name[0] not in "_."
)
FILES = st.builds(ManifestFile, name=NAMES, rows=st.none() | st.integers(0, 2**63 - 1))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["files", "name", "rows"]), inner),
)


def listing(*files: object, **others: object) -> bytes:
    return json.dumps({"files": files, **others}).encode()


@given(st.lists(FILES, min_size=1, max_size=5, unique_by=lambda file: file.name))
def test_manifest_comes_back_as_it_was_written(files: list[ManifestFile]) -> None:
    manifest = Manifest(files=tuple(files))
    assert parse_manifest(manifest.model_dump_json().encode()) == manifest


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything_but_bad_manifest(value: bytes) -> None:
    with contextlib.suppress(BadManifest):
        parse_manifest(value)


def test_rows_may_be_left_out_and_keys_beside_the_files_are_the_producers_own() -> None:
    manifest = parse_manifest(listing({"name": "a"}, {"name": "b", "rows": None}, made_by="me", at={"x": [1]}))
    assert [(file.name, file.rows) for file in manifest.files] == [("a", None), ("b", None)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(b"", "not a manifest: the whole: Invalid JSON", id="empty"),
        pytest.param(b"[" * 100_000, "recursion limit", id="deep-nesting"),
        pytest.param(b'{"x": ' + b"[" * 100_000, "recursion limit", id="deep-nesting-in-what-is-ignored"),
        pytest.param(b'{"files": [{"name": "a", "rows": ' + b"9" * 5_000 + b"}]}", "out of range", id="huge-number"),
        pytest.param(b"[]", "should be an object", id="list"),
        pytest.param(b"{}", "files: Field required", id="no-files"),
        pytest.param(listing(), "1 to 10,000 files were expected, not 0", id="none"),
        pytest.param(listing(*({"name": str(n)} for n in range(MAX_FILES + 1))), "not 10,001", id="too-many"),
        pytest.param(listing({"name": "a"}, {"name": "a"}), "'a' is listed twice", id="twice"),
        pytest.param(listing({"name": "x/a"}), "files.0.name: .* without '/'", id="path"),
        pytest.param(listing({"name": "a\0"}), "files.0.name: .* NUL", id="nul"),
        pytest.param(listing({"name": "_a"}), "never taken in", id="work-file"),
        pytest.param(listing({"name": "東" * 342}), "longer than the 1,024 bytes", id="too-long-in-bytes"),
        pytest.param(listing({"name": "a", "rows": -1}), "files.0.rows: .* greater than or equal to 0", id="negative"),
        pytest.param(listing({"name": "a", "rows": "5"}), "files.0.rows: .* valid integer", id="text"),
        pytest.param(listing({"name": "a", "row": 5}), "files.0.row: Extra inputs", id="misspelt-rows"),
        pytest.param(listing(*({"name": "/"} for _ in range(9))), "; and 6 more", id="many-wrong"),
    ],
)
def test_what_is_no_manifest_is_told_by_field_and_what_was_expected(value: bytes, said: str) -> None:
    with pytest.raises(BadManifest, match=said) as raised:
        parse_manifest(value)
    assert len(raised.value.message) < 1_000


def test_message_about_a_hostile_key_can_be_stored_and_shown() -> None:
    with pytest.raises(BadManifest) as raised:
        parse_manifest(listing({"name": "a", "\0\x1b[2J": 1}))
    assert raised.value.message.isprintable()


def test_file_whose_key_would_be_too_long_in_its_folder_can_never_come() -> None:
    value = listing({"name": "é" * 500})
    assert len(parse_manifest(value, "trips/").files) == 1
    with pytest.raises(BadManifest, match="longer than the 1,024 bytes of a key"):
        parse_manifest(value, "trips/" + "2025/" * 5)
