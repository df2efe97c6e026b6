"""Files that should not get in, made from good ones."""

from __future__ import annotations

import base64
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from tests.spark_jobs.trips import table, trip

CLAIMED = 10**12
# Its number, coded, stands nowhere in the footer but where rows and values are counted.
_FORGED_ROWS = 12_345


def as_parquet(content: pa.Table, **options: Any) -> bytes:
    """The table as a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, **options)
    return bytes(sink.getvalue().to_pybytes())


def footer_at(body: bytes) -> int:
    """Where the footer of a parquet file begins."""
    return len(body) - 8 - int.from_bytes(body[-8:-4], "little")


def flipped(body: bytes, at: int, bits: int = 0x01) -> bytes:
    """The file with bits of one byte turned over."""
    changed = bytearray(body)
    changed[at] ^= bits
    return bytes(changed)


def with_footer(body: bytes, footer: bytes) -> bytes:
    """The file with another footer."""
    return body[: footer_at(body)] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def claiming_rows(everywhere: bool) -> bytes:
    """A file of a few rows whose footer claims 10^12, in each row group and column too or only in all."""
    body = as_parquet(repeated_trips(_FORGED_ROWS), write_statistics=False, store_schema=False)
    footer = body[footer_at(body) : -8]
    honest, claimed = _coded(_FORGED_ROWS), _coded(CLAIMED)
    # The file's own count comes first: it stands before the row groups.
    return with_footer(body, footer.replace(honest, claimed, -1 if everywhere else 1))


def _coded(number: int) -> bytes:
    """A positive number as Thrift's compact protocol writes it."""
    rest, coded = number * 2, b""
    while rest > 0x7F:
        coded, rest = coded + bytes([rest & 0x7F | 0x80]), rest >> 7
    return coded + bytes([rest])


def inflating() -> bytes:
    """A file of 100 KB at most whose pages become 100 MB: plain values, all alike."""
    return as_parquet(
        repeated_trips(700_000), compression="zstd", compression_level=9, use_dictionary=False, write_statistics=False
    )


def repeated_trips(rows: int) -> pa.Table:
    """One trip, many times."""
    one = table(trip())
    return pa.table({name: pa.repeat(one[name][0], rows) for name in one.column_names}, schema=one.schema)


def twice(name: str, column: Any) -> pa.Table:
    """A trip with one column more, of a name that may be there already."""
    return table(trip()).append_column(name, pa.array([column]))


class _Kms(pe.KmsClient):
    """Wraps keys by writing them down."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def encrypted(plaintext_footer: bool) -> bytes:
    """A trip whose fares are encrypted, and the footer too unless it is to be readable."""
    content = table(trip())
    keys = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"columns": ["fare_amount"]}, plaintext_footer=plaintext_footer
    )
    factory = pe.CryptoFactory(lambda _: _Kms())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), keys)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, content.schema, encryption_properties=properties) as writer:
        writer.write_table(content)
    return bytes(sink.getvalue().to_pybytes())
