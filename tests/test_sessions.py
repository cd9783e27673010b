"""Sessions: every push counts once, whoever applies it and however often it comes."""

import asyncio
import gc
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.labeller import Labeller
from serving.sealing import Tokens
from serving.sessions import Sessions, SessionSettings, digest
from serving.store import Lifetimes, Store, open_store
from tests.redis_server import running_redis
from tests.toy_models import toy_checkpoint
from tests.toy_streams import assert_same, chunked, encoded, labels, picture, pushed, run, toy_frames, toy_live
from tests.web_server import wait_until
from vidseq.config import Limits, StreamRules
from vidseq.errors import (
    ModelReplaced,
    NothingSampled,
    PushMismatch,
    SequenceConflict,
    SessionEnded,
    SessionError,
    SessionExpired,
    SessionNotFound,
    StateError,
    StreamRefused,
    TokenError,
)
from vidseq.live import Live
from vidseq.messages import Applied, Final, Notice, Open, Resume, StreamOptions, pack_frames
from vidseq.sandbox.box import Sandbox

KEY = hashlib.sha256(b"a key for tests").digest()
FRAMES = toy_frames(30, frames_per_second=10)
PUSHES = [pack_frames(frames) for frames in chunked(FRAMES, [4])]
OWNER = "somebody"
few = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class House:
    """Two services over one store, as two replicas have it."""

    live: Live
    url: str

    def service(self, *, live: Live | None = None, keys: tuple[bytes, ...] = (KEY,), **lifetimes: float) -> Sessions:
        kept = Lifetimes.model_validate(lifetimes)
        store = open_store(self.url, lifetimes=kept, keys=keys)
        return Sessions(live or self.live, store=store, tokens=Tokens(keys), settings=SessionSettings(lifetimes=kept))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture
def house(live: Live, tmp_path: Path) -> House:
    return House(live, f"sqlite:///{tmp_path}/sessions.db")


async def opened(service: Sessions, **asked: object) -> str:
    stream = await service.open(Open.model_validate(asked), owner=OWNER)
    assert stream.ready.session is not None
    return stream.ready.session


async def whole(service: Sessions, pushes: list[bytes] = PUSHES) -> tuple[list[Applied], Final]:
    session = await opened(service)
    answers = [
        await service.put(session, sequence=sequence, push=push, owner=OWNER) for sequence, push in enumerate(pushes)
    ]
    return answers, await service.end(session, owner=OWNER)


def test_pushes_one_by_one_say_what_the_stream_says_in_memory(house: House) -> None:
    answers, final = run(whole(house.service()))
    expected, session = run(pushed(house.live, chunked(FRAMES, [4])))
    assert_same(labels(answers), labels(expected))
    assert final.prediction.sampled.num_frames == session.track.num_frames


@few
@given(order=st.lists(st.integers(0, len(PUSHES) - 1), max_size=30))
def test_duplicates_and_reorderings_change_nothing(house: House, order: list[int]) -> None:
    """Pushes come in any order and number through either of two services; in the end those that were due came too."""

    async def story() -> list[Applied]:
        services, answers = (house.service(), house.service()), dict[int, Applied]()
        session = await opened(services[0])
        for turn, sequence in enumerate([*order, *range(len(PUSHES))]):
            due = len(answers)
            put = services[turn % 2].put(session, sequence=sequence, push=PUSHES[sequence], owner=OWNER)
            if sequence > due:
                with pytest.raises(SequenceConflict) as conflict:
                    await put
                assert conflict.value.expected == due
                continue
            applied = await put
            assert answers.setdefault(sequence, applied) == applied
        return [answers[sequence] for sequence in sorted(answers)]

    expected, _ = run(whole(house.service()))
    assert_same(labels(run(story())), labels(expected))


def test_one_push_sent_through_eight_doors_at_once_counts_once(house: House) -> None:
    async def story() -> tuple[list[Applied], int]:
        services = [house.service() for _ in range(8)]
        session = await opened(services[0])
        puts = [service.put(session, sequence=0, push=PUSHES[0], owner=OWNER) for service in services]
        answers = await asyncio.gather(*puts)
        return answers, (await services[0].standing(session, owner=OWNER)).next_sequence

    answers, next_sequence = run(story())
    assert next_sequence == 1
    assert all(applied == answers[0] for applied in answers)


def test_a_number_that_was_used_for_something_else_is_refused(house: House) -> None:
    async def story() -> None:
        service = house.service()
        session = await opened(service)
        await service.put(session, sequence=0, push=PUSHES[0], owner=OWNER)
        await service.put(session, sequence=0, push=PUSHES[1], owner=OWNER)

    with pytest.raises(PushMismatch, match="push 0 was applied before"):
        run(story())


def test_a_connection_goes_on_where_another_was_cut(house: House) -> None:
    async def story() -> list[Applied]:
        first = await house.service().open(Open(), owner=OWNER)
        answers = [await first.push(push, born_seconds=0.0) for push in PUSHES[:3]]
        resume = Resume(session=first.ready.session, received=2)  # the third answer was lost on its way
        second = await house.service().open(Open(resume=resume), owner=OWNER)
        assert second.missed == (answers[2],)
        assert second.ready.next_sequence == 3
        return answers + [await second.push(push, born_seconds=0.0) for push in PUSHES[3:]]

    expected, _ = run(whole(house.service()))
    assert_same(labels(run(story())), labels(expected))


def test_a_push_that_both_the_old_and_the_new_connection_apply_counts_once(house: House) -> None:
    async def story() -> tuple[Applied, Applied, Applied]:
        old = await house.service().open(Open(), owner=OWNER)
        new = await house.service().open(Open(resume=Resume(session=old.ready.session)), owner=OWNER)
        one, other = [await stream.push(PUSHES[0], born_seconds=0.0) for stream in (old, new)]
        return one, other, await new.push(PUSHES[1], born_seconds=0.0)

    one, other, after = run(story())
    assert one == other
    assert after.sequence == 1


def test_in_redis_too_a_session_goes_on_where_it_was_cut_and_a_push_counts_once(live: Live) -> None:
    async def story(house: House) -> list[Applied]:
        old = await house.service().open(Open(), owner=OWNER)
        answers = [await old.push(push, born_seconds=0.0) for push in PUSHES[:2]]
        new = await house.service().open(Open(resume=Resume(session=old.ready.session, received=1)), owner=OWNER)
        assert new.missed == (answers[1],)
        both = [await stream.push(PUSHES[2], born_seconds=0.0) for stream in (old, new)]
        assert both[0] == both[1]
        return [*answers, both[0], *[await new.push(push, born_seconds=0.0) for push in PUSHES[3:]]]

    with running_redis() as url:
        found = run(story(House(live, url)))
    expected, _ = run(pushed(live, chunked(FRAMES, [4])))
    assert_same(labels(found), labels(expected))


def test_the_old_connection_is_told_when_the_new_one_has_gone_on(house: House) -> None:
    async def story() -> None:
        old = await house.service().open(Open(), owner=OWNER)
        new = await house.service().open(Open(resume=Resume(session=old.ready.session)), owner=OWNER)
        for push in PUSHES[:2]:
            await new.push(push, born_seconds=0.0)
        await old.push(PUSHES[0], born_seconds=0.0)

    with pytest.raises(SequenceConflict):
        run(story())


def test_a_token_goes_on_anywhere_with_nothing_kept(house: House) -> None:
    async def story() -> list[Applied]:
        stream = await house.service().open(Open(keep="client"), owner=OWNER)
        answers = []
        for push in PUSHES:
            answers.append(await stream.push(push, born_seconds=0.0))
            resume = Resume(token=answers[-1].resume_token)
            stream = await house.service().open(Open(keep="client", resume=resume), owner=OWNER)
        return answers

    expected, _ = run(whole(house.service()))
    assert_same(labels(run(story())), labels(expected))


def test_a_token_keeps_the_options_of_its_stream(house: House) -> None:
    async def story() -> StreamOptions:
        asked = Open(keep="client", options=StreamOptions(rules=StreamRules(gap="refuse"), top_k=1))
        stream = await house.service().open(asked, owner=OWNER)
        applied = await stream.push(PUSHES[0], born_seconds=0.0)
        resumed = Open(keep="client", resume=Resume(token=applied.resume_token))
        return (await house.service().open(resumed, owner=OWNER)).options

    assert run(story()) == StreamOptions(rules=StreamRules(gap="refuse"), top_k=1)


@pytest.mark.parametrize(("keys", "owner"), [((bytes(32),), OWNER), ((KEY,), "somebody else")])
def test_a_token_of_other_keys_or_of_another_caller_is_refused(
    house: House, keys: tuple[bytes, ...], owner: str
) -> None:
    async def story() -> None:
        stream = await house.service().open(Open(keep="client"), owner=OWNER)
        token = (await stream.push(PUSHES[0], born_seconds=0.0)).resume_token
        await house.service(keys=keys).open(Open(keep="client", resume=Resume(token=token)), owner=owner)

    with pytest.raises(TokenError):
        run(story())


@pytest.mark.parametrize("keep", ["service", "client"])
def test_a_stream_whose_model_was_replaced_names_both(house: House, tmp_path: Path, keep: str) -> None:
    async def story(other: Live) -> None:
        stream = await house.service().open(Open.model_validate({"keep": keep}), owner=OWNER)
        applied = await stream.push(PUSHES[0], born_seconds=0.0)
        resume = Resume(session=stream.ready.session, token=applied.resume_token)
        await house.service(live=other).open(Open.model_validate({"keep": keep, "resume": resume}), owner=OWNER)

    with toy_live(tmp_path / "other", seed=1) as other, pytest.raises(ModelReplaced) as refused:
        run(story(other))
    assert house.live.info.sha256[:12] in str(refused.value) and other.info.sha256[:12] in str(refused.value)


@pytest.mark.parametrize("keep", ["service", "client"])
def test_a_stream_goes_on_with_a_model_of_the_same_trunk_that_takes_the_place_of_its_own(
    house: House, tmp_path: Path, keep: str
) -> None:
    async def story(newer: Live) -> tuple[list[Applied], Final]:
        service = house.service()
        stream = await service.open(Open.model_validate({"keep": keep}), owner=OWNER)
        answers = []
        for push in PUSHES:
            answers.append(await stream.push(push, born_seconds=0.0))
            service.live = newer if service.live is house.live else house.live
        return answers, await stream.end(video=None, seen_until=None)

    expected, _ = run(whole(house.service()))
    with toy_live(tmp_path / "newer", version="2") as newer:
        assert newer.info.sha256 != house.live.info.sha256
        answers, final = run(story(newer))
    assert_same(labels(answers), labels(expected))
    assert final.prediction.model.version == ("2" if len(PUSHES) % 2 == 0 else "1")


def test_a_kept_session_is_resumed_by_a_model_of_the_same_trunk(house: House, tmp_path: Path) -> None:
    async def story(newer: Live) -> list[Applied]:
        session = await opened(house.service())
        services = [house.service(), house.service(live=newer)]
        return [
            await services[sequence % 2].put(session, sequence=sequence, push=push, owner=OWNER)
            for sequence, push in enumerate(PUSHES)
        ]

    expected, _ = run(whole(house.service()))
    with toy_live(tmp_path / "newer", version="2") as newer:
        assert_same(labels(run(story(newer))), labels(expected))


def test_a_stream_that_cannot_go_on_with_the_model_in_its_models_place_hears_so_at_its_next_push(
    house: House, tmp_path: Path
) -> None:
    async def story(other: Live) -> None:
        service = house.service()
        stream = await service.open(Open(), owner=OWNER)
        await stream.push(PUSHES[0], born_seconds=0.0)
        service.live = other
        await stream.push(PUSHES[1], born_seconds=0.0)

    with toy_live(tmp_path / "other", seed=1) as other, pytest.raises(ModelReplaced) as refused:
        run(story(other))
    assert house.live.info.sha256[:12] in str(refused.value) and other.info.sha256[:12] in str(refused.value)


def test_a_push_that_was_begun_with_a_model_ends_with_it(house: House, tmp_path: Path) -> None:
    async def story(other: Live) -> tuple[Applied, int]:
        service = house.service()
        stream = await service.open(Open(), owner=OWNER)
        push = asyncio.ensure_future(stream.push(PUSHES[0], born_seconds=0.0))
        await asyncio.sleep(0)  # it has begun
        service.live = other
        applied = await push
        service.live = house.live
        session = stream.ready.session
        assert session is not None
        return applied, (await service.standing(session, owner=OWNER)).next_sequence

    expected, _ = run(whole(house.service()))
    with toy_live(tmp_path / "other", seed=1) as other:
        applied, next_sequence = run(story(other))
    assert_same(labels([applied]), labels(expected[:1]))
    assert next_sequence == 1


def test_the_session_of_another_caller_is_not_even_there(house: House) -> None:
    async def story() -> None:
        session = await opened(house.service())
        await house.service().standing(session, owner="somebody else")

    with pytest.raises(SessionNotFound):
        run(story())


def test_an_ended_session_repeats_its_last_answer_and_takes_no_more(house: House) -> None:
    async def story() -> tuple[Final, Final]:
        service = house.service()
        session = await opened(service)
        await service.put(session, sequence=0, push=PUSHES[0], owner=OWNER)
        finals = await service.end(session, owner=OWNER), await service.end(session, owner=OWNER)
        with pytest.raises(SessionEnded, match="the number of its last push was 0"):
            await service.put(session, sequence=1, push=PUSHES[1], owner=OWNER)
        assert (await service.standing(session, owner=OWNER)).ended
        return finals

    first, second = run(story())
    assert first == second


def test_the_last_answer_is_heard_by_a_connection_that_resumes(house: House) -> None:
    async def story() -> None:
        stream = await house.service().open(Open(), owner=OWNER)
        await stream.push(PUSHES[0], born_seconds=0.0)
        final = await stream.end(video=None, seen_until=None)
        resumed = await house.service().open(Open(resume=Resume(session=stream.ready.session, received=1)), owner=OWNER)
        assert resumed.missed == (final,)

    run(story())


def test_a_session_that_saw_nothing_cannot_end_but_be_forgotten(house: House) -> None:
    async def story() -> None:
        service = house.service()
        session = await opened(service)
        with pytest.raises(NothingSampled):
            await service.end(session, owner=OWNER)
        await service.forget(session, owner=OWNER)
        with pytest.raises(SessionNotFound):
            await service.standing(session, owner=OWNER)

    run(story())


def test_a_refused_push_leaves_the_session_as_it_was(house: House) -> None:
    async def story() -> None:
        service = house.service()
        session = await opened(service, options={"rules": {"gap": "refuse"}})
        await service.put(session, sequence=0, push=PUSHES[0], owner=OWNER)
        with pytest.raises(StreamRefused, match="gap"):
            await service.put(session, sequence=1, push=pack_frames(toy_frames(1, first=900)), owner=OWNER)
        await service.put(session, sequence=1, push=PUSHES[1], owner=OWNER)

    run(story())


def test_an_idle_session_expires(house: House) -> None:
    async def story() -> None:
        service = house.service(idle_seconds=0.2)
        session = await opened(service)
        await asyncio.sleep(0.3)
        await service.put(session, sequence=0, push=PUSHES[0], owner=OWNER)

    with pytest.raises(SessionExpired):
        run(story())


# Two connections at once


class Overtaken:
    """A store that lets something else happen, once, just before it is asked for `what`."""

    def __init__(self, store: Store, what: str, happens: Callable[[], object]) -> None:
        self._store = store
        self._what = what
        self._happens = [happens]

    def __getattr__(self, name: str) -> Any:
        if name == self._what and self._happens:
            self._happens.pop()()
        return getattr(self._store, name)


def overtaken(house: House, what: str, happens: Callable[[Sessions], Any]) -> Sessions:
    """A service that is overtaken by another one, over the same store."""
    service, other = house.service(), house.service()
    service.store = Overtaken(service.store, what, lambda: run_aside(happens(other)))
    return service


def run_aside(work: Any) -> None:
    """In a loop and a thread of its own, to its end."""
    with ThreadPoolExecutor(1) as aside:
        aside.submit(asyncio.run, work).result()


def test_an_answer_that_comes_while_a_stream_is_resumed_is_not_yet_missed(house: House) -> None:
    """Else the client would hear of a push that it is told to send."""

    async def story() -> None:
        session = await opened(house.service())
        service = overtaken(
            house, "answers_from", lambda other: other.put(session, sequence=0, push=PUSHES[0], owner=OWNER)
        )
        stream = await service.open(Open(resume=Resume(session=session)), owner=OWNER)
        assert (stream.ready.next_sequence, stream.missed) == (0, ())
        assert (await stream.push(PUSHES[0], born_seconds=0.0)).sequence == 0

    run(story())


def test_a_push_that_others_applied_and_left_behind_gets_its_stored_answer(house: House) -> None:
    async def story() -> tuple[Applied, Applied]:
        session = await opened(house.service())

        async def two_pushes(other: Sessions) -> None:
            for sequence in range(2):
                await other.put(session, sequence=sequence, push=PUSHES[sequence], owner=OWNER)

        slow = await overtaken(house, "replace", two_pushes).put(session, sequence=0, push=PUSHES[0], owner=OWNER)
        return slow, await house.service().put(session, sequence=0, push=PUSHES[0], owner=OWNER)

    slow, stored = run(story())
    assert slow == stored


def test_a_stream_that_an_old_connection_ended_is_to_be_resumed_and_tells_its_end(house: House) -> None:
    async def story() -> None:
        old = await house.service().open(Open(), owner=OWNER)
        resume = Resume(session=old.ready.session)
        new = await house.service().open(Open(resume=resume), owner=OWNER)
        applied = await old.push(PUSHES[0], born_seconds=0.0)
        final = await old.end(video=None, seen_until=old.seen_until)
        with pytest.raises(SequenceConflict):  # which a client takes up by resuming; SessionEnded would be the end
            await new.push(PUSHES[0], born_seconds=0.0)
        assert (await house.service().open(Open(resume=resume), owner=OWNER)).missed == (applied, final)

    run(story())


def test_a_session_ended_through_eight_doors_at_once_has_one_end(house: House) -> None:
    async def story() -> list[Final]:
        services = [house.service() for _ in range(8)]
        session = await opened(services[0])
        await services[0].put(session, sequence=0, push=PUSHES[0], owner=OWNER)
        return list(await asyncio.gather(*(service.end(session, owner=OWNER) for service in services)))

    finals = run(story())
    assert all(final == finals[0] for final in finals)


def test_answers_that_were_missed_and_are_no_longer_kept_are_not_passed_over_in_silence(house: House) -> None:
    async def story() -> None:
        service = house.service(kept_answers=2)
        stream = await service.open(Open(), owner=OWNER)
        for push in PUSHES[:4]:
            await stream.push(push, born_seconds=0.0)
        session = stream.ready.session
        assert len((await service.open(Open(resume=Resume(session=session, received=2)), owner=OWNER)).missed) == 2
        with pytest.raises(SessionError, match="the answer to push 1 is due"):
            await service.open(Open(resume=Resume(session=session, received=1)), owner=OWNER)

    run(story())


def test_each_of_several_dropped_pushes_has_the_token_that_goes_on_just_after_it(house: House) -> None:
    told = Notice(kind="dropped", effect="dropped", seconds=0.0, num_frames=4, detail="too fast")

    async def story() -> list[int]:
        stream = await house.service().open(Open(keep="client"), owner=OWNER)
        answers = await stream.skip([(digest(push), told) for push in PUSHES[:3]])
        resumed = [Open(keep="client", resume=Resume(token=applied.resume_token)) for applied in answers]
        return [(await house.service().open(asked, owner=OWNER)).ready.next_sequence for asked in resumed]

    assert run(story()) == [1, 2, 3]


def test_another_callers_session_and_one_that_never_was_are_refused_in_the_same_words(house: House) -> None:
    async def refused(session: str) -> str:
        with pytest.raises(SessionNotFound) as error:
            await house.service().standing(session, owner="somebody else")
        return str(error.value)

    async def story() -> tuple[str, str]:
        return await refused(await opened(house.service())), await refused("nobody")

    theirs, nobodys = run(story())
    assert theirs == nobodys


def test_a_token_whose_words_another_version_wrote_is_refused_as_such(house: House) -> None:
    token = Tokens((KEY,)).seal(b"\x02\0\0\0{}", owner=OWNER, lifetime_seconds=60)

    async def story() -> None:
        await house.service().open(Open(keep="client", resume=Resume(token=token)), owner=OWNER)

    with pytest.raises(StateError, match="version"):
        run(story())


# Pictures in boxes


def children(sandbox: Sandbox) -> int:
    """How many processes decode."""
    return len(Path(f"/proc/{sandbox.server_pid}/task/{sandbox.server_pid}/children").read_text().split())


@pytest.mark.parametrize("keep", ["service", "client"])
def test_whose_pictures_are_decoded_by_whose_process(tmp_path: Path, keep: str) -> None:
    """Streams of one key share one; without keys each stream has its own. None is parsed in the service itself."""
    push = pack_frames([encoded(picture(1), 0.0)])

    async def children_after(service: Sessions, *owners: str) -> int:
        for owner in owners:
            stream = await service.open(Open(keep=keep), owner=owner)
            await stream.push(push, born_seconds=0.0)
        return children(sandbox)

    def num_memfds() -> int:
        return sum("vidseq-picture" in str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())

    num_before = num_memfds()
    model = toy_checkpoint(tmp_path / "toy")
    with Sandbox() as sandbox:
        labeller = Labeller(model, name=None, device="cpu", limits=Limits(), sandbox=sandbox)
        assert labeller.live is not None
        service = House(labeller.live, f"sqlite:///{tmp_path}/sessions.db").service()
        assert run(children_after(service, "ann", "ann", "ben")) == 2
        assert run(children_after(service, "", "", "ann")) == 4
        del labeller, service  # as a model that was replaced
        gc.collect()
        wait_until(lambda: children(sandbox) == 0)
        assert num_memfds() == num_before
