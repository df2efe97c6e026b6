"""Hold the pages of a parquet object against their checksums, over ranged reads and without decoding them.

Spark's native scan does not look at them, and a flipped bit may still decode, to another value. Writers of parquet-mr's
family put a CRC-32 before each page, pyarrow by default none: of those files only the first page's header is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from spark_jobs.footers import DamagedParquet, RangeReader
from spark_jobs.thrift import Compact

_WINDOW = 8 * 1024 * 1024
"""Bytes of one read, and all that is held of a file."""
_LONGEST_HEADER = 64 * 1024
"""A page's header holds its minimum and maximum, which some writers do not cut."""
_CRC_BITS = 0xFFFFFFFF


def check_pages(store: RangeReader, bucket: str, key: str, chunks: Sequence[tuple[int, int]]) -> None:
    """Check every page of a file whose first page carries a checksum.

    Args:
        chunks: start and length in bytes of each column chunk that has any, as the footer tells.

    Raises:
        DamagedParquet: a page's bytes are not those that its checksum was made of, or its header cannot be read.
    """
    for start, length in chunks:
        reader = _Reader(store, bucket, key, start, start + length)
        while not reader.done:
            page = reader.at
            size, expected = reader.header()
            if expected is None:
                if page == chunks[0][0]:
                    return
                reader.skip(size)
            elif reader.checksum(size) != expected & _CRC_BITS:
                raise DamagedParquet(f"The page at byte {page:,} is not what its checksum was made of.")


class _Reader:
    """Reads a part of an object from front to back, a window at a time."""

    def __init__(self, store: RangeReader, bucket: str, key: str, at: int, end: int) -> None:
        self._store, self._bucket, self._key = store, bucket, key
        self.at = at
        """Byte of the object that is read next."""
        self._end = end
        self._window = b""
        self._window_at = at

    @property
    def done(self) -> bool:
        """Whether all was read."""
        return self.at >= self._end

    def header(self) -> tuple[int, int | None]:
        """Read a page's header: the bytes that the page takes, and its checksum if it has one."""
        data = Compact(self._held(min(_LONGEST_HEADER, self._end - self.at)))
        try:
            # PageHeader: 3 compressed_page_size, 4 crc.
            found = data.struct({3: Compact.integer, 4: Compact.integer})
            size = found[3]
        except (ValueError, IndexError, KeyError) as error:
            raise DamagedParquet(f"The header of the page at byte {self.at:,} cannot be read.") from error
        if not 0 <= size <= self._end - self.at - data.at:
            raise DamagedParquet(f"The header of the page at byte {self.at:,} tells of {size:,} bytes.")
        self.at += data.at
        return size, found.get(4)

    def checksum(self, size: int) -> int:
        """CRC-32 of the next bytes."""
        value = 0
        while size:
            piece = self._held(min(size, _WINDOW))
            value = zlib.crc32(piece, value)
            self.skip(len(piece))
            size -= len(piece)
        return value

    def skip(self, size: int) -> None:
        """Pass over the next bytes."""
        self.at += size

    def _held(self, size: int) -> bytes:
        """The next bytes, without passing over them."""
        start = self.at - self._window_at
        if start + size > len(self._window):
            self._window = self._store.get_range(self._bucket, self._key, self.at, min(_WINDOW, self._end - self.at))
            self._window_at, start = self.at, 0
        return self._window[start : start + size]
