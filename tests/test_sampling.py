"""vidseq.sampling: by time, the same whatever the chunks, and it says what it did."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from toy_videos import read, write_clip

from vidseq.config import Picture, Sampling
from vidseq.errors import NothingSampled
from vidseq.sampling import EARLY_SECONDS, Clip, Clock, advance, sample, summarize
from vidseq.schemas import Sampled
from vidseq.video import Frame, Reader, Verdict

PICTURE = Picture(size=64)


def summary_of(seconds_T: Sequence[float], sampling: Sampling, *, stride: int = 1) -> Sampled:
    return summarize(
        num_frames=len(seconds_T),
        start_seconds=float(seconds_T[0]),
        end_seconds=float(seconds_T[-1]),
        sampling=sampling,
        stride=stride,
    )


class ToyReader:
    """Frames at the given times, without a video: pixels hold the frame's number."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.seconds = seconds
        self.num_asked = 0

    def frames(self, want: Callable[[float], Verdict]) -> Iterator[Frame]:
        for number, seconds in enumerate(self.seconds):
            self.num_asked += 1
            verdict = want(seconds)
            if verdict is Verdict.STOP:
                return
            if verdict is Verdict.TAKE:
                yield Frame(np.full((1, 1, 3), number, dtype=np.uint8), seconds)


def picks(seconds: Sequence[float], sampling: Sampling) -> list[float]:
    """The sampled ones of the times of all frames."""
    clock, sampled = None, []
    for at_seconds in seconds:
        taken, clock = advance(clock, at_seconds, sampling)
        sampled += [at_seconds] * taken
    return sampled


def sampled_seconds(seconds: Sequence[float], sampling: Sampling, *, chunk_frames: int = 16) -> list[float]:
    clips = sample(ToyReader(seconds), sampling, chunk_frames=chunk_frames)  # type: ignore[arg-type]
    return [float(at_seconds) for clip in clips for at_seconds in clip.seconds_T]


rates = st.one_of(st.just("native"), st.sampled_from([0.5, 1.0, 7.5, 8.0, 12.5, 24.0, 30.0]), st.floats(0.1, 200.0))
steps = st.lists(st.sampled_from([0.0, -0.04, 0.001, 1 / 60, 1 / 30, 0.04, 0.1, 1.0]), min_size=1, max_size=60)
times = st.builds(lambda first, steps: np.cumsum([first, *steps]).tolist(), st.floats(0.0, 5.0), steps)
starts = st.sampled_from([0.0, 0.3, 1.0, 2.5])


# One frame after the other


@given(times, rates, starts)
def test_sample_times_rise(seconds: list[float], rate: float, start: float) -> None:
    sampled = picks(seconds, Sampling(frames_per_second=rate, start_seconds=start))
    assert all(earlier < later for earlier, later in pairwise(sampled))


@given(times, st.sampled_from([0.5, 7.5, 8.0, 30.0]), starts)
def test_each_tick_gets_the_first_frame_at_or_after_it(seconds: list[float], rate: float, start: float) -> None:
    rising = [now for index, now in enumerate(seconds) if all(now > before for before in seconds[:index])]
    origin = start if start > 0 else seconds[0]
    ticks = [origin + number / rate for number in range(math.ceil((max(seconds) - origin) * rate) + 2)]
    on_time = [[now for now in rising if now >= tick - EARLY_SECONDS][:1] for tick in ticks]
    assume(all(abs(now - tick + EARLY_SECONDS) > 1e-9 for now in rising for tick in ticks))
    expected = sorted({now for found in on_time for now in found})
    assert picks(seconds, Sampling(frames_per_second=rate, start_seconds=start)) == expected


@given(times, rates, starts, st.data())
def test_a_clock_that_was_stored_between_two_chunks_goes_on_as_if_nothing_had_happened(
    seconds: list[float], rate: float, start: float, data: st.DataObject
) -> None:
    sampling = Sampling(frames_per_second=rate, start_seconds=start)
    cut = data.draw(st.integers(1, len(seconds)))
    clock: Clock | None = None
    sampled = []
    for index, now in enumerate(seconds):
        if index == cut:
            assert clock is not None
            clock = Clock(**json.loads(json.dumps(dataclasses.asdict(clock))))
        taken, clock = advance(clock, now, sampling)
        sampled += [now] * taken
    assert sampled == picks(seconds, sampling)


@given(times, rates, st.integers(1, 7))
def test_the_size_of_the_clips_changes_nothing(seconds: list[float], rate: float, chunk_frames: int) -> None:
    sampling = Sampling(frames_per_second=rate)
    assert sampled_seconds(seconds, sampling, chunk_frames=chunk_frames) == picks(seconds, sampling)


@given(times)
def test_native_takes_every_frame_whose_time_rises(seconds: list[float]) -> None:
    rising = [now for index, now in enumerate(seconds) if all(now > before for before in seconds[:index])]
    assert picks(seconds, Sampling(frames_per_second="native")) == rising


@given(times, st.floats(0.1, 3.0), st.floats(0.1, 3.0), st.floats(0.1, 3.0))
def test_adjacent_intervals_share_no_frame_and_lose_none(
    seconds: list[float], start: float, first: float, second: float
) -> None:
    def between(start_seconds: float, end_seconds: float) -> list[float]:
        interval = Sampling(frames_per_second="native", start_seconds=start_seconds, end_seconds=end_seconds)
        return picks(seconds, interval)

    middle, end = start + first, start + first + second
    assert between(start, middle) + between(middle, end) == between(start, end)


def test_a_frame_that_is_late_for_many_ticks_is_taken_once() -> None:
    assert picks([0.0, 5.0, 5.01, 5.2], Sampling(frames_per_second=8)) == [0.0, 5.0, 5.2]


def test_ticks_start_at_the_first_frame_or_at_start_seconds() -> None:
    seconds = [0.07 + index / 50 for index in range(100)]
    assert picks(seconds, Sampling(frames_per_second=1)) == pytest.approx([0.07, 1.07])
    assert picks(seconds, Sampling(frames_per_second=1, start_seconds=0.5)) == pytest.approx([0.51, 1.51])


@pytest.mark.parametrize(("early_seconds", "sampled"), [(0.0019, True), (0.0021, False)])
def test_a_frame_is_on_time_up_to_two_milliseconds_early(early_seconds: float, sampled: bool) -> None:
    assert (1.0 - early_seconds in picks([0.0, 1.0 - early_seconds, 1.4], Sampling(frames_per_second=1))) is sampled


def test_a_timestamp_that_falls_back_is_never_sampled() -> None:
    assert picks([0.0, 1.0, 0.5, 1.0, 2.0], Sampling(frames_per_second="native")) == [0.0, 1.0, 2.0]


# The whole video


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.ts"])
def test_containers_that_round_times_differently_give_the_same_frames(name: str, tmp_path: Path) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write_clip(tmp_path / name, num_frames=60, frames_per_second=30, codec=codec)
    with Reader(path, picture=PICTURE) as reader:
        numbers = [read(pixels_HWC) for clip in sample(reader, Sampling()) for pixels_HWC in clip.pixels_THWC]
    assert numbers == [0, 4, 8, 12, 15, 19, 23, 27, 30, 34, 38, 42, 45, 49, 53, 57]


def test_clips_are_full_but_for_the_last(tmp_path: Path) -> None:
    with Reader(write_clip(tmp_path / "clip.mp4", num_frames=20), picture=PICTURE) as reader:
        clips = list(sample(reader, Sampling(frames_per_second="native"), chunk_frames=8))
    assert [clip.pixels_THWC.shape for clip in clips] == [(8, 64, 64, 3), (8, 64, 64, 3), (4, 64, 64, 3)]


def test_an_interval_is_half_open_and_nothing_after_it_is_decoded(tmp_path: Path) -> None:
    sampling = Sampling(frames_per_second="native", start_seconds=0.5, end_seconds=1.0)
    with Reader(write_clip(tmp_path / "clip.mp4", num_frames=60), picture=PICTURE) as reader:
        numbers = [read(pixels_HWC) for clip in sample(reader, sampling) for pixels_HWC in clip.pixels_THWC]
        report = reader.report()
    assert numbers == [5, 6, 7, 8, 9]
    assert (report.frames_decoded, report.complete) == (11, True)


def test_clips_come_while_the_video_is_still_being_decoded() -> None:
    reader = ToyReader([index / 8 for index in range(100)])
    first = next(sample(reader, Sampling(), chunk_frames=4))  # type: ignore[arg-type]
    assert (len(first), reader.num_asked) == (4, 4)


def test_an_interval_without_a_frame_is_an_error_that_says_where_the_video_ends(tmp_path: Path) -> None:
    with (
        Reader(write_clip(tmp_path / "clip.mp4", num_frames=20), picture=PICTURE) as reader,
        pytest.raises(NothingSampled, match=r"from 5 s to 6 s: the last frame looked at is at 1\.900 s"),
    ):
        list(sample(reader, Sampling(start_seconds=5.0, end_seconds=6.0)))


# At most so many


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 7))
def test_max_frames_keeps_every_second_fourth_eighth_frame(num_frames: int, max_frames: int, chunk: int) -> None:
    seconds = [index / 8 for index in range(num_frames)]
    stride = next(2**power for power in range(10) if len(seconds[:: 2**power]) <= max_frames)
    sampling = Sampling(frames_per_second=8, max_frames=max_frames)
    assert sampled_seconds(seconds, sampling, chunk_frames=chunk) == seconds[::stride]


def test_max_frames_covers_the_whole_video_and_states_the_rate_it_came_to(tmp_path: Path) -> None:
    sampling = Sampling(frames_per_second=10, max_frames=8)
    with Reader(write_clip(tmp_path / "clip.mp4", num_frames=60), picture=PICTURE) as reader:
        (clip,) = sample(reader, sampling)
    assert [read(pixels_HWC) for pixels_HWC in clip.pixels_THWC] == [0, 8, 16, 24, 32, 40, 48, 56]
    summary = summary_of(clip.seconds_T, sampling, stride=clip.stride)
    assert (summary.num_frames, summary.frames_per_second) == (8, 1.25)
    assert (summary.start_seconds, summary.end_seconds) == pytest.approx((0.0, 5.6))


# What is said


def test_a_summary_states_number_rate_and_interval() -> None:
    summary = summary_of([0.5, 0.625, 0.75], Sampling(frames_per_second=8))
    assert summary.model_dump() == {
        "num_frames": 3,
        "frames_per_second": 8.0,
        "start_seconds": 0.5,
        "end_seconds": 0.75,
    }


def test_the_rate_of_native_is_none_until_it_is_thinned() -> None:
    native = Sampling(frames_per_second="native")
    assert summary_of([0.0, 0.04], native).frames_per_second is None
    assert summary_of([0.0, 0.5, 1.0], native, stride=4).frames_per_second == 2.0
    assert summary_of([0.0], native, stride=4).frames_per_second == 0.0


def test_a_clip_prints_its_shape_and_span() -> None:
    clip = Clip(np.zeros((2, 4, 4, 3), dtype=np.uint8), np.array([0.5, 0.75]))
    assert (repr(clip), len(clip)) == ("Clip(2x4x4x3, 0.500 to 0.750 s)", 2)


@pytest.mark.parametrize(
    ("shape", "seconds"), [((2, 4, 4, 1), [0, 1]), ((4, 4, 3), [0, 1]), ((2, 4, 4, 3), [0]), ((2, 4, 4, 3), [1, 1])]
)
def test_a_clip_refuses_what_is_not_one(shape: tuple[int, ...], seconds: list[float]) -> None:
    with pytest.raises(AssertionError):
        Clip(np.zeros(shape, dtype=np.uint8), np.array(seconds, dtype=np.float64))
