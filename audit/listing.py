"""Listings of any length: in memory while small, else in a file without a name that is mapped into memory.

A key and a source take some 60 bytes an item: 6 GB for 100 million. The file lies in the folder for temporary
files (TMPDIR settles which) and vanishes with the process.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from poolproof.audit.pool import LISTING

HELD_BYTES: Final = 1 << 27
"""Bytes of a listing that are held in memory before it goes to a file."""

_BATCH_ROWS: Final = 1 << 16


def collect_listing(
    tables: Iterable[pa.Table], *, held_bytes: int = HELD_BYTES
) -> tuple[pa.Table, mmap.mmap | None]:
    """The listing that consists of tables of schema `LISTING`, and the mapped file where it is in one.

    Args:
        tables: in pool order, for instance one a tar; each is let go before the next is asked for.
        held_bytes: a listing of fewer bytes stays in memory.
    """
    held: list[pa.Table] = []
    n_bytes = 0
    rest = iter(tables)
    for table in rest:
        held.append(table)
        n_bytes += table.nbytes
        if n_bytes >= held_bytes:
            return _spool(held, rest)
    return (pa.concat_tables(held) if held else LISTING.empty_table()), None


def _spool(held: list[pa.Table], rest: Iterator[pa.Table]) -> tuple[pa.Table, mmap.mmap]:
    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_file(file, LISTING) as writer:
            n_rows = sum(table.num_rows for table in held)
            for table in rest:
                if n_rows >= _BATCH_ROWS:
                    writer.write_table(pa.concat_tables(held).combine_chunks(), max_chunksize=_BATCH_ROWS)
                    held.clear()
                    n_rows = 0
                held.append(table)
                n_rows += table.num_rows
            writer.write_table(pa.concat_tables(held).combine_chunks(), max_chunksize=_BATCH_ROWS)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all(), mapped
