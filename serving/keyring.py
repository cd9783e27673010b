"""Whom the keys of a file let in, as it stands now, and why not the others. Knows nothing of HTTP or of SQLite."""

import asyncio
import hmac
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from serving.keys import Key, KeysBusy, Scope, digest_of, id_in, list_keys
from vidseq.errors import OptionError, VidseqError

FRESH_SECONDS = 0.25  # for so long a service believes what it has read
BELIEVED_SECONDS = 2.0  # and for so long where somebody is just writing: a slow disk makes a commit last


class KeyRefused(VidseqError):
    """Whoever asks has not shown a key that is good here. No message repeats what was shown."""

    code = "key/refused"


class KeyMissing(KeyRefused):
    code = "key/missing"


class KeyMalformed(KeyRefused):
    code = "key/malformed"


class KeyMisplaced(KeyRefused):
    """It was sent where it must not be: it may be in a log by now."""

    code = "key/misplaced"


class KeyUnknown(KeyRefused):
    """There is no such id, or its secret is another: nobody is told which."""

    code = "key/unknown"


class KeyExpired(KeyRefused):
    code = "key/expired"


class KeyRevoked(KeyRefused):
    code = "key/revoked"


class ScopeMissing(VidseqError):
    """The key is good, but not for this; `needed` would be."""

    code = "key/scope"

    def __init__(self, needed: Scope, has: Iterable[Scope]) -> None:
        super().__init__(f"this needs a key with the scope {needed!r}; this one has {', '.join(sorted(has))}")
        self.needed = needed


class ModelForbidden(VidseqError):
    """The key is good, but not for this model. Whether there is one of that name is not told."""

    code = "key/model"

    def __init__(self, asked: str, may: Iterable[str]) -> None:
        super().__init__(f"this key may not ask {asked}; it may ask {', '.join(sorted(may))}")


class KeysDown(VidseqError):
    """The file of keys cannot be read now: nobody is let in meanwhile. The operator's to mend; no path is told."""

    code = "key/unreadable"


_NOBODY = Key("", "", os.urandom(32), frozenset(), 0.0, None, None)  # compared with where there is no such id


class KeyRing:
    """The keys in a file, for a service: looked at again where the last look is `FRESH_SECONDS` old."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: Mapping[str, Key] | OptionError = {}
        self._looked_at_seconds = float("-inf")
        self._read_at_seconds = float("-inf")
        self._looking = asyncio.Lock()

    async def check(self, presented: str) -> Key:
        """The live key that was presented, by somebody who may have sent anything.

        Raises:
            KeyMalformed, KeyUnknown, KeyExpired, KeyRevoked: it is none.
            KeysDown: nobody can say.
        """
        key_id = id_in(presented)
        if key_id is None:
            raise KeyMalformed("what was sent as a key is none: vsk_, an id, _ and a secret")
        key = (await self._read()).get(key_id, _NOBODY)  # an unknown id is compared as a known one is
        if not hmac.compare_digest(digest_of(presented), key.digest):
            raise KeyUnknown("the key is not one of this service")
        return _refuse_dead(key)

    async def check_again(self, key: Key) -> None:
        """Whether a key that was let in still would be. Raises as `check` does."""
        _refuse_dead((await self._read()).get(key.key_id, _NOBODY))

    async def _read(self) -> Mapping[str, Key]:
        async with self._looking:
            if time.monotonic() - self._looked_at_seconds >= FRESH_SECONDS:
                begun_seconds = time.monotonic()  # what is written from here on may have been missed
                self._heed(await asyncio.to_thread(self._look), begun_seconds)
                self._looked_at_seconds = begun_seconds
            found = self._found
        if isinstance(found, OptionError):
            raise KeysDown("the keys of this service cannot be read now") from found
        return found

    def _heed(self, found: Mapping[str, Key] | OptionError, at_seconds: float) -> None:
        if isinstance(found, KeysBusy) and at_seconds - self._read_at_seconds < BELIEVED_SECONDS:
            return
        self._found = found
        if not isinstance(found, OptionError):
            self._read_at_seconds = at_seconds

    def _look(self) -> Mapping[str, Key] | OptionError:
        """A failure is a finding too: not everybody who asks is to wait for the next one."""
        try:
            return {key.key_id: key for key in list_keys(self._path)}
        except OptionError as error:
            return error


def _refuse_dead(key: Key) -> Key:
    if key is _NOBODY:
        raise KeyUnknown("the key is not one of this service any more")
    state = key.state(time.time())
    if state == "expired":
        raise KeyExpired("the key has expired")
    if state == "revoked":
        raise KeyRevoked("the key was revoked")
    return key
