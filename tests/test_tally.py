"""How much of a video was seen, and from which share of its declared time on it may be labelled: files that are cut."""

import contextlib
import pickle
import struct
from pathlib import Path

import pytest

from tests.toy_videos import overwrite, write_clip
from vidseq import schemas
from vidseq.config import Limits, Picture
from vidseq.container import Source
from vidseq.errors import NoVideoStream, TruncatedVideo, UndecodableVideo
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader, Verdict

NUM_FRAMES = 60  # six seconds
CUTS = 20
DECLARING = {  # containers that say at their start how long they are
    "faststart.mp4": ("libx264", {"movflags": "faststart"}),
    "fragmented.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "clip.mkv": ("libx264", {}),
    "clip.webm": ("libvpx", {}),
    "clip.avi": ("mpeg4", {}),
}


def clip_of(folder: Path, name: str, codec: str = "libx264", muxing: dict[str, str] | None = None) -> bytes:
    path = write_clip(folder / name, num_frames=NUM_FRAMES, height=128, width=128, codec=codec, muxing=muxing)
    return path.read_bytes()


def looked_at(
    clip: Source,
    *,
    min_share: float = Limits().min_share_seen,
    start: float = 0.0,
    end: float | None = None,
    sandbox: Sandbox | None = None,
) -> schemas.VideoReport:
    """The report of a pass over [start, end), if the video may be labelled."""
    limits = Limits(min_share_seen=min_share)
    with Reader(clip, picture=Picture(size=32), limits=limits, sandbox=sandbox) as reader:
        stop = end if end is not None else 1e9
        for _ in reader.frames(lambda seconds: Verdict.STOP if seconds >= stop else Verdict.SKIP):
            pass
        reader.refuse_truncated(start_seconds=start, end_seconds=end)
        return reader.report()


def cuts(clip: bytes) -> dict[int, bytes]:
    """Of twenty cuts those that can be decoded at all, by the number of frames."""
    found = {}
    for number in range(1, CUTS + 1):
        cut = clip[: len(clip) * number // CUTS]
        with contextlib.suppress(NoVideoStream, UndecodableVideo):
            found[looked_at(cut, min_share=0).frames_decoded] = cut
    return found


def refusals(clips: dict[int, bytes], **options: float | None) -> dict[int, TruncatedVideo]:
    """Those that may not be labelled, by the number of frames, and why."""
    refused = {}
    for num_frames, clip in clips.items():
        try:
            looked_at(clip, **options)
        except TruncatedVideo as error:
            refused[num_frames] = error
    return refused


@pytest.mark.parametrize("name", DECLARING)
def test_a_video_may_be_labelled_from_half_of_its_declared_time_on(name: str, tmp_path: Path) -> None:
    clips = cuts(clip_of(tmp_path, name, *DECLARING[name]))
    refused = refusals(clips)
    assert len(refused) >= 4 and len(clips) - len(refused) >= 4
    assert max(refused) < NUM_FRAMES // 2 <= min(clips.keys() - refused.keys())
    for num_frames, error in refused.items():
        assert error.seen_seconds == pytest.approx(num_frames / 10, abs=0.25)  # B-frames at a cut lack a neighbour
        assert error.declared_seconds == pytest.approx(NUM_FRAMES / 10, abs=0.25)


@pytest.mark.parametrize("name", DECLARING)
def test_a_floor_of_0_answers_whatever_was_seen_and_1_what_is_complete(name: str, tmp_path: Path) -> None:
    clips = cuts(clip_of(tmp_path, name, *DECLARING[name]))
    assert refusals(clips, min_share=0.0) == {}
    complete = {num_frames for num_frames, clip in clips.items() if looked_at(clip, min_share=0).complete}
    assert clips.keys() - refusals(clips, min_share=1.0).keys() == complete and NUM_FRAMES in complete


def test_a_stream_of_packets_declares_nothing_and_is_not_refused(tmp_path: Path) -> None:
    clips = cuts(clip_of(tmp_path, "clip.ts"))
    assert len(clips) >= 15 and refusals(clips) == {}


def test_the_sentence_says_what_was_seen_what_is_declared_and_the_floor(tmp_path: Path) -> None:
    clip = clip_of(tmp_path, "clip.avi", "mpeg4")
    with pytest.raises(TruncatedVideo) as caught:
        looked_at(clip[: len(clip) * 13 // CUTS], min_share=0.75)
    for figure in ("2.00 s", "6.00 s", "33.3%", "75.0% (min_share_seen)"):
        assert figure in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.min_share, again.code) == (str(caught.value), 0.75, "video/truncated")


def test_a_duration_of_hours_that_lies_is_answered_in_words_and_one_of_nonsense_is_not_believed(tmp_path: Path) -> None:
    mkv = clip_of(tmp_path, "clip.mkv")
    duration = mkv.index(b"\x44\x89\x88") + 3
    with pytest.raises(TruncatedVideo, match=r"^6\.00 s could be decoded where the video declares 36,000\.00 s"):
        looked_at(overwrite(mkv, duration, struct.pack(">d", 36_000_000.0)))
    assert looked_at(overwrite(mkv, duration, struct.pack(">d", 1e14))).complete


@pytest.mark.parametrize("name", ["late.mkv", "late.webm", "late.mp4"])
def test_a_part_of_a_recording_that_kept_its_times_is_measured_from_its_first_frame(
    name: str, tmp_path: Path, sandbox: Sandbox
) -> None:
    codec = "libvpx" if name.endswith("webm") else "libx264"
    muxing = {"movflags": "faststart"} if name.endswith("mp4") else {}
    seconds = [100 + number / 10 for number in range(NUM_FRAMES)]
    late = write_clip(tmp_path / name, seconds=seconds, height=128, width=128, codec=codec, muxing=muxing).read_bytes()
    assert looked_at(late).complete
    assert looked_at(late, sandbox=sandbox).complete
    refused = refusals(cuts(late))
    assert len(refused) >= 4 and max(refused) < NUM_FRAMES // 2
    assert all(error.declared_seconds == pytest.approx(6, abs=0.3) for error in refused.values())


@pytest.mark.parametrize(("milliseconds", "complete"), [(6200.0, True), (9000.0, False)])
def test_sound_that_goes_on_after_the_picture_is_forgiven(milliseconds: float, complete: bool, tmp_path: Path) -> None:
    mkv = clip_of(tmp_path, "clip.mkv")
    longer = overwrite(mkv, mkv.index(b"\x44\x89\x88") + 3, struct.pack(">d", milliseconds))
    assert looked_at(longer).complete is complete


@pytest.mark.parametrize(
    ("start", "end", "refused"),
    [
        (0.0, 1.5, False),  # all that was asked for lies before the cut at 2 s
        (0.0, 3.0, False),  # two of three seconds
        (0.0, 5.0, True),  # two of five
        (0.0, 100.0, True),  # two of the six that there were to be
        (1.0, 2.5, False),
        (1.5, None, True),
    ],
)
def test_of_a_window_as_much_must_be_seen_as_of_a_whole_video(
    start: float, end: float | None, refused: bool, tmp_path: Path
) -> None:
    clip = clip_of(tmp_path, "clip.avi", "mpeg4")
    cut = {20: clip[: len(clip) * 13 // CUTS]}
    assert bool(refusals(cut, start=start, end=end)) is refused
