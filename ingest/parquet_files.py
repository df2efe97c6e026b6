"""How this package writes parquet: the same rows make the same bytes, so that their object has the same etag."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer whose bytes depend on the rows, their groups and pyarrow's version alone.

    Raises:
        OSError: the file cannot be written.
    """
    # All options that shape the bytes are written out, so that a new default changes no file.
    return pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        compression="snappy",
        data_page_version="1.0",
        use_dictionary=True,
        write_statistics=True,
        store_schema=False,
    )
