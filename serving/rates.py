"""What a key may do in a minute and in an hour, and when there is room again. Knows nothing of HTTP.

Counted by the library `limits`, as sliding windows of two counters each: what was done in the window before counts less
and less. In this process's memory, so that R replicas grant R times as much; or in a Redis that all replicas share.
While that cannot be asked, each replica counts for itself and says so in its log: to let everybody in unmeasured would
hand a flood the very moment it needs, and to let nobody in would make the service hang on what merely counts.
"""

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, SlidingWindowCounterSupport
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from pydantic import Field
from redis import RedisError
from redis.asyncio import ConnectionPool

from vidseq.config import Config, PositiveInt
from vidseq.errors import OptionError, VidseqError

logger = logging.getLogger(__name__)

PREFIX = "vidseq:rate"
PATIENCE_SECONDS = 0.5  # with the shared store: a count is not worth a wait
PAUSE_SECONDS = 5.0  # for so long it is not asked again


RateBytes = Annotated[int, Field(ge=2**25)]  # no message of a stream is as large


class RateSettings(Config):
    """What one key may do: bytes are those of bodies and of streams, as they come or as Content-Length declares them.

    An HTTP request is one request, a push to a session too, for it costs as much; so is the opening of a WebSocket, but
    nothing that is said in it. Without keys nobody is told from anybody else, and nothing of this holds.
    """

    requests_per_minute: PositiveInt = 12_000
    bytes_per_minute: RateBytes = 16 * 2**30
    bytes_per_hour: RateBytes | None = None

    def of_requests(self) -> list[RateLimitItem]:
        return [RateLimitItemPerMinute(self.requests_per_minute, 1, "requests")]

    def of_bytes(self) -> list[RateLimitItem]:
        """The shortest first: what a longer one refuses costs of a shorter one nothing that is not soon forgotten."""
        limits: list[RateLimitItem] = [RateLimitItemPerMinute(self.bytes_per_minute, 1, "bytes")]
        if self.bytes_per_hour is not None:
            limits.append(RateLimitItemPerHour(self.bytes_per_hour, 1, "bytes"))
        return limits


class RateExceeded(VidseqError):
    """A key has used up what it may do; `retry_after_seconds` is when this request would find room, and no earlier."""

    code = "key/rate"

    def __init__(self, limit: RateLimitItem, retry_after_seconds: float) -> None:
        words = f"{limit.amount:,} {limit.namespace} in {limit.get_expiry():,} seconds"
        super().__init__(f"this key may send {words}, and has; ask again in {math.ceil(retry_after_seconds)} seconds")
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class Rates:
    """Counts what each owner spends of limits on requests and on bytes.

    `url` is that of a Redis, or None; it is waited for no longer than `patience_seconds`. Raises OptionError: it cannot
    be read; its reason is left out, for it may repeat a password.
    """

    def __init__(
        self,
        *,
        requests: Sequence[RateLimitItem],
        bytes: Sequence[RateLimitItem],
        url: str | None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._requests = requests
        self._bytes = bytes
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._patience_seconds = patience_seconds
        self._pool = None if url is None else _pool(url, timeout_seconds=patience_seconds)
        self._shared = None if self._pool is None else SlidingWindowCounterRateLimiter(_storage(self._pool))
        self._shared_again_seconds = 0.0

    async def spend(self, owner: str, *, num_requests: int = 0, num_bytes: int = 0) -> None:
        """Raises RateExceeded: it is too much for now, and what did not fit was not counted."""
        for limit, cost in self._costs(num_requests, num_bytes):
            assert cost <= limit.amount, f"{cost} would never fit into {limit}"
            wait_seconds = await self._wait_seconds(limit, owner, cost)
            if wait_seconds > 0:
                raise RateExceeded(limit, wait_seconds)

    async def close(self) -> None:
        """Let go of the shared store."""
        if self._pool is not None:
            await self._pool.aclose()

    def _costs(self, num_requests: int, num_bytes: int) -> Iterator[tuple[RateLimitItem, int]]:
        if num_requests:
            yield from ((limit, num_requests) for limit in self._requests)
        if num_bytes:
            yield from ((limit, num_bytes) for limit in self._bytes)

    async def _wait_seconds(self, limit: RateLimitItem, owner: str, cost: int) -> float:
        """0 where it was counted."""
        if self._shared is not None and time.monotonic() >= self._shared_again_seconds:
            try:
                async with asyncio.timeout(self._patience_seconds):
                    return await _spent(self._shared, limit, owner, cost)
            except (RedisError, OSError) as error:  # a timeout is an OSError, too
                self._shared_again_seconds = time.monotonic() + PAUSE_SECONDS
                logger.warning(
                    "for %g seconds this replica counts by itself what keys spend: the shared store is silent (%s)",
                    PAUSE_SECONDS,
                    type(error).__name__,
                )
        return await _spent(self._own, limit, owner, cost)


def rates_of(settings: RateSettings, *, url: str | None) -> Rates:
    return Rates(requests=settings.of_requests(), bytes=settings.of_bytes(), url=url)


async def _spent(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, owner: str, cost: int) -> float:
    if await limiter.hit(limit, owner, cost=cost):
        return 0.0
    assert isinstance(limiter.storage, SlidingWindowCounterSupport)
    window = await limiter.storage.get_sliding_window(limit.key_for(owner), limit.get_expiry())
    return max(seconds_until_room(limit.amount, limit.get_expiry(), cost, window), 0.001)


def seconds_until_room(amount: int, window_seconds: int, cost: int, window: tuple[int, float, int, float]) -> float:
    """When `cost` fits, if nothing else is spent until then.

    `window` is what `limits` keeps: what was spent in the window before and for how long it still counts, less from
    moment to moment; what was spent in this one, and when that will count no more.

        before    |----------\\___            counts * seconds left / window_seconds
        this one              |------------\\___
                          now ^   shifts ^
    """
    before, before_seconds, current, current_seconds = window
    free = amount - cost
    shifts_seconds = max(current_seconds - window_seconds, 0.0)
    if current <= free:  # enough of what was before has to be forgotten
        return before_seconds - window_seconds * (free - current) / before if before else 0.0
    # The window shifts, and enough of what is this one has to be forgotten.
    return shifts_seconds + window_seconds * (1 - free / current)


def store_of_rates(environ: Mapping[str, str]) -> str | None:
    """The Redis that all replicas share, where the environment of this node names one: a URL is a secret."""
    named = [environ.get(name, "") for name in ("VIDSEQ_RATE_STORE", "VIDSEQ_SESSION_STORE")]
    return named[0] or next((url for url in named if url.startswith(("redis://", "rediss://"))), None)


def _storage(pool: ConnectionPool) -> RedisStorage:
    return RedisStorage("async+redis://", implementation="redispy", key_prefix=PREFIX, connection_pool=pool)  # type: ignore[arg-type]


def _pool(url: str, *, timeout_seconds: float) -> ConnectionPool:
    """Connects nowhere yet."""
    try:
        pool = ConnectionPool.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)
        pool.make_connection()  # type: ignore[no-untyped-call]  # refuses options that are none
    except (ValueError, TypeError):
        raise OptionError(
            "the URL of the store of rates cannot be read: redis://:password@host:port/number is needed"
        ) from None
    return pool
