"""Sessions in a Redis that all machines share. Knows nothing of what is in them.

    vidseq:session:ID   hash         the record; gone when it expires
    vidseq:answers:ID   hash         push number -> digest and answer; expires with it
    vidseq:sessions     sorted set   every session by the millisecond in which it expires; kept a while longer
    vidseq:owner:OWNER  sorted set   the same for one owner

Redis removes what has expired, and cannot say so: the sorted sets count what lives, and remember what has lived. What
must happen in one step is one Lua script, by Redis's own clock. For one Redis (or a primary and its replicas), not for
a Redis Cluster: a script touches keys of several slots. A Redis that loses its last writes as it falls over puts a
session back to where it was before them, and says so.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.commands.core import Script
from redis.retry import Retry

from serving.store import Kept, Lifetimes, Record, StoreDown, absent, check_step, too_many
from vidseq.errors import OptionError, SequenceConflict, SessionEnded

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 2.0
_PAUSE_SECONDS = 0.05  # before the one retry: connections that lay idle may have been cut

# Every write has a random mark. A script that finds its own mark has run before, and only its answer was lost.
_CREATE = """
local session, sessions, owner = KEYS[1], KEYS[2], KEYS[3]
local mark, name = ARGV[1], ARGV[2]
local idle, absolute, remembered = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local of_owner, of_all = tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local found = redis.call('HGET', session, 'mark')
if found then return {found == mark and 'done' or 'exists'} end
redis.call('ZREMRANGEBYSCORE', sessions, '-inf', now - remembered)
redis.call('ZREMRANGEBYSCORE', owner, '-inf', now)
if redis.call('ZCOUNT', sessions, '(' .. now, '+inf') >= of_all then return {'all'} end
if of_owner > 0 and redis.call('ZCARD', owner) >= of_owner then return {'owner'} end

local dies = now + absolute
local expires = math.min(now + idle, dies)
redis.call('HSET', session, 'mark', mark, 'dies', dies, unpack(ARGV, 8))
redis.call('PEXPIREAT', session, expires)
redis.call('ZADD', sessions, expires, name)
redis.call('PEXPIRE', sessions, absolute + remembered)
redis.call('ZADD', owner, expires, name)
redis.call('PEXPIRE', owner, absolute)
return {'done'}
"""

_REPLACE = """
local session, answers, sessions, owner = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local mark, name = ARGV[1], ARGV[2]
local lives, keep = tonumber(ARGV[3]), tonumber(ARGV[4])
local expected, sequence = tonumber(ARGV[5]), tonumber(ARGV[6])
local state, ended, touched = ARGV[7], ARGV[8], ARGV[9]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local found = redis.call('HMGET', session, 'sequence', 'ended', 'mark', 'dies')
if not found[1] then return {redis.call('ZSCORE', sessions, name) and 'expired' or 'unknown'} end
if found[3] == mark then return {'done'} end
if tonumber(found[1]) ~= expected then return {'conflict', tonumber(found[1])} end
if found[2] == '1' then return {'ended'} end

local expires = math.min(now + lives, tonumber(found[4]))
redis.call('HSET', session, 'mark', mark, 'sequence', sequence, 'state', state, 'ended', ended, 'touched', touched)
for i = 10, #ARGV, 2 do redis.call('HSET', answers, ARGV[i], ARGV[i + 1]) end
for old = expected - keep, sequence - keep - 1 do redis.call('HDEL', answers, old) end
redis.call('PEXPIREAT', session, expires)
redis.call('PEXPIREAT', answers, expires)
redis.call('ZADD', sessions, 'XX', expires, name)
redis.call('ZADD', owner, 'XX', expires, name)
return {'done'}
"""

# Of those that have expired only names are left. At most so many at a time: Redis does nothing else meanwhile.
_FORGET = """
local sessions, owner = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local names = redis.call('ZRANGE', owner, 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
local alive = 0
for i = 1, #names, 2 do
  redis.call('DEL', 'vidseq:session:' .. names[i], 'vidseq:answers:' .. names[i])
  redis.call('ZREM', sessions, names[i])
  redis.call('ZREM', owner, names[i])
  if tonumber(names[i + 1]) > now then alive = alive + 1 end
end
return {#names == 0 and 'done' or 'more', alive}
"""

_SESSIONS = "vidseq:sessions"
_FORGOTTEN_AT_ONCE = 500
_FIELDS = ("session_id", "owner", "sequence", "state", "meta", "ended", "created", "touched")


class RedisStore:
    """A `Store`. Connections come from a pool; none is made before the first call.

    Raises:
        OptionError: not a URL that can be read.
    """

    def __init__(self, url: str, *, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                retry=Retry(ConstantBackoff(_PAUSE_SECONDS), retries=1),
            )
            self._redis.connection_pool.make_connection()  # connects nowhere; refuses options that are none
        except (ValueError, TypeError):
            # The reason is left out: it may repeat what stands where a port should, a password say.
            raise OptionError("the store's URL cannot be read: redis://:password@host:port/number is needed") from None
        self._create = self._redis.register_script(_CREATE)
        self._replace = self._redis.register_script(_REPLACE)
        self._forget = self._redis.register_script(_FORGET)

    def create(self, record: Record) -> None:
        limits = self._lifetimes
        word, _ = _run(
            self._create,
            [_session(record.session_id), _SESSIONS, _owner(record.owner)],
            os.urandom(8),
            record.session_id,
            _milliseconds(limits.idle_seconds),
            _milliseconds(limits.absolute_seconds),
            _milliseconds(limits.remembered_seconds),
            limits.max_per_owner if record.owner else 0,
            limits.max_total,
            *(part for pair in zip(_FIELDS, _values(record), strict=True) for part in pair),
        )
        if word == "all":
            raise too_many(limits.max_total, whose="of all callers")
        if word == "owner":
            raise too_many(limits.max_per_owner, whose="of this caller")
        assert word == "done", word

    def read(self, session_id: str) -> Record:
        with _failures_told(), self._redis.pipeline() as pipeline:
            pipeline.hmget(_session(session_id), _FIELDS)
            pipeline.zscore(_SESSIONS, session_id)
            values, expires_at = pipeline.execute()
        if values[0] is None:
            raise absent(expired=expires_at is not None)
        return _record(values)

    def replace(self, record: Record, *, expected: int, kept: Mapping[int, Kept]) -> None:
        check_step(record, expected=expected, kept=kept)
        limits, name = self._lifetimes, record.session_id
        word, number = _run(
            self._replace,
            [_session(name), _answers(name), _SESSIONS, _owner(record.owner)],
            os.urandom(8),
            name,
            _milliseconds(limits.ended_seconds if record.ended else limits.idle_seconds),
            limits.kept_answers,
            expected,
            record.sequence,
            record.state,
            int(record.ended),
            repr(record.touched_seconds),
            *(part for push, one in kept.items() for part in (push, _pack(one))),
        )
        if word == "conflict":
            raise SequenceConflict(number)
        if word == "ended":
            raise SessionEnded(f"the session ended before push {expected}")
        if word != "done":
            raise absent(expired=word == "expired")

    def answer(self, session_id: str, sequence: int) -> Kept | None:
        with _failures_told():
            packed: Any = self._redis.hget(_answers(session_id), str(sequence))
        return None if packed is None else _unpack(packed)

    def answers_from(self, session_id: str, sequence: int) -> dict[int, Kept]:
        with _failures_told():
            packed: Any = self._redis.hgetall(_answers(session_id))
        numbers = sorted(number for number in map(int, packed) if number >= sequence)
        return {number: _unpack(packed[b"%d" % number]) for number in numbers}

    def delete(self, session_id: str) -> None:
        with _failures_told(), self._redis.pipeline() as pipeline:
            owner: Any = self._redis.hget(_session(session_id), "owner")  # never changes
            pipeline.delete(_session(session_id), _answers(session_id))
            pipeline.zrem(_SESSIONS, session_id)
            pipeline.zrem(_owner((owner or b"").decode()), session_id)
            pipeline.execute()

    def forget_all(self, owner: str) -> int:
        word, num_forgotten = "more", 0
        while word == "more":
            word, num_alive = _run(self._forget, [_SESSIONS, _owner(owner)], _FORGOTTEN_AT_ONCE)
            num_forgotten += num_alive
        return num_forgotten

    def sweep(self) -> int:
        """Redis has done it by itself."""
        return 0

    def close(self) -> None:
        self._redis.close()


def _session(session_id: str) -> str:
    return f"vidseq:session:{session_id}"


def _answers(session_id: str) -> str:
    return f"vidseq:answers:{session_id}"


def _owner(owner: str) -> str:
    return f"vidseq:owner:{owner}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _values(record: Record) -> tuple[str | bytes | int, ...]:
    """What is kept of a record, in the order of `_FIELDS`."""
    *values, ended, created_seconds, touched_seconds = astuple(record)
    return (*values, int(ended), repr(created_seconds), repr(touched_seconds))


def _record(values: Sequence[bytes]) -> Record:
    session_id, owner, sequence, state, meta, ended, created_seconds, touched_seconds = values
    return Record(
        session_id=session_id.decode(),
        owner=owner.decode(),
        sequence=int(sequence),
        state=state,
        meta=meta.decode(),
        ended=ended == b"1",
        created_seconds=float(created_seconds),
        touched_seconds=float(touched_seconds),
    )


def _pack(kept: Kept) -> bytes:
    return bytes([len(kept.digest)]) + kept.digest + kept.answer


def _unpack(packed: bytes) -> Kept:
    end = 1 + packed[0]
    return Kept(packed[1:end], packed[end:])


def _run(script: Script, keys: list[str], *args: str | bytes | int) -> tuple[str, int]:
    """What a script says has happened: a word, and a number that goes with some of them."""
    with _failures_told():
        word, *numbers = script(keys, args)
    return word.decode(), numbers[0] if numbers else 0


@contextmanager
def _failures_told() -> Iterator[None]:
    """Redis's errors as ours. Its words name hosts, and are for the log."""
    try:
        yield
    except redis.RedisError as error:
        logger.warning("the store of sessions failed: %s: %s", type(error).__name__, error)
        raise StoreDown(f"the store of sessions failed ({type(error).__name__})") from error
