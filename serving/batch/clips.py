"""The table of a job's clips: where each lies, what is shown of that, how large it is. Knows no video."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa

from serving.batch.places import is_url, without_secrets
from serving.batch.rows import INDEX, as_text

PATH = "path"  # for people; the one column that every manifest has
FILE = "__file__"  # what a worker opens: the bytes of a path of this machine, or a URL
NUM_BYTES = "__num_bytes__"  # null where nobody has said it for nothing

_OWN = {PATH: pa.string(), FILE: pa.binary(), NUM_BYTES: pa.int64()}

Sized = tuple[str, int | None]  # a name as it was given, and a number of bytes


def extras(columns: Sequence[str]) -> list[str]:
    """Of these, the ones that are carried through."""
    return [name for name in columns if name not in (INDEX, *_OWN)]


def first_of_each(keys: Iterable[bytes]) -> list[bool]:
    seen: set[bytes] = set()
    return [key not in seen and not seen.add(key) for key in keys]  # type: ignore[func-returns-value]


def addresses(clips: pa.Table) -> dict[str, bytes]:
    """Where each clip is to be had now, by what is shown of that, if this stands for no other clip as well."""
    paths, files = clips[PATH].to_pylist(), clips[FILE].to_pylist()
    times = Counter(paths)
    return {path: file for path, file in zip(paths, files, strict=True) if times[path] == 1}


def own_columns(clips: Iterable[Sized]) -> pa.Table:
    """Our own columns; the size of a file of this machine is looked up where it is not known."""
    names, sizes = [], []
    for name, num_bytes in clips:
        names.append(name)
        sizes.append(_num_bytes(name) if num_bytes is None and not is_url(name) else num_bytes)
    shown = [as_text(without_secrets(name)) for name in names]
    files = [os.fsencode(name if is_url(name) else os.path.abspath(name)) for name in names]
    return pa.table([shown, files, sizes], schema=pa.schema(_OWN.items()))


def _num_bytes(path: str) -> int | None:
    """None for a file that is not there: a clip without a size is a row with its error later on."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # a zero byte in the name
        return None
