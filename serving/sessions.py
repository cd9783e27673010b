"""The life of sessions: opened, pushed to, resumed, ended, each push applied exactly once. Knows no HTTP and no Ray.

    keep service    push -> labels -> compare-and-set of (state, answer) in the store -> answer
    keep client     push -> labels -> answer, with the state inside it as a sealed token

No replica owns a session. Whoever is asked reads it, and the first to write a push's answer has given it: a push that
was applied before, here or elsewhere, is answered with what was said then.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from serving.sealing import Tokens
from serving.store import Kept, Lifetimes, Record, Store, absent
from serving.usage.used import Charge, Used, uncharged
from vidseq.config import Config, PositiveInt, Sampling
from vidseq.errors import ModelReplaced, PushMismatch, SequenceConflict, SessionEnded, SessionError, StateError
from vidseq.messages import (
    Applied,
    Final,
    Notice,
    Open,
    Ready,
    ServiceMessage,
    Standing,
    StreamOptions,
    read_service_message,
    unpack_frames,
)
from vidseq.schemas import ModelInfo, VideoReport

if TYPE_CHECKING:  # with them come torch and OpenCV, which only a replica loads
    from vidseq.live import Live
    from vidseq.sampling import Clip, Clock
    from vidseq.session import Session


class SessionSettings(Config):
    """How far a client may run ahead, and how long what is kept lives."""

    window_pushes: PositiveInt = 32
    window_bytes: PositiveInt = 16 * 2**20
    max_push_bytes: PositiveInt = 8 * 2**20
    lifetimes: Lifetimes = Lifetimes()


class _Meta(BaseModel):
    """What does not change during a session: kept beside its state, and inside its tokens."""

    model: ModelInfo
    continuity: str = ""  # of Live; sessions that began before it was written know their model alone
    options: StreamOptions


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a stream stands, with which model, and where that is kept. `record` is None where the client keeps it."""

    live: Live
    session: Session
    options: StreamOptions
    record: Record | None
    owner: str


class Sessions:
    """Streams of one model. Store calls block, so they are made in threads.

    Args:
        live: the model. Another may take its place at any time: each push is answered by the one that is there when it
            begins, and a stream that cannot go on with it hears ModelReplaced.
        store: where sessions are kept.
        tokens: how sessions are sealed that their clients keep.
        settings: windows and lifetimes.
        charge: told of what each push has cost whose stream it is, once it counts.
    """

    def __init__(
        self, live: Live, *, store: Store, tokens: Tokens, settings: SessionSettings, charge: Charge = uncharged
    ) -> None:
        self.live = live
        self.charge = charge
        self.store = store
        self.settings = settings
        self._tokens = tokens

    @property
    def info(self) -> ModelInfo:
        return self.live.info

    async def open(self, asked: Open, *, owner: str) -> Stream:
        """A new stream, or one that goes on.

        Raises:
            SessionNotFound, SessionExpired, ModelReplaced, TokenError: it cannot go on.
            SessionEnded: it has ended, and the caller has heard its last answer.
            SessionError: answers that the caller says it has not heard are no longer kept.
            TooManySessions: no place for a new one.
        """
        if asked.resume is not None and asked.resume.session is not None:
            place = await self.read(asked.resume.session, owner=owner, may_have_ended=True)
            missed = await asyncio.to_thread(self._missed, place, asked.resume.received)
            if place.record is not None and place.record.ended and not missed:
                raise _ended(place.record)
            return Stream(self, place, missed)
        if asked.resume is not None and asked.resume.token is not None:
            place = self._open_token(asked.resume.token, owner)
        else:
            live = self.live
            place = _Place(live, live.start(), asked.options, None, owner)
        if asked.keep == "service":
            record = self._record(place)
            await asyncio.to_thread(self.store.create, record)
            place = replace(place, record=record)
        return Stream(self, place, ())

    async def put(self, session_id: str, *, sequence: int, push: bytes, owner: str) -> Applied:
        """Apply push number `sequence`; one that was applied before is answered with what was said then.

        Raises:
            SequenceConflict: another number is due. PushMismatch: the number was used, with other content.
            SessionNotFound, SessionExpired, SessionEnded, ModelReplaced: it cannot go on.
            OptionError: not a push. StreamRefused: a rule of the stream refuses it.
        """
        place = await self.read(session_id, owner=owner)
        if sequence == place.session.sequence:
            try:
                return await Stream(self, place, ()).push(push, born_seconds=time.perf_counter())
            except SequenceConflict:  # others have applied it at the same time, and gone on
                place = await self.read(session_id, owner=owner, may_have_ended=True)
        return await self.repeated(place, sequence, digest(push))

    async def repeated(self, place: _Place, sequence: int, digest: bytes) -> Applied:
        """What was said to a push that was applied before."""
        assert place.record is not None, "only what is kept can be repeated"
        kept = None
        if sequence < place.session.sequence:
            kept = await asyncio.to_thread(self.store.answer, place.record.session_id, sequence)
        if kept is None:
            raise SequenceConflict(place.session.sequence)
        if kept.digest != digest:
            raise PushMismatch(f"push {sequence} was applied before, with other content")
        return Applied.model_validate_json(kept.answer)

    async def standing(self, session_id: str, *, owner: str) -> Standing:
        """Where a session stands. Raises SessionNotFound, SessionExpired, ModelReplaced."""
        place = await self.read(session_id, owner=owner, may_have_ended=True)
        record, session = place.record, place.session
        assert record is not None
        actions = place.live.actions(session)
        lifetimes = self.settings.lifetimes
        return Standing(
            session=session_id,
            model=place.live.info,
            next_sequence=session.sequence,
            last_seconds=session.pace.last_seconds,
            num_frames=session.track.num_frames,
            action=next(iter(actions), None),
            actions=actions,
            ended=record.ended,
            created_seconds=record.created_seconds,
            expires_seconds=min(
                record.touched_seconds + (lifetimes.ended_seconds if record.ended else lifetimes.idle_seconds),
                record.created_seconds + lifetimes.absolute_seconds,
            ),
        )

    async def end(self, session_id: str, *, owner: str) -> Final:
        """The last answer; asked again, the same. Raises NothingSampled and what `put` raises."""
        place = await self.read(session_id, owner=owner, may_have_ended=True)
        return await Stream(self, place, ()).end(video=None, seen_until=place.session.pace.seen_until)

    async def forget(self, session_id: str, *, owner: str) -> None:
        """Leave nothing of a session. Raises SessionNotFound, SessionExpired."""
        record = await asyncio.to_thread(self.store.read, session_id)
        _refuse_foreign(record, owner)
        await asyncio.to_thread(self.store.delete, session_id)

    async def forget_all(self, *, owner: str) -> int:
        """Leave nothing of any session of an owner; how many were alive. Whoever pushes to one finds it no more."""
        return await asyncio.to_thread(self.store.forget_all, owner)

    def ready(self, place: _Place) -> Ready:
        session, config = place.session, place.live.config
        rate = config.sampling.frames_per_second
        return Ready(
            session=None if place.record is None else place.record.session_id,
            model=place.live.info,
            next_sequence=session.sequence,
            last_seconds=session.pace.last_seconds,
            frames_per_second=None if rate == "native" else rate,
            lookahead_seconds=config.heads.lookahead_seconds,
            window_pushes=self.settings.window_pushes,
            window_bytes=self.settings.window_bytes,
            max_push_bytes=self.settings.max_push_bytes,
            resume_token=self.token(place) if place.record is None else None,
        )

    def token(self, place: _Place) -> str:
        """The stream as its client may keep it: only a service with the same key reads it."""
        meta = _meta(place).encode()
        payload = len(meta).to_bytes(4, "little") + meta + place.live.to_bytes(place.session)
        lifetime_seconds = self.settings.lifetimes.absolute_seconds
        return self._tokens.seal(payload, owner=place.owner, lifetime_seconds=lifetime_seconds)

    async def read(self, session_id: str, *, owner: str, may_have_ended: bool = False) -> _Place:
        record = await asyncio.to_thread(self.store.read, session_id)
        _refuse_foreign(record, owner)
        if record.ended and not may_have_ended:
            raise _ended(record)
        live = self.live
        meta = _checked(record.meta, live)
        return _Place(live, live.from_bytes(record.state), meta.options, record, owner)

    def with_newest_model(self, place: _Place) -> _Place:
        """The stream in the hands of the model that answers now. Raises ModelReplaced."""
        live = self.live
        if live is not place.live:
            _refuse_other(live, began=place.live.info, continuity=place.live.continuity)
        return replace(place, live=live)

    def _missed(self, place: _Place, received: int) -> tuple[ServiceMessage, ...]:
        """The answers from `received` on, up to where `place` stands: an old connection may still be going on."""
        assert place.record is not None
        due = range(received, place.session.sequence)
        kept = self.store.answers_from(place.record.session_id, received)
        if due and received not in kept:
            raise SessionError(f"the answer to push {received} is due, and no longer kept: {len(due):,} came since")
        return tuple(read_service_message(kept[sequence].answer) for sequence in due)

    def _open_token(self, token: str, owner: str) -> _Place:
        payload = self._tokens.open(token, owner=owner)
        end = 4 + int.from_bytes(payload[:4], "little")
        live = self.live
        meta = _checked(payload[4:end], live)
        return _Place(live, live.from_bytes(payload[end:]), meta.options, None, owner)

    def _record(self, place: _Place) -> Record:
        now = time.time()
        return Record(
            session_id=secrets.token_urlsafe(16),
            owner=place.owner,
            sequence=place.session.sequence,
            state=place.live.to_bytes(place.session),
            meta=_meta(place),
            ended=False,
            created_seconds=now,
            touched_seconds=now,
        )


class Stream:
    """One stream as one connection has it: its newest session in memory, written to the store before it is told."""

    def __init__(self, sessions: Sessions, place: _Place, missed: Sequence[ServiceMessage]) -> None:
        self._sessions = sessions
        self._name = secrets.token_hex(16)
        self._place = place
        self.ready = sessions.ready(place)
        self.missed = tuple(missed)
        self.options = place.options
        self._num_decoded = 0  # of a video, so far on this connection

    @property
    def sampling(self) -> Sampling:
        return self._place.live.sampling(self.options)

    @property
    def clock(self) -> Clock | None:
        """Where sampling stands: frames up to its last time have been dealt with."""
        return self._place.session.pace.clock

    @property
    def seen_until(self) -> float | None:
        """When the last frame that came ends; None where nobody knows."""
        return self._place.session.pace.seen_until

    @property
    def _stranger(self) -> str:
        """Of a service that is open to all, who pushes: nobody but this stream."""
        record = self._place.record
        return self._name if record is None else record.session_id

    async def push(self, push: bytes, *, born_seconds: float, notices: Sequence[Notice] = ()) -> Applied:
        """Apply the next push of frames. `born_seconds` is when it came (time.perf_counter), for its deadline.

        Raises:
            OptionError: not a push. StreamRefused: a rule of the stream refuses it.
            SequenceConflict, SessionEnded, SessionExpired: another connection has gone on with this session.
            ModelReplaced: by one with which it cannot go on.
        """
        frames = unpack_frames(push)
        place = self._place = self._sessions.with_newest_model(self._place)
        applied, after = await place.live.push(
            place.session,
            frames,
            options=self.options,
            born_seconds=born_seconds,
            notices=notices,
            owner=place.owner or self._stranger,
        )
        return (await self._commit((applied,), after, [digest(push)], num_decoded=len(applied.labels)))[0]

    async def push_clip(self, clip: Clip, *, video: VideoReport, notices: Sequence[Notice] = ()) -> Applied:
        """The same for frames of a video that have been decoded and sampled here."""
        place = self._place = self._sessions.with_newest_model(self._place)
        applied, after = await place.live.push_clip(
            place.session, clip, video=video, options=self.options, notices=notices
        )
        before, self._num_decoded = self._num_decoded, video.frames_decoded
        digests = [digest(clip.seconds_T.tobytes())]
        return (await self._commit((applied,), after, digests, num_decoded=video.frames_decoded - before))[0]

    async def skip(self, dropped: Sequence[tuple[bytes, Notice]]) -> tuple[Applied, ...]:
        """Pushes that nobody looked at: the digest of each and what is told of it. They are answered in their turn."""
        session = self._place.session
        answers = tuple(
            Applied(sequence=session.sequence + index, notices=(notice,)) for index, (_, notice) in enumerate(dropped)
        )
        after = replace(session, sequence=session.sequence + len(answers))
        return await self._commit(answers, after, [push_digest for push_digest, _ in dropped], num_decoded=0)

    async def end(self, *, video: VideoReport | None, seen_until: float | None) -> Final:
        """The last answer; asked again, the same. Raises NothingSampled."""
        place, sessions = self._place, self._sessions
        session, record = place.session, place.record
        if record is not None and record.ended:
            return await self._last_answer(record)
        final = place.live.end(session, options=self.options, video=video, seen_until=seen_until)
        if record is not None:
            ended = self._next_record(record, replace(session, sequence=session.sequence + 1), ended=True)
            kept = {record.sequence: Kept(b"", final.model_dump_json().encode())}
            try:
                await asyncio.to_thread(sessions.store.replace, ended, expected=record.sequence, kept=kept)
            except SequenceConflict:
                there = await asyncio.to_thread(sessions.store.read, record.session_id)
                if not there.ended or there.sequence != ended.sequence:
                    raise
                return await self._last_answer(there)  # another connection was first
            self._place = replace(place, record=ended)
        sessions.charge(place.owner, Used(frames_labelled=len(final.labels)))
        return final

    async def _last_answer(self, record: Record) -> Final:
        kept = await asyncio.to_thread(self._sessions.store.answer, record.session_id, record.sequence - 1)
        assert kept is not None, "the last answer is kept as long as the session"
        return Final.model_validate_json(kept.answer)

    async def _commit(
        self, answers: tuple[Applied, ...], after: Session, digests: Sequence[bytes], *, num_decoded: int
    ) -> tuple[Applied, ...]:
        """The pushes count from here on, if nobody else was first."""
        place, sessions = self._place, self._sessions
        used = Used(
            frames_decoded=num_decoded,
            frames_labelled=sum(len(applied.labels) for applied in answers),
            compute_seconds=after.spent.compute_seconds - place.session.spent.compute_seconds,
        )
        if place.record is None:
            self._place = replace(place, session=after)
            sessions.charge(place.owner, used)
            return tuple([await asyncio.to_thread(self._with_token, applied) for applied in answers])
        record = self._next_record(place.record, after, ended=False)
        kept = {
            applied.sequence: Kept(push_digest, applied.model_dump_json().encode())
            for applied, push_digest in zip(answers, digests, strict=True)
        }
        try:
            await asyncio.to_thread(sessions.store.replace, record, expected=place.record.sequence, kept=kept)
        except SequenceConflict:
            return await self._adopt(answers, digests)
        self._place = replace(place, session=after, record=record)
        sessions.charge(place.owner, used)
        return answers

    async def _adopt(self, answers: tuple[Applied, ...], digests: Sequence[bytes]) -> tuple[Applied, ...]:
        """Another replica, on a connection that was cut, has applied these very pushes: take up what it has written."""
        assert self._place.record is not None
        session_id, owner = self._place.record.session_id, self._place.owner
        place = await self._sessions.read(session_id, owner=owner, may_have_ended=True)
        adopted = [
            await self._sessions.repeated(place, applied.sequence, push_digest)
            for applied, push_digest in zip(answers, digests, strict=True)
        ]
        if place.session.sequence != answers[-1].sequence + 1:
            raise SequenceConflict(place.session.sequence)
        self._place = place
        return tuple(adopted)

    def _with_token(self, applied: Applied) -> Applied:
        """With the stream as it stands after this very answer: those that follow may not be heard any more."""
        session = replace(self._place.session, sequence=applied.sequence + 1)
        token = self._sessions.token(replace(self._place, session=session))
        return applied.model_copy(update={"resume_token": token})

    def _next_record(self, record: Record, session: Session, *, ended: bool) -> Record:
        return replace(
            record,
            sequence=session.sequence,
            state=self._place.live.to_bytes(session),
            ended=ended,
            touched_seconds=time.time(),
        )


def _meta(place: _Place) -> str:
    model = place.live.info.model_copy(update={"action_labels": (), "frame_labels": ()})
    return _Meta(model=model, continuity=place.live.continuity, options=place.options).model_dump_json()


def _checked(text: str | bytes, live: Live) -> _Meta:
    try:
        meta = _Meta.model_validate_json(text)
    except ValidationError:
        raise StateError("the stream began with a version of vidseq that this one does not understand") from None
    _refuse_other(live, began=meta.model, continuity=meta.continuity)
    return meta


def _refuse_other(live: Live, *, began: ModelInfo, continuity: str) -> None:
    here = live.info
    if began.sha256 != here.sha256 and continuity != live.continuity:
        raise ModelReplaced(
            f"the stream began with model {began.name} {began.version} ({began.sha256[:12]}), "
            f"and this is {here.name} {here.version} ({here.sha256[:12]}): begin a new one"
        )


def digest(push: bytes) -> bytes:
    return hashlib.sha256(push).digest()


def _ended(record: Record) -> SessionEnded:
    return SessionEnded(f"session {record.session_id} has ended; the number of its last push was {record.sequence - 2}")


def _refuse_foreign(record: Record, owner: str) -> None:
    if not secrets.compare_digest(record.owner, owner):
        raise absent(expired=False)  # in the same words: not even that somebody else has it is told
