"""A video of which too little is there gets no label at any door, but the reason; one that has gaps says so at all."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving.batch.rows import failed
from serving.labeller import Labeller
from tests.stream_server import said, stream_app, talking
from tests.test_cli import in_process, refused
from tests.test_web import problem_of
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from tests.web_server import running
from vidseq.checkpoint import load_checkpoint
from vidseq.classifier import Classifier
from vidseq.client import Client
from vidseq.config import Calibration, Limits
from vidseq.early import EarlyExit
from vidseq.engine import Engine
from vidseq.errors import TruncatedVideo, VideoRejected
from vidseq.messages import Applied, Failed, Final, read_service_message
from vidseq.schemas import Prediction

RAW = {"Content-Type": "application/octet-stream"}
CODE = "video/truncated"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It is sure of its action at once."""
    calibration = Calibration(elapsed_seconds=(0.0,), temperatures=(1e-4,))
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy", calibration=calibration)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Ten seconds of Matroska, its frames evenly over the file."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mkv", num_frames=100).read_bytes()


@pytest.fixture(scope="module")
def damaged(whole: bytes) -> bytes:
    """Most of it: enough for a label."""
    return whole[: len(whole) * 4 // 5]


@pytest.fixture(scope="module")
def stump(whole: bytes) -> bytes:
    """Two seconds or three of the ten."""
    return whole[: len(whole) * 2 // 5]


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    labeller = Labeller(model, name=None, device="cpu", limits=Limits())
    assert labeller.live is not None
    with running(stream_app(labeller.live, tmp_path_factory.mktemp("store"), classify=labeller.classify)) as url:
        yield url
    labeller.close()


def posted(url: str, video: bytes, *, accept: str = "application/json", **query: Any) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/classify", params=query, content=video, headers=RAW | {"Accept": accept}, timeout=20)


def test_a_classifier_labels_what_is_mostly_there_and_says_how_much_it_was(model: Path, damaged: bytes) -> None:
    video = Classifier.load(model).classify(damaged).video
    assert not video.complete and 50 <= video.frames_decoded < video.frames_declared == 100
    assert "of the declared 10.00 s could be decoded" in video.warnings[0]


def test_a_classifier_refuses_a_stump_unless_it_is_told_to_answer_whatever_it_sees(model: Path, stump: bytes) -> None:
    with pytest.raises(TruncatedVideo):
        Classifier.load(model).classify(stump)
    assert Classifier.load(model, limits=Limits(min_share_seen=0)).classify(stump).action is not None


def test_labels_of_a_stump_as_they_come_end_in_its_error(model: Path, stump: bytes) -> None:
    labels = Classifier.load(model).stream(stump)
    first = next(labels)
    with pytest.raises(TruncatedVideo) as caught:
        list(labels)
    assert first.seconds == 0.0 and 1 < caught.value.seen_seconds < 5


def test_a_stump_that_is_sure_enough_before_its_end_is_answered_and_one_that_never_is_is_not(
    model: Path, stump: bytes
) -> None:
    classifier = Classifier.load(model)
    found = classifier.classify(stump, early_exit=EarlyExit(score=0.9, hold_seconds=0.5))
    assert found.early_exit is not None and found.video.complete
    with pytest.raises(TruncatedVideo):
        classifier.classify(stump, early_exit=EarlyExit(score=0.9, hold_seconds=60.0))


def test_a_window_that_was_seen_is_answered(model: Path, stump: bytes) -> None:
    assert Classifier.load(model).classify(stump, end_seconds=1.0).video.complete


def test_a_model_that_reads_from_both_ends_refuses_it_too(tmp_path: Path, stump: bytes) -> None:
    with pytest.raises(TruncatedVideo):
        Classifier.load(toy_checkpoint(tmp_path / "toy", bidirectional=True)).classify(stump)


def test_the_floor_of_a_service_is_the_one_of_its_limits(model: Path, stump: bytes, tmp_path: Path) -> None:
    clip = tmp_path / "stump.mkv"
    clip.write_bytes(stump)
    labeller = Labeller(model, name=None, device="cpu", limits=Limits(min_share_seen=0.05))
    with clip.open("rb") as video:
        assert labeller.classify(video, stop=threading.Event()).action is not None
    labeller.close()


def test_the_service_refuses_a_stump_with_both_figures_and_the_floor(url: str, stump: bytes) -> None:
    problem = problem_of(posted(url, stump))
    assert (problem.status, problem.type, problem.retryable) == (422, CODE, False)
    assert "10.00 s" in problem.detail and "below 50.0%" in problem.detail


def test_the_service_answers_a_damaged_video_with_its_counts_and_a_warning(url: str, damaged: bytes) -> None:
    video = Prediction.model_validate_json(posted(url, damaged).content).video
    assert not video.complete and video.frames_decoded < video.frames_declared == 100 and video.warnings


def test_line_by_line_the_last_line_of_a_stump_is_its_problem(url: str, stump: bytes) -> None:
    answer = posted(url, stump, accept="application/x-ndjson")
    *before, last = [read_service_message(line) for line in answer.text.splitlines()]
    assert before and all(isinstance(message, Applied) for message in before)
    assert isinstance(last, Failed) and (last.problem.status, last.problem.type) == (422, CODE)


def test_line_by_line_the_end_of_a_damaged_video_has_its_counts_and_a_warning(url: str, damaged: bytes) -> None:
    answer = posted(url, damaged, accept="application/x-ndjson")
    _, final = said([read_service_message(line) for line in answer.text.splitlines()])
    video = final.prediction.video
    assert not video.complete and video.frames_decoded < video.frames_declared == 100 and video.warnings


def test_a_live_stream_has_no_declared_end_and_is_labelled_as_far_as_it_came(url: str, stump: bytes) -> None:
    with talking(url) as client:
        client.open(input="video")
        client.say(stump)
        client.end()
        *_, final = client.hear_all()
    assert isinstance(final, Final) and not final.prediction.video.complete


def test_the_sdk_meets_a_stump_as_a_video_that_was_rejected(url: str, stump: bytes) -> None:
    with Client(url) as client, pytest.raises(VideoRejected) as caught:
        client.classify(stump)
    assert (caught.value.status, caught.value.type) == (422, CODE)


def test_a_row_of_a_stump_has_the_code_and_the_figures(model: Path, stump: bytes) -> None:
    classifier = Classifier.load(model)
    with pytest.raises(TruncatedVideo) as caught:
        classifier.classify(stump)
    row = failed(caught.value)
    assert row["error_code"] == CODE and "10.00 s" in row["error_detail"]


def test_predict_says_it_in_a_sentence_and_takes_the_floor_as_an_option(
    model: Path, stump: bytes, tmp_path: Path
) -> None:
    clip = tmp_path / "stump.mkv"
    clip.write_bytes(stump)
    assert "could be decoded where the video declares 10.00 s" in refused("predict", model, clip, "--json")
    answer = in_process("predict", model, clip, "--json", "--min-share-seen", 0.1).stdout
    video = Prediction.model_validate_json(answer).video
    assert not video.complete and video.warnings


def test_an_exit_in_the_last_frames_of_a_stump_says_nothing_of_what_lies_behind_it(model: Path, stump: bytes) -> None:
    """Beside an Engine the end of the file has been met by then."""
    checkpoint = load_checkpoint(model)
    with Engine(checkpoint.model) as engine:
        classifier = Classifier(checkpoint, compute=engine.submit, limits=Limits(min_share_seen=0))
        last_seconds = classifier.classify(stump).sampled.end_seconds
        found = classifier.classify(stump, early_exit=EarlyExit(score=0.9, hold_seconds=last_seconds))
    assert found.early_exit is not None and found.early_exit.seconds == last_seconds
    assert found.video.complete and found.video.warnings == ()
