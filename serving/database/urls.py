"""Which database a URL means. Repeats no part of a URL that it cannot read: it may be a password.

sqlite:///var/lib/vidseq/vidseq.db                    one machine: all its processes share the file
postgresql://vidseq:password@host:5432/vidseq         several machines; ?sslmode=verify-full is TLS
"""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from serving.files import sqlite_path
from vidseq.errors import OptionError

DATABASE = "VIDSEQ_DATABASE"  # of the environment; a secret where it holds a password
POSTGRES_DRIVER = "postgresql+psycopg"
HOW = "a database's URL is sqlite:///path/to/file.db or postgresql://user:password@host:5432/name"


def parsed(url: str) -> URL:
    """The URL as SQLAlchemy takes it.

    Raises:
        OptionError: it names no database that can be used here.
    """
    if url.partition(":")[0].lower() == "sqlite":
        return URL.create("sqlite", database=str(sqlite_path(url)))
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise OptionError(HOW) from None
    if found.drivername not in ("postgresql", POSTGRES_DRIVER):
        raise OptionError(HOW)
    if not found.database or any(sign in f"{found.host}{found.database}" for sign in "/@"):
        raise OptionError(f"{HOW}; what is special in a URL (/ @ : ? # %) is written %2F, %40, ... in a password")
    return found.set(drivername=POSTGRES_DRIVER)


def is_file(url: str) -> bool:
    """Whether it is one machine's own. Raises OptionError as `parsed` does."""
    return parsed(url).drivername == "sqlite"


def file_of(url: URL) -> Path | None:
    return Path(url.database or "") if url.drivername == "sqlite" else None


def in_words(url: URL) -> str:
    """For a person, without a password, wherever in the URL it stood."""
    path = file_of(url)
    return str(path) if path is not None else f"the database {url.database!r} of {url.host or 'this machine'}"
