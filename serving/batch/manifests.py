"""A manifest: a table of paths with whatever else is known of the clips. Knows nothing of what is in them."""

import hashlib
import json
import os
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from serving.batch.clips import FILE, NUM_BYTES, PATH, first_of_each, own_columns
from serving.batch.places import Place, in_words, inside, is_url, joined, parted, plain, without_secrets
from serving.batch.rows import RESERVED
from vidseq.errors import OptionError

SUFFIXES = (".csv", ".jsonl", ".parquet")


def is_manifest(item: str) -> bool:
    path = parted(item)[2] if is_url(item) else item
    return path.lower().endswith(SUFFIXES)


def manifest_hash(item: str) -> str:
    """What is in it, as a number: a job goes on only with the manifests that it had, URLs signed anew apart.

    Raises:
        OptionError: as read_manifest.
    """
    clips = read_manifest(item).drop_columns([FILE, NUM_BYTES]).combine_chunks()
    buffer = BytesIO()
    with pa.ipc.new_stream(buffer, clips.schema) as stream:
        stream.write_table(clips)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_manifest(item: str) -> pa.Table:
    """Our own columns and the manifest's; a path counts from the manifest's folder. What is text there stays text.

    Raises:
        OptionError: it cannot be read, or does not say which clips.
    """
    shown = without_secrets(item)
    try:
        listed = _parsed(BytesIO(_read(item)), item)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise OptionError(f"the manifest {shown!r} cannot be read: {error}") from None
    names = listed.column_names
    if PATH not in names:
        raise OptionError(f"the manifest {shown!r} has no column {PATH!r}, but {', '.join(names)}")
    if taken := RESERVED.intersection(names) - {PATH}:
        raise OptionError(f"the manifest {shown!r} has a column {min(taken)!r}, which is one of the output's own")
    if len(set(names)) < len(names):
        raise OptionError(f"the manifest {shown!r} has two columns of one name: {', '.join(names)}")
    if not len(listed):
        raise OptionError(f"the manifest {shown!r} names no clip")
    paths = listed[PATH].cast(pa.string()).to_pylist()
    for row, path in enumerate(paths, start=1):
        if not path:
            raise OptionError(f"the manifest {shown!r} names no path in row {row}")
    clips = own_columns((_counted_from(item, path), None) for path in paths)
    firsts = first_of_each(clips[FILE].to_pylist())
    if not all(firsts):
        raise OptionError(f"the manifest {shown!r} names {paths[firsts.index(False)]!r} twice")
    for name in names:
        if name != PATH:
            clips = clips.append_column(name, listed[name])
    return clips


def _read(item: str) -> bytes:
    try:
        return Place.of(item).read()
    except OptionError:
        raise
    except Exception as error:  # of whatever library brings it
        raise OptionError(f"the manifest {without_secrets(item)!r} cannot be read: {in_words(error, item)}") from None


def _parsed(file: BytesIO, item: str) -> pa.Table:
    path = (parted(item)[2] if is_url(item) else item).lower()
    if path.endswith(".csv"):
        # An id like 007 or NA is not ours to understand. A first look tells the names of the columns.
        names = pa.csv.read_csv(BytesIO(file.getvalue())).column_names
        options = pa.csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
        return pa.csv.read_csv(file, convert_options=options)
    return _of_lines(file) if path.endswith(".jsonl") else pa.parquet.read_table(file)


def _of_lines(file: BytesIO) -> pa.Table:
    """Arrow's own reader would take text that looks like a date for one.

    Raises:
        ValueError, OverflowError, ArrowException: these are no rows, or one column's values are of several kinds.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(file, start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object")
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _counted_from(manifest: str, path: str) -> str:
    path = plain(path)
    if is_url(path):
        return path
    if is_url(manifest):
        scheme, host, folder, query = parted(manifest)
        return inside(joined(scheme, host, folder.rpartition("/")[0], query), path)
    return os.path.join(os.path.dirname(manifest), path)
