"""A copy of the database while it is in use: a file that needs nothing beside it. Knows no tables."""

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from serving.database.urls import file_of, parsed
from vidseq.errors import OptionError


def backup(url: str, path: Path) -> None:
    """The whole of a SQLite database as it stands at one moment, in a new file with mode 0600. Writers go on.

    Raises:
        OptionError: there is nothing to copy, the file exists or cannot be written; or a PostgreSQL, with the command
            that copies one.
    """
    parts = parsed(url)
    source = file_of(parts)
    if source is None:
        asked = parts.set(drivername="postgresql").difference_update_query(["password"])._replace(password=None)
        command = f"pg_dump --format=custom --file={shlex.quote(str(path))} {shlex.quote(str(asked))}"
        raise OptionError(f"PostgreSQL makes its own copies, of this one by: {command}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise OptionError(f"{path} cannot be the copy: {error.strerror}") from None
    try:
        _copy(source, path)
    except sqlite3.Error as error:
        path.unlink()
        raise OptionError(f"{source} cannot be copied to {path}: {error}") from None
    except BaseException:
        path.unlink()
        raise


def _copy(source: Path, path: Path) -> None:
    read_only = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True)) as origin, closing(sqlite3.connect(path)) as copy:
        origin.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # else it would need a second file to be read
        (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {found}")
