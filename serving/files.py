"""Files that the processes of one machine share: private, and made by one of them at a time. Knows no contents."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vidseq.errors import OptionError


def sqlite_path(url: str) -> Path:
    """The absolute path in sqlite:///path. One in memory is refused: other processes would not see it."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.strip("/") or parts.query or parts.fragment:
        raise OptionError("SQLite keeps a file with an absolute path: sqlite:///path/to/file.db")
    return Path("/" + unquote(parts.path).lstrip("/"))


def refuse_missing(url: str) -> None:
    """For whoever only looks: nothing is made where a path was mistyped. Raises OptionError: there is no such file."""
    if url.partition(":")[0].lower() == "sqlite" and not (path := sqlite_path(url)).exists():
        raise OptionError(f"there is no file at {path}")


def make_private(path: Path) -> None:
    """The file is there, and its owner's alone.

    It is never opened where it exists: closing it again would drop the locks of this process's SQLite connections.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    path.chmod(0o600)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time: of two that bring a new file into WAL mode at once, one would fail without waiting."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
