"""CSV to parquet: one row a line, each value as it stands, and nothing lost."""

from __future__ import annotations

import csv
import gzip
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import UsageError
from ingest import csv_files
from ingest.csv_files import UNPARSED, Landed, csv_to_parquet

BLANK = " \t\n\r\x0b\x0c"
KNOWN = frozenset({"a"})


def landed(folder: Path, content: bytes, name: str = "x.csv") -> tuple[Landed, pa.Table]:
    (folder / name).write_bytes(content)
    told = csv_to_parquet(folder / name, folder / "out.parquet", KNOWN)
    return told, pq.read_table(folder / "out.parquet")


def rows(folder: Path, content: bytes) -> list[tuple[str | None, ...]]:
    return [tuple(row.values()) for row in landed(folder, content)[1].to_pylist()]


def data_lines(content: bytes) -> list[bytes]:
    """The lines of a CSV behind its header, by plain Python."""
    text = content.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
    return [line.encode("latin-1") for line in text.split("\n") if line.strip(BLANK)][1:]


def as_plain_python_reads(line: bytes, width: int) -> tuple[str | None, ...] | None:
    """The values of a line, or None when it does not parse."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None
    # A quote that is never closed takes the next line with it.
    first, *others = csv.reader([f"{text}\n", "next\n"])
    if len(others) != 1 or len(first) < width or any(field.strip(BLANK) for field in first[width:]):
        return None
    return tuple(value or None for value in first[:width])


some_bytes = st.binary(max_size=12)
some_text = st.text(alphabet='ab1,," \t\r\n\x00\ufeffü', max_size=16).map(str.encode)
some_rows = st.lists(st.sampled_from(["", "1", " x ", '"q"', '"a,b"', '"say ""so"""', "ü"]), min_size=2, max_size=5)
some_lines = st.lists(
    st.tuples(
        some_bytes | some_text | some_rows.map(",".join).map(str.encode), st.sampled_from([b"\n", b"\r\n", b"\r"])
    )
)


@settings(max_examples=200)
@given(
    lines=some_lines,
    width=st.integers(1, 4),
    block=st.integers(1, 40),
    group=st.integers(1, 200),
    mark=st.booleans(),
    zipped=st.booleans(),
    ended=st.booleans(),
)
def test_parquet_has_a_row_for_every_line_with_what_plain_python_reads_there(
    lines: list[tuple[bytes, bytes]], width: int, block: int, group: int, mark: bool, zipped: bool, ended: bool
) -> None:
    header = ",".join("abcd"[:width]).encode()
    content = header + b"\n" + b"".join(line + end for line, end in lines)
    content = content if ended else content.rstrip(b"\r\n")
    expected = [(as_plain_python_reads(line, width), line) for line in data_lines(content)]
    stored = (b"\xef\xbb\xbf" if mark else b"") + content
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "BLOCK_BYTES", block)
        patch.setattr(csv_files, "GROUP_BYTES", group)
        told, table = landed(Path(folder), gzip.compress(stored) if zipped else stored)
    found = [tuple(row.values()) for row in table.select(range(width)).to_pylist()]
    assert found == [values or (None,) * width for values, _ in expected]
    lost = [None if values else line.decode("utf-8", "backslashreplace") for values, line in expected]
    assert told == Landed(tuple("abcd"[:width]), len(expected), sum(text is not None for text in lost))
    assert (UNPARSED in table.column_names) == (told.unparsed > 0)
    if told.unparsed:
        assert table[UNPARSED].to_pylist() == lost


@pytest.mark.parametrize("surplus", [b"", b" ", b'""', b'"" ', b'" "'])
def test_field_of_nothing_behind_the_last_column_is_passed_over(tmp_path: Path, surplus: bytes) -> None:
    assert rows(tmp_path, b"a\n1," + surplus + b"\n") == [("1",)]


@pytest.mark.parametrize("surplus", [b"x", b'\t""', b' ""', b'"x"', b'"""" '])
def test_line_with_text_behind_the_last_column_does_not_parse(tmp_path: Path, surplus: bytes) -> None:
    told, _ = landed(tmp_path, b"a\n1," + surplus + b"\n")
    assert told.unparsed == 1


def test_values_stay_the_text_that_they_are(tmp_path: Path) -> None:
    content = b'a,b,c\n007,1.50, x \n1e3,"q,""r""",N/A\nNULL,nan,\n,"",ok\n'
    assert rows(tmp_path, content) == [
        ("007", "1.50", " x "),
        ("1e3", 'q,"r"', "N/A"),
        ("NULL", "nan", None),
        (None, None, "ok"),
    ]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        pytest.param(b"1,2", ("1", "2"), id="plain"),
        pytest.param(b'"1","2"', ("1", "2"), id="quoted"),
        pytest.param(b'"1"x,2', ("1x", "2"), id="text-behind-a-quote"),
        pytest.param(b'1",2"', ('1"', '2"'), id="inches"),
        pytest.param(b"1,2,", ("1", "2"), id="empty-field-behind-the-last-column"),
        pytest.param(b'1,2, ,"",', ("1", "2"), id="more-empty-fields-behind-the-last-column"),
        pytest.param(b" 1 , 2 ", (" 1 ", " 2 "), id="blanks"),
        pytest.param(b",", (None, None), id="only-empty-fields"),
        pytest.param("Zoë,ü".encode(), ("Zoë", "ü"), id="beyond-ascii"),
    ],
)
def test_odd_line_that_can_be_read_is_a_row(tmp_path: Path, line: bytes, values: tuple[str | None, ...]) -> None:
    assert rows(tmp_path, b"a,b\n" + line + b"\nlast,one\n") == [values, ("last", "one")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param(b"1", "1", id="too-few-fields"),
        pytest.param(b"1,2,3", "1,2,3", id="too-many-fields"),
        pytest.param(b"1,2,,3", "1,2,,3", id="too-many-fields-and-an-empty-one"),
        pytest.param(b'1,"2', '1,"2', id="quote-never-closed"),
        pytest.param(b'"1,2', '"1,2', id="quote-that-swallows-the-comma"),
        pytest.param(b"1,\xe9", "1,\\xe9", id="latin-1"),
    ],
)
def test_line_that_does_not_parse_is_kept_with_its_text_and_spoils_no_other(
    tmp_path: Path, line: bytes, text: str
) -> None:
    told, table = landed(tmp_path, b"a,b\nfirst,one\n" + line + b"\nlast,one\n")
    assert table.to_pylist() == [
        {"a": "first", "b": "one", UNPARSED: None},
        {"a": None, "b": None, UNPARSED: text},
        {"a": "last", "b": "one", UNPARSED: None},
    ]
    assert (told.rows, told.unparsed) == (3, 1)


def test_line_break_inside_quotes_makes_lines_that_do_not_parse_and_spoils_no_other(tmp_path: Path) -> None:
    nothing = (None, None, None)
    expected = [(*nothing, '1,"x'), (*nothing, 'y",3'), ("4", "5", "6", None)]
    assert rows(tmp_path, b'a,b,c\n1,"x\ny",3\n4,5,6\n') == expected


def test_column_of_unparsed_lines_comes_last_and_only_when_there_are_some(tmp_path: Path) -> None:
    assert landed(tmp_path, b"a,b\n1,2\n")[1].column_names == ["a", "b"]
    assert landed(tmp_path, b"a,b\n1,2\n3\n")[1].column_names == ["a", "b", UNPARSED]


@pytest.mark.parametrize("header", [b" A , b", b'"a","b"', b'\xef\xbb\xbf"A", "b"', b"\r\n\n a,b"])
def test_names_in_the_header_lose_blanks_and_quotes(tmp_path: Path, header: bytes) -> None:
    told, table = landed(tmp_path, header + b"\r\n1,2\r\n")
    assert [name.lower() for name in told.columns] == table.rename_columns(["a", "b"]).column_names
    assert [list(row.values()) for row in table.to_pylist()] == [["1", "2"]]


def test_column_without_a_name_gets_one_and_double_names_stay(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b",a,a\n0,1,2\n")
    assert csv_to_parquet(tmp_path / "x.csv", tmp_path / "out", KNOWN).columns == ("unnamed_1", "a", "a")
    assert pq.read_schema(tmp_path / "out").names == ["unnamed_1", "a", "a"]


def test_header_alone_makes_a_file_without_rows(tmp_path: Path) -> None:
    told, table = landed(tmp_path, b"a,b")
    assert (told.rows, table.num_rows, table.column_names) == (0, 0, ["a", "b"])


def test_same_content_makes_the_same_bytes_compressed_or_not(tmp_path: Path) -> None:
    content = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(5000)) + b"odd\n"
    made = []
    for name, stored in [("x.csv", content), ("y.csv", content), ("x.csv.gz", gzip.compress(content, mtime=7))]:
        landed(tmp_path, stored, name)
        made.append((tmp_path / "out.parquet").read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "has no header", id="empty"),
        pytest.param(b"\n \r\n", "has no header", id="blank"),
        pytest.param(b"1,2\n3,4\n", "names no column", id="no-header"),
        pytest.param(b",,\n1,2,3\n", "names no column", id="no-names"),
        pytest.param(b"a;b\n1;2\n", "separated by commas", id="semicolons"),
        pytest.param(b"<html><body>", "names no column", id="page"),
        pytest.param("a,b\n1,2\n".encode("utf-16"), "in UTF-8", id="utf-16"),
        pytest.param(b"PAR1\x15\x04\x15\xff", "Is it a CSV", id="parquet"),
        pytest.param(b"a,_unparsed\n1,2\n", "Rename it", id="reserved-name"),
        pytest.param(gzip.compress(b"a,b\n1,2\n" * 100)[:-9], "not a whole gzip file", id="cut-gzip"),
        pytest.param(gzip.compress(b"a,b\n1,2\n")[:2] + b"nonsense", "not a whole gzip file", id="no-gzip"),
    ],
)
def test_file_that_is_no_csv_of_the_dataset_is_refused_with_what_to_do(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UsageError, match=expected) as caught:
        csv_to_parquet(tmp_path / "x.csv", tmp_path / "out", KNOWN)
    assert "x.csv" in caught.value.message


def test_line_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 100)
    monkeypatch.setattr(csv_files, "MAX_LINE_BYTES", 1000)
    (tmp_path / "x.csv").write_bytes(b"a,b\n" + b"1" * 2000)
    with pytest.raises(UsageError, match="a line of more than 1,000 bytes"):
        csv_to_parquet(tmp_path / "x.csv", tmp_path / "out", KNOWN)


def test_rows_beyond_one_group_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(csv_files, "GROUP_BYTES", 4000)
    told, table = landed(tmp_path, b"a\n" + b"".join(b"%d\n" % n for n in range(5000)))
    assert table["a"].to_pylist() == [str(n) for n in range(5000)]
    assert told.rows == 5000
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups > 3


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # The last line of these two ends with `\n` and all others with `\r\n`, which strict readers refuse.
        ("yellow_tripdata_sample_2019-01.csv", 10_000),
        ("yellow_tripdata_sample_2019-02.csv", 10_000),
        ("yellow_tripdata_sample_2019-03.csv", 10_000),
        ("yellow_tripdatasample_2020-04.csv", 1_000),
        ("fhv_tripdatasample_2020-04.csv", 1_000),
        ("taxi_zone_lookup.csv", 265),
    ],
)
def test_real_file_lands_with_every_line_and_every_value(
    tmp_path: Path, real_files: Path, name: str, count: int
) -> None:
    with (real_files / name).open(newline="", encoding="utf-8") as file:
        header, *expected = csv.reader(file)
    told = csv_to_parquet(real_files / name, tmp_path / "out", frozenset(name.casefold() for name in header))
    table = pq.read_table(tmp_path / "out")
    assert told == Landed(tuple(header), count, 0)
    assert [list(row.values()) for row in table.to_pylist()] == [[value or None for value in row] for row in expected]
