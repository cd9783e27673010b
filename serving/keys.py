"""API keys: what one is, and the file that keeps their hashes. Knows nothing of HTTP, or of whom they let in.

    vsk_0123456789ab_Q5v...
     │       │         └ secret: 32 random bytes, shown once, to whoever asked for the key
     │       └ id: may be told, stands in logs, owns sessions
     └ "vidseq key", for programs that search code and logs for secrets

Of the whole text the file keeps a SHA-256: what is random to begin with needs no slow hash. The file is a SQLite
database that `vidseq keys` writes and every service of the machine reads again and again, so that a key works, or works
no more, half a second later. It is not in WAL mode: a reader needs the one file and writes nothing beside it, as where
it is mounted read-only. Not for a file system that several machines write to.
"""

import hashlib
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from vidseq.errors import OptionError
from vidseq.schemas import ALL_MODELS

KEYS_VARIABLE = "VIDSEQ_KEYS"  # of the environment: the path of the file
Scope = Literal["classify", "stream", "admin"]
State = Literal["live", "expired", "revoked"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
MAX_LIVE = 2  # keys of one name: the old one and the one that takes its place
MAX_MODEL_LETTERS = 200  # of a name, as a request may carry it
MAX_LIFETIME_SECONDS = 100 * 365 * 86400.0
BUSY_SECONDS = 5.0  # a writer waits for other writers, which takes milliseconds
LOOK_SECONDS = 0.2  # and no service waits longer than that for one
FILE_KIND = int.from_bytes(b"vsk\x01")  # SQLite's application_id: what the file is, and of which version

_KEY = re.compile(r"vsk_(?P<key_id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_NAME = re.compile(r"[\w.@-][\w.@ -]{0,63}", re.ASCII)
_TABLE = """
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    scopes TEXT NOT NULL,
    created_seconds REAL NOT NULL,
    expires_seconds REAL,
    revoked_seconds REAL,
    models TEXT
) STRICT
"""
_COLUMNS = "key_id, name, digest, scopes, created_seconds, expires_seconds, revoked_seconds"
_MODELS = "models"  # a list in JSON; files that were made before it have no such column, and their keys ask all models


class KeysBusy(OptionError):
    """The file is being written just now, for longer than was waited for it."""


@dataclass(frozen=True)
class Key:
    """What is kept of a key. Times are Unix times. `models` are the names of those it may ask; None is all."""

    key_id: str
    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    created_seconds: float
    expires_seconds: float | None
    revoked_seconds: float | None
    models: frozenset[str] | None = None

    def state(self, now_seconds: float) -> State:
        if self.revoked_seconds is not None:
            return "revoked"
        if self.expires_seconds is not None and now_seconds >= self.expires_seconds:
            return "expired"
        return "live"


def id_in(text: str) -> str | None:
    """The id of what looks like a key, None for what does not."""
    shape = _KEY.fullmatch(text)
    return shape and shape["key_id"]


def checked_id(text: str) -> str:
    """The id of a key, there or not. Raises OptionError: it is none; nothing is repeated, for it may be a key."""
    if not _KEY_ID.fullmatch(text):
        raise OptionError("a key is named by its id, the 12 letters between vsk_ and _: `vidseq keys list` tells it")
    return text


def digest_of(text: str) -> bytes:
    """What is kept in place of a key."""
    return hashlib.sha256(text.encode()).digest()


def create_key(
    path: Path,
    *,
    name: str,
    scopes: Iterable[str],
    lifetime_seconds: float | None,
    models: Iterable[str] | None = None,
) -> str:
    """A new key, which nothing will tell again; the file is made where there is none, with mode 0600.

    With `models` it may ask those alone that have one of these names, whether they are loaded anywhere now or not.

    Raises:
        OptionError: two keys of this name are live; a name, a scope, a model's name or a lifetime that is none; an
            unusable file.
    """
    if not _NAME.fullmatch(name):
        raise OptionError("a key's name has 1 to 64 letters, digits, spaces and . _ @ -")
    wanted = _checked_scopes(scopes)
    limited_to = None if models is None else json.dumps(_checked_models(models))
    if lifetime_seconds is not None and not 0 < lifetime_seconds <= MAX_LIFETIME_SECONDS:
        raise OptionError(f"a key lives for more than 0 and up to {MAX_LIFETIME_SECONDS:,.0f} seconds")
    key_id = secrets.token_hex(6)
    text = f"vsk_{key_id}_{secrets.token_urlsafe(32)}"
    now_seconds = time.time()
    expires_seconds = None if lifetime_seconds is None else now_seconds + lifetime_seconds
    with _writing(path) as connection:
        live = [k.key_id for k in _rows(connection) if k.name == name and k.state(now_seconds) == "live"]
        if len(live) >= MAX_LIVE:
            raise OptionError(
                f"{MAX_LIVE} keys named {name!r} are live ({', '.join(live)}): revoke one of them before the next"
            )
        row = (key_id, name, digest_of(text), ",".join(sorted(wanted)), now_seconds, expires_seconds, None, limited_to)
        connection.execute(f"INSERT INTO keys ({_COLUMNS}, {_MODELS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    return text


def list_keys(path: Path) -> tuple[Key, ...]:
    """All keys of a file, the oldest first. Raises OptionError: it cannot be read."""
    with _failures_told(path), closing(sqlite3.connect(_read_only(path), uri=True, timeout=LOOK_SECONDS)) as connection:
        if connection.execute("PRAGMA application_id").fetchone()[0] != FILE_KIND:
            raise _unusable(path, "it is something else")
        return _rows(connection)


def revoke_key(path: Path, key_id: str) -> Key:
    """The key, which is revoked from now on if it was not before.

    Raises:
        OptionError: there is no such key, or the file cannot be used. What is no id is not repeated: it may be a key.
    """
    checked_id(key_id)
    list_keys(path)  # a file that is not there is not made either
    with _writing(path) as connection:
        connection.execute(
            "UPDATE keys SET revoked_seconds = ? WHERE key_id = ? AND revoked_seconds IS NULL", (time.time(), key_id)
        )
        found = [key for key in _rows(connection) if key.key_id == key_id]
    if not found:
        raise OptionError(f"there is no key {key_id} in {path}")
    return found[0]


def _checked_scopes(scopes: Iterable[str]) -> frozenset[Scope]:
    asked = set(scopes)
    wanted = frozenset(scope for scope in SCOPES if scope in asked)
    if unknown := sorted(asked.difference(SCOPES)):
        raise OptionError(f"{unknown[0]!r} is no scope; there are {', '.join(SCOPES)}")
    if not wanted:
        raise OptionError(f"a key without a scope is good for nothing; there are {', '.join(SCOPES)}")
    return wanted


def _checked_models(models: Iterable[str]) -> list[str]:
    wanted = sorted(set(models))
    if not wanted:
        raise OptionError("a key that may ask no model is good for nothing; without a list it may ask all")
    for name in wanted:
        if name == ALL_MODELS or not (name.isprintable() and 1 <= len(name) <= MAX_MODEL_LETTERS):
            raise OptionError(f"{name[:MAX_MODEL_LETTERS]!r} is no model's name; without a list a key may ask all")
    return wanted


# The file ----------------------------------------------------------------------------------------


def _rows(connection: sqlite3.Connection) -> tuple[Key, ...]:
    models = _MODELS if _knows_models(connection) else "NULL"
    rows = connection.execute(f"SELECT {_COLUMNS}, {models} FROM keys ORDER BY created_seconds, key_id")
    return tuple(map(_of_row, rows))


def _of_row(row: tuple[Any, ...]) -> Key:
    key_id, name, digest, scopes, created_seconds, expires_seconds, revoked_seconds, models = row
    return Key(
        key_id,
        name,
        digest,
        frozenset(scope for scope in SCOPES if scope in scopes.split(",")),
        created_seconds,
        expires_seconds,
        revoked_seconds,
        models=None if models is None else frozenset(json.loads(models)),
    )


def _knows_models(connection: sqlite3.Connection) -> bool:
    columns = connection.execute("SELECT name FROM pragma_table_info('keys')")
    return (_MODELS,) in columns.fetchall()


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    """The only writer, until it commits; an error undoes it all."""
    with _failures_told(path):
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                _prepare(connection, path)
                yield connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (kind,) = connection.execute("PRAGMA application_id").fetchone()
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (kind, num_tables) == (0, 0):
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {FILE_KIND}")
    elif kind != FILE_KIND:
        raise _unusable(path, "it is something else")
    elif not _knows_models(connection):
        connection.execute(f"ALTER TABLE keys ADD COLUMN {_MODELS} TEXT")


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"


@contextmanager
def _failures_told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a broken rule of the table is our mistake
    except OSError as error:
        raise _unusable(path, error.strerror) from None
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise KeysBusy(f"{path} is being written by somebody else; try again") from None
        if not path.exists():
            raise OptionError(f"there is no file of keys at {path}: `vidseq keys create` makes one") from None
        raise _unusable(path, error) from None


def _unusable(path: Path, reason: object) -> OptionError:
    return OptionError(f"{path} cannot be the file of keys: {reason}")
