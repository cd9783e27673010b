"""Tables as they come, into a Parquet or JSON Lines file that is there whole or not at all. Knows nothing of clips."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_json

from serving.batch.places import Place

_GROUP_ROWS = 4096
_GROUP_BYTES = 32 * 2**20


class Sink(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class ParquetSink:
    """Gathers tables into row groups that are worth reading, and keeps no more than one in memory."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._tables: list[pa.Table] = []
        self._num_rows = self._num_bytes = 0

    def write(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._num_rows += table.num_rows
        self._num_bytes += table.nbytes
        if self._num_rows >= _GROUP_ROWS or self._num_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables))
        self._tables, self._num_rows, self._num_bytes = [], 0, 0


class JsonLinesSink:
    """One object a line, UTF-8; every column in every line."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        # A number that is none (a model with broken weights) is null: NaN is no JSON. Nor are bytes, of a manifest's.
        lines = (to_json(row, inf_nan_mode="null", bytes_mode="base64") for row in table.to_pylist())
        self._file.writelines(line + b"\n" for line in lines)

    def close(self) -> None:
        pass


FORMATS: dict[str, Callable[[BinaryIO, pa.Schema], Sink]] = {".parquet": ParquetSink, ".jsonl": JsonLinesSink}


@contextmanager
def open_sink(out: Place, schema: pa.Schema) -> Iterator[Sink]:
    """Where to write the rows: a file that takes the name `out`, and an older one's place, when all went well.

    Args:
        out: its suffix, one of `FORMATS`, says which format; its folder exists.
        schema: the columns of every table that will be written.
    """
    name = os.path.basename(out.path)
    beside = os.path.dirname(out.path) if out.is_local else None
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".{name}-") as folder:
        fresh = Path(folder) / name
        with fresh.open("wb") as file:
            with closing(FORMATS[fresh.suffix](file, schema)) as sink:
                yield sink
            file.flush()
            os.fsync(file.fileno())
        if out.is_local:
            fresh.replace(out.path)
        else:
            out.files.put_file(str(fresh), out.path)
