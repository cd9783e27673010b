"""What waits for its turn: bounded in pushes and bytes, thinned evenly, and nothing dropped in silence."""

import asyncio
import hashlib
from collections.abc import Sequence

import pytest

from serving.backlog import MAX_OWED_PUSHES, MAX_SKIPPED_PUSHES, Backlog, Inflow, Waiting
from serving.problems import BodyTooLarge, WindowExceeded
from tests.toy_streams import run, toy_frames
from vidseq.errors import OptionError
from vidseq.messages import Notice, pack_frames

FRAMES = toy_frames(200)
PUSHES = [pack_frames([frame]) for frame in FRAMES]
PUSH_BYTES = max(map(len, PUSHES))

Taken = Waiting | list[tuple[bytes, Notice]]


def backlog(when_full: str, *, max_pushes: int = 8, max_bytes: int = 2**20) -> Backlog:
    return Backlog(when_full=when_full, max_push_bytes=PUSH_BYTES, max_pushes=max_pushes, max_bytes=max_bytes)


async def drained(waiting: Backlog) -> list[Taken]:
    waiting.end()
    taken = []
    while (one := await waiting.take()) is not None:
        taken.append(one)
    return taken


def whole(taken: Sequence[Taken]) -> list[int]:
    """The numbers of the pushes that were not dropped."""
    return [PUSHES.index(one.push) for one in taken if isinstance(one, Waiting)]


def dropped(taken: Sequence[Taken]) -> list[tuple[bytes, Notice]]:
    return [one for run in taken if isinstance(run, list) for one in run]


@pytest.mark.parametrize("when_full", ["block", "drop_oldest", "thin"])
def test_as_many_pushes_as_the_window_has_come_out_as_they_went_in(when_full: str) -> None:
    async def story() -> list[Taken]:
        waiting = backlog(when_full)
        for push in PUSHES[:8]:
            waiting.put(push)
        return await drained(waiting)

    assert whole(run(story())) == list(range(8))


def test_a_client_that_would_wait_and_does_not_is_refused_with_the_numbers() -> None:
    async def story() -> None:
        waiting = backlog("block")
        for push in PUSHES[:9]:
            waiting.put(push)

    with pytest.raises(WindowExceeded, match=r"9 pushes .* at most 8"):
        run(story())


def test_the_window_counts_bytes_too_but_one_push_may_always_come() -> None:
    async def story() -> None:
        waiting = backlog("block", max_bytes=PUSH_BYTES - 1)
        waiting.put(PUSHES[100])
        await waiting.take()
        waiting.put(PUSHES[100])
        waiting.put(PUSHES[101])

    with pytest.raises(WindowExceeded, match="2 pushes"):
        run(story())


def test_the_oldest_goes_first_and_every_push_is_answered_in_its_turn() -> None:
    async def story() -> list[Taken]:
        waiting = backlog("drop_oldest")
        for push in PUSHES[:20]:
            waiting.put(push)
        return await drained(waiting)

    taken = run(story())
    assert whole(taken) == list(range(12, 20))
    assert [digest for digest, _ in dropped(taken)] == [hashlib.sha256(push).digest() for push in PUSHES[:12]]
    assert [notice.seconds for _, notice in dropped(taken)] == [frame.seconds for frame in FRAMES[:12]]
    assert {(notice.kind, notice.num_frames) for _, notice in dropped(taken)} == {("dropped", 1)}


def test_what_is_thinned_out_is_thinned_evenly() -> None:
    """A stride that doubles, not a beginning that is thinner than its end."""

    async def story() -> list[Taken]:
        waiting = backlog("thin")
        for push in PUSHES[:100]:
            waiting.put(push)
        return await drained(waiting)

    assert whole(run(story())) == list(range(0, 100, 16))


def test_a_service_that_has_caught_up_takes_every_push_again() -> None:
    async def story() -> list[Taken]:
        waiting = backlog("thin")
        for push in PUSHES[:30]:
            waiting.put(push)
        taken = []
        for push in PUSHES[30:]:
            waiting.put(push)
            one = await waiting.take()
            assert one is not None
            taken.append(one)
        return taken + await drained(waiting)

    assert whole(run(story()))[-50:] == list(range(150, 200))


@pytest.mark.parametrize("when_full", ["drop_oldest", "thin"])
def test_dropped_pushes_hold_no_bytes(when_full: str) -> None:
    async def story() -> int:
        waiting = backlog(when_full, max_pushes=100, max_bytes=3 * PUSH_BYTES)
        for push in PUSHES:
            waiting.put(push)
        return sum(len(PUSHES[number]) for number in whole(await drained(waiting)))

    assert run(story()) <= 3 * PUSH_BYTES


def test_dropped_pushes_are_answered_some_at_a_time() -> None:
    async def story() -> list[Taken]:
        waiting = backlog("drop_oldest")
        for push in PUSHES:
            waiting.put(push)
        return await drained(waiting)

    assert [len(one) for one in run(story()) if isinstance(one, list)] == [MAX_SKIPPED_PUSHES] * 3


def test_a_client_that_takes_no_answers_meets_an_end_in_every_mode() -> None:
    async def story() -> None:
        waiting = backlog("drop_oldest")
        for _ in range(MAX_OWED_PUSHES + 1):
            waiting.put(PUSHES[0])

    with pytest.raises(WindowExceeded, match="4,096"):
        run(story())


def test_what_is_no_push_cannot_be_dropped_in_silence() -> None:
    async def story() -> None:
        waiting = backlog("drop_oldest", max_pushes=1)
        waiting.put(b"not a push")
        waiting.put(PUSHES[0])

    with pytest.raises(OptionError, match="header"):
        run(story())


def test_a_push_that_is_too_large_is_refused() -> None:
    async def story() -> None:
        backlog("block").put(bytes(PUSH_BYTES + 1))

    with pytest.raises(BodyTooLarge):
        run(story())


def test_who_takes_waits_for_who_puts() -> None:
    async def story() -> Taken | None:
        waiting = backlog("block")
        assert not waiting.owes
        taking = asyncio.create_task(waiting.take())
        await asyncio.sleep(0)
        waiting.put(PUSHES[7])
        taken = await taking
        assert waiting.owes, "what was taken is not answered yet"
        return taken

    taken = run(story())
    assert isinstance(taken, Waiting) and taken.push == PUSHES[7]


def test_bytes_of_a_video_come_out_as_they_went_in_whatever_the_pieces() -> None:
    async def story() -> bytes:
        inflow = Inflow(max_bytes=1000)
        for piece in (b"abc", b"", b"defgh"):
            inflow.put(piece)
        inflow.end()
        return b"|".join([await inflow.take(max_bytes=3) for _ in range(4)])

    assert run(story()) == b"abc|def|gh|"


def test_bytes_count_until_the_decoder_has_them() -> None:
    async def story() -> None:
        inflow = Inflow(max_bytes=10)
        inflow.put(bytes(10))
        await inflow.take(max_bytes=4)
        inflow.passed(4)
        inflow.put(bytes(4))
        assert (inflow.num_passed, inflow.owes) == (4, True)
        await inflow.take(max_bytes=10)
        inflow.put(b"x")

    with pytest.raises(WindowExceeded, match="11 bytes"):
        run(story())
