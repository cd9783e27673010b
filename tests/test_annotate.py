"""A copy of a clip with its labels burnt in: as long as the clip, with the colour of each segment where it lies."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.test_rows import PREDICTION
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip, write_frames
from vidseq.__main__ import main
from vidseq.annotate import annotate
from vidseq.drawing import COLOURS_BGR
from vidseq.errors import OptionError
from vidseq.schemas import Prediction, Segment

HEIGHT, WIDTH = 240, 320


def grey(number: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 60 + number, np.uint8)


def said(*segments: tuple[float, float, str], seconds: float, num_frames: int) -> Prediction:
    video = PREDICTION.video.model_copy(update={"duration_seconds": seconds, "frames_declared": num_frames})
    spans = tuple(Segment(start_seconds=s, end_seconds=e, label=label, score=0.9) for s, e, label in segments)
    return PREDICTION.model_copy(update={"segments": spans, "video": video})


def pictures(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        there, picture = capture.read()
        if not there:
            return found
        found.append(picture)


def is_like(picture: np.ndarray, at: float, colour: tuple[int, int, int]) -> bool:
    """Of the ribbon at this share of the width; MPEG-4 does not keep colours exactly."""
    seen = picture[-5:-1, round(at * WIDTH) - 3 : round(at * WIDTH) + 3].mean(axis=(0, 1))
    return bool(np.abs(seen - np.array(colour)).max() < 40)


def test_the_ribbon_shows_every_segment_all_the_time_and_the_mark_moves(tmp_path: Path) -> None:
    clip = write_frames(tmp_path / "clip.mp4", [grey(n) for n in range(40)], [n / 10 for n in range(40)])
    prediction = said((0.0, 2.0, "wait"), (3.0, 4.0, "go"), seconds=4.0, num_frames=40)
    annotate(clip, prediction, tmp_path / "seen.mp4")
    seen = pictures(tmp_path / "seen.mp4")
    assert len(seen) == 40 and seen[0].shape == (HEIGHT, WIDTH, 3)
    for picture in (seen[4], seen[36]):
        assert is_like(picture, 0.25, COLOURS_BGR[0]) and is_like(picture, 0.8, COLOURS_BGR[1])
        assert is_like(picture, 0.6, (17, 17, 17))
    marks = [int(picture[-6].mean(axis=1).argmax()) / WIDTH for picture in (seen[10], seen[30])]
    assert marks == pytest.approx([0.25, 0.75], abs=0.02)


def test_the_label_of_the_moment_is_written_while_it_lasts(tmp_path: Path) -> None:
    clip = write_frames(tmp_path / "clip.mp4", [grey(n) for n in range(40)], [n / 10 for n in range(40)])
    annotate(clip, said((1.0, 2.0, "push up"), seconds=4.0, num_frames=40), tmp_path / "seen.mp4")
    written = [picture[16:40, :200].std() > 20 for picture in pictures(tmp_path / "seen.mp4")]
    assert (written[5], written[15], written[25]) == (False, True, False)


def test_pictures_that_come_irregularly_are_shown_for_as_long_as_before(tmp_path: Path) -> None:
    """Half a second of black, three and a half of white: eight pictures, two a second on average."""
    black, white = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    times = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 3.5]
    clip = write_frames(tmp_path / "clip.mp4", [black] * 4 + [white] * 4, times)
    annotate(clip, said(seconds=4.0, num_frames=8), tmp_path / "seen.mp4")
    bright = [picture[100:120].mean() > 128 for picture in pictures(tmp_path / "seen.mp4")]
    assert len(bright) in (7, 8, 9) and sum(bright) == len(bright) - 1


def test_the_command_writes_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    model, out = toy_checkpoint(tmp_path / "toy"), tmp_path / "out"
    out.mkdir()
    clip = write_clip(tmp_path / "clip.mp4", num_frames=20)
    main_quietly("predict", model, clip, "--annotate", out / "seen.mkv")
    assert [path.name for path in out.iterdir()] == ["seen.mkv"] and len(pictures(out / "seen.mkv")) == 20


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("seen.avi", "does not end in one of"),
        ("missing/seen.mp4", "there is no folder"),
        ("clip.mp4", "is the clip itself"),
    ],
)
def test_a_place_where_no_video_can_be_is_refused_before_any_work(tmp_path: Path, name: str, sentence: str) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"whatever")
    with pytest.raises(OptionError, match=sentence):
        annotate(clip, PREDICTION, tmp_path / name)
    assert clip.read_bytes() == b"whatever"


def main_quietly(*arguments: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code in (0, None)
