"""Streams for tests: pictures with times, and a real toy model that labels them with nothing around it."""

import asyncio
import io
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from tests.toy_models import toy_checkpoint
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.decoder import Pixels
from vidseq.engine import Engine
from vidseq.live import Live
from vidseq.messages import Applied, Encoded, FrameHeader, StreamOptions
from vidseq.schemas import Moment
from vidseq.session import Session

T = TypeVar("T")


def picture(number: int, *, height: int = 32, width: int = 48) -> Pixels:
    """A picture [H, W, 3] RGB that differs from number to number in every pixel."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def raw(pixels_HWC: Pixels, seconds: float) -> Encoded:
    height, width, _ = pixels_HWC.shape
    data = pixels_HWC.tobytes()
    return Encoded(FrameHeader(seconds=seconds, format="rgb", bytes=len(data), width=width, height=height), data)


def encoded(pixels_HWC: Pixels, seconds: float, *, format: str = "png") -> Encoded:
    """The same as a PNG, or a lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(
        buffer, format=format, **({"lossless": True, "method": 0, "quality": 0} if format == "webp" else {})
    )
    data = buffer.getvalue()
    return Encoded(FrameHeader.model_validate({"seconds": seconds, "format": format, "bytes": len(data)}), data)


def toy_frames(num_frames: int, *, frames_per_second: float = 10.0, first: int = 0) -> list[Encoded]:
    return [raw(picture(number), number / frames_per_second) for number in range(first, first + num_frames)]


@contextmanager
def toy_live(folder: Path, **options: Any) -> Iterator[Live]:
    """`options` are those of toy_config."""
    checkpoint = load_checkpoint(toy_checkpoint(folder / "toy", **options))
    with Engine(checkpoint.model) as engine, ThreadPoolExecutor(2) as decoders:
        yield Live(checkpoint, advance=engine.advance, decoders=decoders, limits=Limits())


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def pushed(
    live: Live,
    pushes: Sequence[Sequence[Encoded]],
    *,
    options: StreamOptions = StreamOptions(),
    between: Callable[[Session], Session] = lambda session: session,
) -> tuple[list[Applied], Session]:
    """All answers, and the session after them; `between` is done to it after each push."""
    session, answers = live.start(), []
    for frames in pushes:
        applied, session = await live.push(session, frames, options=options, born_seconds=0.0)
        answers.append(applied)
        session = between(session)
    return answers, session


def chunked(frames: Sequence[Encoded], sizes: Sequence[int]) -> list[Sequence[Encoded]]:
    """The frames in pushes of these sizes, over and over."""
    pushes, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= len(frames):
            return pushes
        pushes.append(frames[start : start + size])
        start += size
    raise AssertionError("sizes are empty")


def labels(answers: Sequence[Applied]) -> list[Moment]:
    return [moment for applied in answers for moment in applied.labels]


def assert_same(found: Sequence[Moment], expected: Sequence[Moment], *, tolerance: float = 1e-5) -> None:
    """The same labels at the same times, in order, with scores that differ by rounding alone."""
    assert [moment.seconds for moment in found] == [moment.seconds for moment in expected]
    for one, other in zip(found, expected, strict=True):
        pairs = ((one.frame, other.frame), (one.action, other.action), *zip(one.actions, other.actions, strict=True))
        for left, right in pairs:
            assert (left is None) == (right is None)
            if left is not None and right is not None:
                assert left.label == right.label
                assert abs(left.score - right.score) <= tolerance
