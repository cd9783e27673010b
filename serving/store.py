"""Where live sessions are kept between two pushes: the value, what every store does with it, and which one a URL means.

Knows nothing of HTTP and nothing of what is in the bytes it keeps.

    sqlite:///var/lib/vidseq/sessions.db     one machine: all its processes share the file (store_sqlite)
    redis://:password@host:6379/0            several machines; rediss:// is TLS (store_redis)

A session lives until `idle_seconds` after its last applied push, `ended_seconds` after its end, or `absolute_seconds`
after its creation, whichever comes first: by the clock of the store, which alone decides. It is then remembered by name
for `remembered_seconds`, so that whoever comes too late hears that it has expired, and not that it never was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

from pydantic import Field

from serving.files import sqlite_path
from serving.sealing import Vault
from vidseq.config import Config, PositiveInt
from vidseq.errors import (
    OptionError,
    SessionError,
    SessionExpired,
    SessionNotFound,
    StateError,
    TooManySessions,
    VidseqError,
)

MAX_STATE_BYTES = 128 * 1024  # as it is kept: what sealing adds (41 bytes) included
MAX_ANSWER_BYTES = 2**20

PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StoreDown(VidseqError):
    """The store did not do what it was asked to. It may next time: the caller should ask again. No URL is told."""

    code = "store/down"


class Lifetimes(Config):
    """How long a session may live, how many there may be, and how many answers each keeps for a push that is repeated.

    `max_per_owner` is for callers with a key: without one they cannot be told apart, and share `max_total`.
    """

    idle_seconds: PositiveSeconds = 600.0
    ended_seconds: PositiveSeconds = 120.0  # for whoever did not hear the last answer
    absolute_seconds: PositiveSeconds = 24 * 3600.0
    remembered_seconds: PositiveSeconds = 3600.0
    max_per_owner: PositiveInt = 1_000  # a tenth of all: no key can take every place
    max_total: PositiveInt = 10_000
    kept_answers: PositiveInt = 128


@dataclass(frozen=True)
class Record:
    """One session as it is kept. The two times are Unix times of whoever wrote them: told, never compared.

    Raises:
        StateError: a state of more than `MAX_STATE_BYTES`.
    """

    session_id: str
    owner: str  # a hash of the caller's key, "" for none
    sequence: int  # the number of the next push
    state: bytes
    meta: str  # small; never changes
    ended: bool
    created_seconds: float
    touched_seconds: float

    def __post_init__(self) -> None:
        if len(self.state) > MAX_STATE_BYTES:
            raise StateError(f"a session's state of {len(self.state):,} bytes; at most {MAX_STATE_BYTES:,} are kept")


@dataclass(frozen=True)
class Kept:
    """The answer to one applied push, and a hash of that push: the same number with other content is not a repeat."""

    digest: bytes
    answer: bytes

    def __post_init__(self) -> None:
        assert len(self.digest) <= 64, f"a digest of {len(self.digest)} bytes"
        assert len(self.answer) <= MAX_ANSWER_BYTES, f"an answer of {len(self.answer):,} bytes"


class Store(Protocol):
    """Keeps sessions. Calls block, are made from any thread, and raise StoreDown where the store fails."""

    def create(self, record: Record) -> None:
        """Keep a new session under a name that was never used before.

        Raises:
            TooManySessions: of this owner, or of all.
        """

    def read(self, session_id: str) -> Record:
        """The session as it stands; reading does not prolong its life.

        Raises:
            SessionNotFound: never kept, deleted, or expired so long ago that it is forgotten.
            SessionExpired: its time is over.
        """

    def replace(self, record: Record, *, expected: int, kept: Mapping[int, Kept]) -> None:
        """In one step or not at all: the state after some pushes, and their answers by number.

        `sequence`, `state`, `ended` and `touched_seconds` are written; it lives `idle_seconds` from now on. `expected`
        is the sequence of the record from which the new one was made.

        Raises:
            SequenceConflict: it stands elsewhere; `expected` of the error tells where.
            SessionEnded: it has ended just there.
            SessionNotFound, SessionExpired: as for `read`.
        """

    def answer(self, session_id: str, sequence: int) -> Kept | None:
        """The answer to push `sequence`; None when it is not, or no longer, kept."""

    def answers_from(self, session_id: str, sequence: int) -> dict[int, Kept]:
        """All that are kept from `sequence` on, in order."""

    def delete(self, session_id: str) -> None:
        """Forget a session and its answers. To forget what is not there is no error."""

    def forget_all(self, owner: str) -> int:
        """Forget every session of an owner; how many were alive. Nothing of them is left in a file of the store."""

    def sweep(self) -> int:
        """Leave nothing of sessions that have expired but their names, for a while; how many there were.

        To be called now and then: whoever asks for an expired session hears so without it.
        """

    def close(self) -> None:
        """Give back files and connections."""


def open_store(url: str, *, lifetimes: Lifetimes, keys: Sequence[bytes]) -> Store:
    """The store that `url` means; with `keys` (see `sealing`) states and answers are encrypted in it.

    A file is made where there is none, with mode 0600. Redis is not asked before the first session: clips can be
    labelled without it.

    Raises:
        OptionError: not a URL of a store, or a file that cannot be one. No password is repeated.
    """
    store = _open_plain(url, lifetimes)
    return SealedStore(store, Vault(keys)) if keys else store


def _open_plain(url: str, lifetimes: Lifetimes) -> Store:
    scheme = url.partition(":")[0].lower()
    if scheme == "sqlite":
        from serving.store_sqlite import SqliteStore  # each is imported where it is meant, with its libraries

        return SqliteStore(sqlite_path(url), lifetimes=lifetimes)
    if scheme in ("redis", "rediss"):
        from serving.store_redis import RedisStore

        return RedisStore(url, lifetimes=lifetimes)
    raise OptionError("a store's URL begins with sqlite:///, redis:// or rediss://")


class SealedStore:
    """Any store, with states and answers sealed on their way in and opened on their way out.

    Each is sealed under its session, its kind and its number, so that nothing kept can be put in another's place.
    Raises SealBroken where that was tried, or the keys are others.
    """

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self.delete = store.delete
        self.forget_all = store.forget_all
        self.sweep = store.sweep
        self.close = store.close

    def create(self, record: Record) -> None:
        self._store.create(self._sealed(record))

    def read(self, session_id: str) -> Record:
        record = self._store.read(session_id)
        return replace(record, state=self._vault.open(record.state, name=_name_of(record)))

    def replace(self, record: Record, *, expected: int, kept: Mapping[int, Kept]) -> None:
        sealed = {
            number: replace(one, answer=self._vault.seal(one.answer, name=_answer_name(record.session_id, number)))
            for number, one in kept.items()
        }
        self._store.replace(self._sealed(record), expected=expected, kept=sealed)

    def answer(self, session_id: str, sequence: int) -> Kept | None:
        kept = self._store.answer(session_id, sequence)
        return kept and self._opened(kept, session_id, sequence)

    def answers_from(self, session_id: str, sequence: int) -> dict[int, Kept]:
        kept = self._store.answers_from(session_id, sequence)
        return {number: self._opened(one, session_id, number) for number, one in kept.items()}

    def _sealed(self, record: Record) -> Record:
        return replace(record, state=self._vault.seal(record.state, name=_name_of(record)))

    def _opened(self, kept: Kept, session_id: str, sequence: int) -> Kept:
        return replace(kept, answer=self._vault.open(kept.answer, name=_answer_name(session_id, sequence)))


def _name_of(record: Record) -> str:
    return f"state {record.sequence} of {record.session_id}"


def _answer_name(session_id: str, sequence: int) -> str:
    return f"answer {sequence} of {session_id}"


# What the stores have to say in the same words -----------------------------------------------------------


def check_step(record: Record, *, expected: int, kept: Mapping[int, Kept]) -> None:
    """A step goes forward, or ends the session; its answers are those of the pushes that it applied."""
    assert record.sequence > expected or (record.ended and record.sequence == expected), (expected, record.sequence)
    assert all(expected <= number < record.sequence for number in kept), (expected, record.sequence, sorted(kept))


def absent(*, expired: bool) -> SessionError:
    if expired:
        return SessionExpired("the session has expired")
    return SessionNotFound("there is no such session")


def too_many(limit: int, *, whose: str) -> TooManySessions:
    return TooManySessions(f"{limit:,} sessions {whose} are open, which is the most")
