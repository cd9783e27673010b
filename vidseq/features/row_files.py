"""Rows of numbers, one for each sampled frame of a clip, with the frames' times: written as they come, read as a map.

Neither writing nor reading holds all of a long clip in memory: what is large is mapped, so that the system may drop
what is not in use. Each column has its SHA-256 beside it. Knows nothing of what a row is.

Shape letters: T sampled frames; the rest of a row's shape is its own.
"""

import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays

MAPPED_BYTES = 2**20  # files from this size on are mapped; a process may have some 65,000 maps, so not those of clips

Rows = NDArray[Any]  # float32, float16 or uint8, [T, ...]
Seconds = NDArray[np.float64]

_SECONDS, _ABOUT, _METADATA = "seconds_T", "about", "__metadata__"
_DTYPES = {"float32": "F32", "float16": "F16", "uint8": "U8"}  # in the words of safetensors


@dataclass(frozen=True, eq=False)
class Kept:
    """What a file holds: columns by name, the frames' times, and what else was said of the clip."""

    columns: Mapping[str, Rows]
    seconds_T: Seconds
    about: str


def read_rows(path: Path, *names: str, checked: bool = True) -> Kept | None:
    """What was kept under these names; a damaged file, or one without them, counts as nothing kept.

    Args:
        checked: read all of it, against its sums; else only what is looked at, later.
    """
    try:
        if path.stat().st_size < MAPPED_BYTES:
            data = path.read_bytes()
            arrays, said = load_arrays(data), _said(data)
            columns = {name: arrays[name] for name in (*names, _SECONDS)}
        else:
            with safe_open(path, framework="pt") as file:  # for torch tensors are maps, for numpy they would be copies
                columns = {name: file.get_tensor(name).numpy() for name in (*names, _SECONDS)}
                said = file.metadata() or {}
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    if checked and any(_sha256(column) != said.get(_sum_of(name)) for name, column in columns.items()):
        return None
    return Kept(columns, columns.pop(_SECONDS), said.get(_ABOUT, ""))


def is_whole(path: Path) -> bool:
    """Whether all that is in it is what was written."""
    try:
        with safe_open(path, framework="np") as file:
            names = [name for name in file.keys() if name != _SECONDS]  # noqa: SIM118 - it is no dictionary
    except (FileNotFoundError, SafetensorError):
        return False
    return read_rows(path, *names) is not None


def write_rows(
    path: Path, chunks: Iterable[tuple[Mapping[str, Rows], Seconds]], *, about: Callable[[], str] = lambda: ""
) -> None:
    """One chunk of frames after the other goes into nameless files, one a name; from there to `path`, whole or not.

    Args:
        about: is asked once all chunks have come.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, _Column] = {}
    seconds: list[float] = []
    with ExitStack() as stack:
        for rows_by_name, seconds_T in chunks:
            for name, rows in rows_by_name.items():
                if name not in columns:
                    file = stack.enter_context(SpooledTemporaryFile(MAPPED_BYTES, dir=str(path.parent)))
                    columns[name] = _Column(file, rows.dtype, rows.shape[1:])
                columns[name].write(rows)
            seconds += seconds_T.tolist()
        _write(path, columns, np.array(seconds), about())


def _sum_of(name: str) -> str:
    return f"sha256.{name}"


def _sha256(rows: Rows) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _said(data: bytes) -> dict[str, str]:
    """What stands beside the tensors of a file that could be read."""
    end = 8 + int.from_bytes(data[:8], "little")
    said: dict[str, str] = json.loads(data[8:end]).get(_METADATA, {})
    return said


@dataclass(frozen=True, eq=False)
class _Column:
    """All rows of one name so far, and what each is."""

    file: IO[bytes]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def write(self, rows: Rows) -> None:
        data = np.ascontiguousarray(rows).data
        self.file.write(data)
        self.digest.update(data)


def _write(path: Path, columns: Mapping[str, _Column], seconds_T: Seconds, about: str) -> None:
    """A safetensors file, written here because the library writes only what it is given as a whole.

    Its form: the length of a JSON text, 8 bytes; that text, which says where each tensor lies; the tensors.
    """
    num_frames, end = len(seconds_T), seconds_T.nbytes
    sums = {_sum_of(name): column.digest.hexdigest() for name, column in columns.items()}
    said = {_ABOUT: about, _sum_of(_SECONDS): _sha256(seconds_T), **sums}
    header: dict[str, Any] = {
        _METADATA: said,
        _SECONDS: {"dtype": "F64", "shape": [num_frames], "data_offsets": [0, end]},
    }
    for name, column in columns.items():
        shape = [num_frames, *column.row_shape]
        start, end = end, end + column.dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _DTYPES[column.dtype.name], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors are read where they lie, so they begin at a multiple of 8
    fresh = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with fresh.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + seconds_T.tobytes())
            for column in columns.values():
                column.file.seek(0)
                shutil.copyfileobj(column.file, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
