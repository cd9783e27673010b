"""What a key may do in a time: counted here or in a Redis that replicas share, with a true word when to ask again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItem, RateLimitItemPerSecond
from pydantic import ValidationError
from redis_server import running_redis

from serving.rates import RateExceeded, Rates, RateSettings, rates_of, seconds_until_room, store_of_rates
from serving.web_settings import WebSettings
from vidseq.errors import OptionError


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis() as url:
        yield url


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else str(request.getfixturevalue("redis_url"))


def rates(*, url: str | None, requests: RateLimitItem | None = None, bytes: RateLimitItem | None = None) -> Rates:
    return Rates(
        requests=[requests or RateLimitItemPerSecond(3, 1, "requests")],
        bytes=[bytes or RateLimitItemPerSecond(1000, 1, "bytes")],
        url=url,
        patience_seconds=30.0,
    )


def lived(story: Callable[..., Awaitable[Any]], *counted: Rates) -> Any:
    """What `story(*counted)` returns; they are closed afterwards."""

    async def live() -> Any:
        try:
            return await story(*counted)
        finally:
            for rates in counted:
                await rates.close()

    return asyncio.run(live())


async def refused(rates: Rates, owner: str, **cost: int) -> RateExceeded:
    """Spends until it is too much."""
    for _ in range(1000):
        try:
            await rates.spend(owner, **cost)
        except RateExceeded as error:
            return error
    raise AssertionError("it was never too much")


@pytest.mark.parametrize("cost", [{"num_requests": 1}, {"num_bytes": 300}], ids=["requests", "bytes"])
def test_what_is_too_much_is_refused_and_fits_once_the_time_that_was_told_is_over(
    url: str | None, cost: dict[str, int], request: pytest.FixtureRequest
) -> None:
    async def story(counted: Rates) -> None:
        owner = request.node.name
        for _ in range(2):  # at first, and with a window before
            error = await refused(counted, owner, **cost)
            assert 0 < error.retry_after_seconds <= 2
            await asyncio.sleep(error.retry_after_seconds + 0.02)
            await counted.spend(owner, **cost)

    lived(story, rates(url=url))


def test_what_one_spends_costs_nobody_else_anything(url: str | None) -> None:
    async def story(counted: Rates) -> None:
        await refused(counted, "greedy", num_requests=1)
        await counted.spend("modest", num_requests=1)

    lived(story, rates(url=url, requests=RateLimitItemPerSecond(3, 30, "requests")))


def test_what_does_not_fit_is_not_counted(url: str | None) -> None:
    async def story(counted: Rates) -> None:
        await counted.spend("large", num_bytes=600)
        with pytest.raises(RateExceeded):
            await counted.spend("large", num_bytes=401)
        await counted.spend("large", num_bytes=400)

    lived(story, rates(url=url, bytes=RateLimitItemPerSecond(1000, 30, "bytes")))


def test_the_refusal_names_the_limit_and_when_to_ask_again() -> None:
    async def story(counted: Rates) -> RateExceeded:
        return await refused(counted, "a", num_bytes=600)

    error = lived(story, rates(url=None, bytes=RateLimitItemPerSecond(1000, 60, "bytes")))
    assert "may send 1,000 bytes in 60 seconds" in str(error)


def test_replicas_that_share_a_redis_grant_together_what_one_may_do(redis_url: str) -> None:
    async def story(*replicas: Rates) -> int:
        granted = 0
        for turn in range(30):
            try:
                await replicas[turn % 3].spend("shared", num_requests=1)
                granted += 1
            except RateExceeded:
                pass
        return granted

    replicas = [rates(url=redis_url, requests=RateLimitItemPerSecond(7, 30, "requests")) for _ in range(3)]
    assert lived(story, *replicas) == 7


def test_without_its_redis_a_replica_counts_for_itself_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def story(counted: Rates) -> None:
        error = await refused(counted, "a", num_requests=1)
        assert error.limit.amount == 3

    with running_redis() as url:
        pass
    caplog.set_level(logging.WARNING)
    lived(story, rates(url=url, requests=RateLimitItemPerSecond(3, 30, "requests")))
    assert ["counts by itself" in record.message for record in caplog.records] == [True]  # once, not for each request
    assert url.partition("@")[0] not in caplog.text


@given(
    amount=st.integers(1, 10**9),
    share=st.floats(0.001, 1),
    before=st.floats(0, 1),
    current=st.floats(0, 1),
    shifts_seconds=st.floats(0, 60),
)
def test_the_time_that_is_told_is_the_first_at_which_it_fits(
    amount: int, share: float, before: float, current: float, shifts_seconds: float
) -> None:
    """By the formula of the library: what was before * its seconds / window + what is now + cost <= amount."""
    cost = max(1, int(share * amount))
    num_before, num_now = int(before * amount), int(current * amount)
    wait = seconds_until_room(amount, 60, cost, (num_before, shifts_seconds, num_now, shifts_seconds + 60))

    def counted_after(seconds: float) -> float:
        if seconds < shifts_seconds:
            return num_before * (shifts_seconds - seconds) / 60 + num_now
        return num_now * max(shifts_seconds + 60 - seconds, 0) / 60

    slack = 1e-6 * amount
    assert counted_after(max(wait, 0) + 1e-9) + cost <= amount + slack
    assert wait <= 1e-9 or counted_after(wait - 1e-9) + cost >= amount - slack


def test_a_url_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(OptionError, match="the URL of the store of rates cannot be read") as refused:
        rates_of(RateSettings(), url="postgresql://me:hunter2@host/db")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"VIDSEQ_SESSION_STORE": "sqlite:////tmp/a.db"}, None),
        ({"VIDSEQ_SESSION_STORE": "redis://a"}, "redis://a"),
        ({"VIDSEQ_SESSION_STORE": "redis://a", "VIDSEQ_RATE_STORE": "rediss://b"}, "rediss://b"),
        ({"VIDSEQ_SESSION_STORE": "sqlite:////tmp/a.db", "VIDSEQ_RATE_STORE": "redis://b"}, "redis://b"),
    ],
)
def test_rates_are_shared_where_the_environment_names_a_redis(environ: dict[str, str], url: str | None) -> None:
    assert store_of_rates(environ) == url


@pytest.mark.parametrize("name", ["bytes_per_minute", "bytes_per_hour"])
def test_rates_in_which_no_whole_body_fits_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"more than {name} 33554432"):
        WebSettings.model_validate({"rates": {name: 2**25}})
