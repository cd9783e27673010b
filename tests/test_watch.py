"""`vidseq watch`: what a person sees of a source as it plays is what classify says of the file."""

import io
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from tests.running import VIDSEQ
from tests.test_camera import rtsp_camera
from tests.toy_models import toy_checkpoint
from tests.toy_streams import picture
from tests.toy_videos import write_clip
from vidseq.camera import CameraFrame
from vidseq.classifier import Classifier
from vidseq.config import Picture
from vidseq.errors import OptionError, SourceLost, SourceNotFound
from vidseq.labelling import closed
from vidseq.messages import Final, read_service_message
from vidseq.watch import _Newest, watch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("watch") / "toy")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_clip(path, num_frames=40, frames_per_second=20)
    return path


def watched(model: Path, source: Path | str, *, json: bool = True, annotate: Path | None = None) -> str:
    told = io.StringIO()
    watch_into(told, model, source, json=json, annotate=annotate)
    return told.getvalue()


def watch_into(
    told: io.StringIO, model: Path, source: Path | str, *, json: bool = True, annotate: Path | None = None
) -> None:
    console = Console(file=told, width=100)
    watch(model, str(source), device="cpu", json=json, annotate=annotate, window=False, console=console)


def test_a_file_is_labelled_as_classify_labels_it(model: Path, clip: Path) -> None:
    *answers, final = map(read_service_message, watched(model, clip).splitlines())
    expected = Classifier.load(model).classify(clip)
    told = [(label.seconds, label.frame.label) for applied in answers for label in applied.labels]
    assert told == [(frame.seconds, frame.label) for frame in expected.frames]
    assert isinstance(final, Final) and final.prediction.action.label == expected.action.label
    assert final.prediction.video == expected.video
    assert [segment for message in (*answers, final) for segment in closed(message.segments)] == [
        segment.model_copy(update={"score": pytest.approx(segment.score, abs=1e-5)}) for segment in expected.segments
    ]


def test_a_person_is_told_segments_and_the_action(model: Path, clip: Path) -> None:
    text = watched(model, clip, json=False)
    expected = Classifier.load(model).classify(clip)
    assert expected.segments, "the toy model has some"
    for segment in expected.segments:
        assert f"{segment.start_seconds:8.2f} to " in text and segment.label in text
    assert f"action  {expected.action.label} {expected.action.score:.2f}" in text


@pytest.mark.parametrize(
    ("heads", "line"),
    [
        ({"unknown_below": 1.0}, "action  unknown"),
        ({"several": True, "thresholds": (1.0, 1.0, 1.0)}, "actions  none"),
        ({"several": True, "thresholds": (0.0, 1.0, 0.0)}, r"actions  (grow|turn) 0\.\d\d, (grow|turn) 0\.\d\d"),
    ],
)
def test_a_person_is_told_what_is_unknown_and_what_is_said_of_several(
    clip: Path, tmp_path: Path, heads: dict[str, object], line: str
) -> None:
    *_, last = watched(toy_checkpoint(tmp_path / "toy", **heads), clip, json=False).splitlines()
    assert re.fullmatch(line, last.strip())


def test_the_annotated_file_has_every_picture(model: Path, clip: Path, tmp_path: Path) -> None:
    watched(model, clip, annotate=tmp_path / "seen.mp4")
    capture = cv2.VideoCapture(str(tmp_path / "seen.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 40
    capture.release()


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [("http://127.0.0.1/x", OptionError, "only rtsp://"), ("no/such/file.mp4", SourceNotFound, "cannot be opened")],
)
def test_a_source_that_cannot_be_opened_is_said_in_a_sentence(
    model: Path, source: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        watched(model, source)


def test_what_was_seen_of_a_camera_that_is_lost_has_an_end_and_all_that_was_left_out_is_told(
    model: Path, tmp_path: Path
) -> None:
    told, clip = io.StringIO(), write_clip(tmp_path / "clip.ts", num_frames=100, frames_per_second=20)
    with (
        rtsp_camera(clip.read_bytes()) as place,
        pytest.raises(SourceLost, match="no more pictures"),
    ):
        watch_into(told, model, f"rtsp://{place}/toy")
    *answers, final = map(read_service_message, told.getvalue().splitlines())
    assert isinstance(final, Final)
    num_dropped = sum(notice.num_frames for message in (*answers, final) for notice in message.notices)
    assert 90 <= num_dropped + final.prediction.video.frames_decoded <= 100  # the last are lost with the connection


def test_of_a_camera_that_does_not_wait_the_newest_picture_is_taken_and_the_others_counted() -> None:
    def camera() -> Iterator[CameraFrame]:
        for number in range(50):
            yield CameraFrame(picture(number), number / 50, Picture(size=32))

    with _Newest(camera(), waits=False) as newest:
        taken, deadline = [], time.monotonic() + 10
        while (one := newest.take()) is not None and time.monotonic() < deadline:
            taken.append(one)
            time.sleep(0.01)
    missed = sum(num_missed for _, num_missed in taken)
    assert len(taken) + missed == 50
    assert missed > 0 and taken[-1][0].seconds == 49 / 50


def test_what_the_camera_raises_is_raised_where_it_is_waited_for() -> None:
    def camera() -> Iterator[CameraFrame]:
        yield CameraFrame(picture(0), 0.0, Picture(size=32))
        raise SourceNotFound("unplugged")

    with _Newest(camera(), waits=True) as newest:
        assert newest.take() is not None
        with pytest.raises(SourceNotFound, match="unplugged"):
            newest.take()


@pytest.mark.slow
def test_ctrl_c_ends_it_with_what_was_seen(model: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "long.mp4", num_frames=4000, frames_per_second=10)
    command = [VIDSEQ, "watch", model, tmp_path / "long.mp4", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        *_, last = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert json.loads(first)["type"] == "applied" and json.loads(last)["type"] == "final"
