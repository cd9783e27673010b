"""Rows of numbers, one for each sampled frame of a clip, with the frames' times: written as they come, read as a map.

Kept under a hash of all that they follow from. Neither writing nor reading holds all of a long clip in memory: what is
large is mapped, so that the system may drop what is not in use. Knows nothing of what a row is.

Shape letters: T sampled frames; the rest of a row's shape is its own.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays

from vidseq.pictures import picture_paths

MAPPED_BYTES = 2**20  # files from this size on are mapped; a process may have some 65,000 maps, so not those of clips

Rows = NDArray[Any]  # float32, float16 or uint8, [T, ...]
Seconds = NDArray[np.float64]

_SECONDS = "seconds_T"
_DTYPES = {"float32": "F32", "float16": "F16", "uint8": "U8"}  # in the words of safetensors


def content_hash(path: Path) -> bytes:
    """The hash of a clip's bytes; of names and bytes where the clip is a folder of frames."""
    files = picture_paths(path) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.digest()


def joint_hash(*parts: bytes | str) -> str:
    """One hash of several parts, told apart from any others that make the same bytes in a row."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def read_rows(path: Path, name: str) -> tuple[Rows, Seconds] | None:
    """What was kept under this name; a damaged file counts as nothing kept."""
    try:
        if path.stat().st_size < MAPPED_BYTES:
            arrays = load_arrays(path.read_bytes())
            return arrays[name], arrays[_SECONDS]
        with safe_open(path, framework="pt") as file:  # for torch its tensors are maps, for numpy they would be copies
            return file.get_tensor(name).numpy(), file.get_tensor(_SECONDS).numpy()
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def write_rows(path: Path, chunks: Iterable[tuple[Mapping[str, Rows], Seconds]]) -> None:
    """One chunk of frames after the other goes into nameless files, one a name; from there to `path`, whole or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, _Column] = {}
    seconds: list[float] = []
    with ExitStack() as stack:
        for rows_by_name, seconds_T in chunks:
            for name, rows in rows_by_name.items():
                if name not in columns:
                    file = stack.enter_context(SpooledTemporaryFile(MAPPED_BYTES, dir=str(path.parent)))
                    columns[name] = _Column(file, rows.dtype, rows.shape[1:])
                columns[name].file.write(np.ascontiguousarray(rows).data)
            seconds += seconds_T.tolist()
        _write(path, columns, np.array(seconds))


@dataclass(frozen=True, eq=False)
class _Column:
    """All rows of one name so far, and what each is."""

    file: IO[bytes]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]


def _write(path: Path, columns: Mapping[str, _Column], seconds_T: Seconds) -> None:
    """A safetensors file, written here because the library writes only what it is given as a whole.

    Its form: the length of a JSON text, 8 bytes; that text, which says where each tensor lies; the tensors.
    """
    num_frames, end = len(seconds_T), seconds_T.nbytes
    header = {_SECONDS: {"dtype": "F64", "shape": [num_frames], "data_offsets": [0, end]}}
    for name, column in columns.items():
        shape = [num_frames, *column.row_shape]
        start, end = end, end + column.dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _DTYPES[column.dtype.name], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors are read where they lie, so they begin at a multiple of 8
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + seconds_T.tobytes())
            for column in columns.values():
                column.file.seek(0)
                shutil.copyfileobj(column.file, file)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
