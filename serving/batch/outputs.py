"""Where the rows of a finished job go: a file, or a folder of files, here or in a bucket. Knows nothing of clips.

scores.parquet, scores.jsonl                    one file, that is there whole or not at all
scores/, s3://bucket/scores                     Parquet files, whole once `_job.json` says `complete`
scores/ with --partition-by day                 scores/day=2026-11-27/part-0.parquet ...
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from serving.batch.places import Place, is_url, without_secrets
from serving.batch.sink import FORMATS, open_sink
from vidseq.errors import OptionError

JOB = "_job.json"  # readers of folders of Parquet pass over names that begin so
_PART = "part-"
_LONGEST_NAME = 255  # bytes, of a folder
_ROWS_A_FILE = 1_000_000
_ROWS_A_GROUP = 16_384


@dataclass(frozen=True)
class Output:
    """What `--out` stands for. `suffix` is one of FORMATS, or empty for a folder."""

    shown: str
    place: Place
    suffix: str
    partition_by: str | None = None

    @classmethod
    def of(cls, name: str, *, partition_by: str | None = None) -> "Output":
        """
        Raises:
            OptionError: nothing could be written there in the end.
        """
        shown, place = without_secrets(name), Place.of(name)
        suffix = "" if name.endswith("/") else PurePosixPath(place.path).suffix
        output = cls(shown, place, suffix, partition_by)
        if suffix and suffix not in FORMATS:
            raise OptionError(
                f"{shown!r} must end in {' or '.join(FORMATS)}, which says the format, or have no suffix: a folder"
            )
        if suffix and partition_by is not None:
            raise OptionError(f"--partition-by makes a folder of many files, and {shown!r} is to be one file")
        if not is_url(name):
            _refuse_unwritable(output)
        if not suffix and output._is_somebody_elses():
            raise OptionError(f"the folder {shown!r} holds other things than the rows of an older job")
        return output

    def refuse_partition(self, kind: pa.DataType, values: pa.ChunkedArray) -> None:
        """Raises OptionError: no folder can be named by such values."""
        nameless = (pa.types.is_nested, pa.types.is_null, pa.types.is_binary, pa.types.is_large_binary)
        if any(is_such(kind) for is_such in nameless) or pa.types.is_fixed_size_binary(kind):
            raise OptionError(f"--partition-by: {self.partition_by!r} holds {kind}, which names no folder")
        for value in pc.unique(values).to_pylist():
            name = f"{self.partition_by}={quote(str(value), safe='')}"  # as Arrow writes it
            if len(name.encode()) > _LONGEST_NAME:
                raise OptionError(
                    f"--partition-by: {self.partition_by!r} holds a value that is too long to name a folder: "
                    f"{str(value)[:40]!r} ..."
                )

    def refuse_inputs(self, files: Iterable[str]) -> None:
        """Raises OptionError: it would take the place of one of these files of this machine."""
        path = self.place.path
        there = self.place.is_local and self.suffix and os.path.exists(path)
        if there and any(os.path.samefile(path, file) for file in files if os.path.exists(file)):
            raise OptionError(f"{self.shown!r} is one of the inputs, and would be overwritten")

    def write(self, tables: Iterable[pa.Table], schema: pa.Schema, job: Mapping[str, Any]) -> None:
        """All rows, in the place of an older job's."""
        if self.suffix:
            with open_sink(self.place, schema) as sink:
                for table in tables:
                    sink.write(table)
            return
        self._say(job, complete=False)  # from here on the folder is a job's, also if it is killed now
        for name in self.place.names():
            if name.startswith(_PART) or "=" in name:
                (self.place / name).remove()
        batches = (batch for table in tables for batch in table.to_batches())
        ds.write_dataset(
            pa.RecordBatchReader.from_batches(schema, batches),
            self.place.path,
            filesystem=self.place.files,
            format="parquet",
            basename_template=f"{_PART}{{i}}.parquet",
            partitioning=None if self.partition_by is None else [self.partition_by],
            partitioning_flavor=None if self.partition_by is None else "hive",
            max_rows_per_file=_ROWS_A_FILE,
            max_rows_per_group=_ROWS_A_GROUP,
            file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
            preserve_order=True,
            create_dir=self.place.is_local,  # a bucket has none
            existing_data_behavior="overwrite_or_ignore",
        )
        self._say(job, complete=True)

    def _say(self, job: Mapping[str, Any], *, complete: bool) -> None:
        (self.place / JOB).write(json.dumps({"complete": complete, **job}, indent=2).encode())

    def _is_somebody_elses(self) -> bool:
        names = self.place.names()
        return bool(names) and JOB not in names


def _refuse_unwritable(output: Output) -> None:
    parent, name = os.path.split(output.place.path)
    if output.suffix and os.path.isdir(output.place.path):
        raise OptionError(f"{output.shown!r} is a folder")
    if not output.suffix and os.path.isfile(output.place.path):
        raise OptionError(f"{output.shown!r} is a file; the name of a folder, or one with a suffix, is needed")
    if not os.path.isdir(parent):
        raise OptionError(f"there is no folder {parent!r} to write {name!r} to")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OptionError(f"the folder {parent!r} cannot be written to")
