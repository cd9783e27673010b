"""training.render: clips whose labels only the order of their frames can tell, and nothing else."""

import hashlib
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from training.data.clips import ClipFolder, LabelledClip, read_clips
from training.render import MOTIONS, STILL, render_clips
from vidseq.config import Picture
from vidseq.errors import OptionError
from vidseq.video import Reader, Verdict

NUM_CLIPS = 6  # the three shapes, forwards and backwards
FRAMES_PER_SECOND = 12
OPPOSITES = dict(MOTIONS.values()) | {falling: rising for rising, falling in MOTIONS.values()} | {STILL: STILL}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> ClipFolder:
    folder = tmp_path_factory.mktemp("rendered")
    render_clips(folder, num_clips=NUM_CLIPS, seed=0, picture_size=64)
    return read_clips(folder, group_by="scene")


def decode(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(pixels THWC, seconds T) of every frame."""
    with Reader(path, picture=Picture(size=64)) as reader:
        frames = list(reader.frames(lambda _: Verdict.TAKE))
    return np.stack([f.pixels_HWC for f in frames]).astype(float), np.array([f.seconds for f in frames])


def twins(folder: ClipFolder) -> list[tuple[LabelledClip, LabelledClip]]:
    """The two clips of each scene."""
    return list(zip(folder.clips[::2], folder.clips[1::2], strict=True))


def test_what_is_rendered_is_a_folder_of_clips_without_a_warning(rendered: ClipFolder) -> None:
    assert len(rendered.clips) == NUM_CLIPS
    assert rendered.action_labels == tuple(sorted(label for pair in MOTIONS.values() for label in pair))
    assert rendered.frame_labels == tuple(sorted([*rendered.action_labels, STILL]))
    assert rendered.warnings == ()


def test_the_two_clips_of_a_scene_are_of_one_group_and_have_opposite_labels(rendered: ClipFolder) -> None:
    for forwards, backwards in twins(rendered):
        assert forwards.group == backwards.group
        assert forwards.label is not None and backwards.label == OPPOSITES[forwards.label]
        labels = [segment.label for segment in forwards.segments]
        assert [segment.label for segment in backwards.segments] == [OPPOSITES[label] for label in labels[::-1]]


def test_the_two_clips_of_a_scene_hold_the_same_frames_in_opposite_orders(rendered: ClipFolder) -> None:
    for forwards, backwards in twins(rendered):
        one_THWC, other_THWC = decode(forwards.path)[0], decode(backwards.path)[0]
        assert np.abs(one_THWC - other_THWC[::-1]).mean() < 4  # levels of 255; the codec looks forwards only
        assert np.abs(one_THWC.mean(axis=0) - other_THWC.mean(axis=0)).mean() < 3


def test_the_action_is_the_longest_motion_and_not_the_only_one(rendered: ClipFolder) -> None:
    for clip in rendered.clips:
        motions = {s.label: s.end_seconds - s.start_seconds for s in clip.segments if s.label != STILL}
        assert max(motions, key=lambda label: motions[label]) == clip.label
        assert len(motions) == 2


def test_the_segments_cover_every_frame(rendered: ClipFolder) -> None:
    for clip in rendered.clips:
        _, seconds_T = decode(clip.path)
        assert clip.segments[0].start_seconds == 0
        assert clip.segments[-1].end_seconds == pytest.approx(len(seconds_T) / FRAMES_PER_SECOND, abs=1e-3)
        assert all(left.end_seconds == right.start_seconds for left, right in pairwise(clip.segments))


def test_pixels_change_where_the_labels_say_so(rendered: ClipFolder) -> None:
    for clip in rendered.clips:
        pixels_THWC, seconds_T = decode(clip.path)
        changes = np.abs(np.diff(pixels_THWC, axis=0)).mean(axis=(1, 2, 3))
        moving = np.zeros(len(changes), dtype=bool)
        for segment in clip.segments:
            inside = (seconds_T[:-1] >= segment.start_seconds) & (seconds_T[1:] < segment.end_seconds)
            moving |= inside & (segment.label != STILL)
        assert np.median(changes[moving]) > 2 * np.median(changes[~moving])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        render_clips(tmp_path / name, num_clips=2, seed=seed, picture_size=32)

    def digest(name: str) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / name).rglob("*.mp4"))]

    assert len(set(digest("one"))) == 2
    assert digest("one") == digest("again")
    assert not set(digest("one")) & set(digest("other"))


def test_more_clips_do_not_change_the_first_ones(tmp_path: Path, rendered: ClipFolder) -> None:
    render_clips(tmp_path, num_clips=1, seed=0, picture_size=64)
    (clip,) = read_clips(tmp_path).clips
    assert clip.path.read_bytes() == rendered.clips[0].path.read_bytes()


@pytest.mark.parametrize("wrong", [{"num_clips": 0}, {"seed": -1}, {"picture_size": 8}, {"frames_per_second": 1}])
def test_a_number_out_of_range_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(OptionError, match=f"{name} is {value}; at least"):
        render_clips(tmp_path, **({"num_clips": 2, "seed": 0} | wrong))
    assert list(tmp_path.iterdir()) == []


def test_the_command_renders_and_says_what_is_wrong_in_a_sentence(tmp_path: Path) -> None:
    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "training.render", str(tmp_path), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    wrong = command("--num-clips", "0")
    assert wrong.returncode == 2 and "num_clips is 0" in wrong.stderr and "Traceback" not in wrong.stderr
    right = command("--num-clips", "1")
    assert right.returncode == 0 and "--group-by scene" in right.stdout
    assert len(read_clips(tmp_path).clips) == 1
