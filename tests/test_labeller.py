"""A loaded model that answers many requests at once."""

import collections
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.labeller import Labeller
from tests.predictions import assert_same
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from tests.web_server import wait_until
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.errors import ModelNotFound, TooManyFrames
from vidseq.schemas import Prediction


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def labeller(model: Path) -> Iterator[Labeller]:
    labeller = Labeller(model, name=None, device="cpu", limits=Limits())
    yield labeller
    labeller.close()


def ask(labeller: Labeller, clip: Path) -> Prediction:
    with clip.open("rb") as video:
        return labeller.classify(video, stop=threading.Event())


def test_clips_asked_at_once_get_the_answers_they_get_alone(labeller: Labeller, model: Path, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{number}.mp4", num_frames=20 + 7 * number) for number in range(8)]
    with ThreadPoolExecutor(len(clips)) as pool:
        answers = list(pool.map(lambda clip: ask(labeller, clip), clips))
    classifier = Classifier.load(model)
    assert_same(answers, [classifier.classify(clip) for clip in clips])


def test_an_open_file_is_read_from_its_start_wherever_it_stands(labeller: Labeller, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    with clip.open("rb") as video:
        video.seek(100)
        assert labeller.classify(video, stop=threading.Event()).video.complete


def test_a_request_that_nobody_waits_for_ends_before_its_next_chunk(labeller: Labeller, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with write_clip(tmp_path / "clip.mp4").open("rb") as video, pytest.raises(CancelledError):
        labeller.classify(video, stop=stop)


def test_a_request_that_nobody_waits_for_ends_though_none_of_its_frames_is_wanted(
    labeller: Labeller, tmp_path: Path
) -> None:
    """Else who asks for what lies behind the end of a long video, and leaves, holds a place for as long as it lasts."""
    stop = threading.Event()
    stop.set()
    with write_clip(tmp_path / "clip.mp4").open("rb") as video, pytest.raises(CancelledError):
        labeller.classify(video, start_seconds=3600.0, stop=stop)


def test_a_video_costs_what_the_limits_allow(model: Path, tmp_path: Path) -> None:
    labeller = Labeller(model, name=None, device="cpu", limits=Limits(max_frames=5))
    with pytest.raises(TooManyFrames):
        ask(labeller, write_clip(tmp_path / "clip.mp4", num_frames=6))
    labeller.close()


def test_the_model_may_be_served_under_another_name(model: Path) -> None:
    labeller = Labeller(model, name="camera-7", device="cpu", limits=Limits())
    assert [info.name for info in labeller.models.models] == ["camera-7"]
    labeller.close()


def test_a_model_that_is_at_one_batch_for_too_long_is_not_alive(model: Path, tmp_path: Path) -> None:
    labeller = Labeller(model, name=None, device="cpu", limits=Limits(), stuck_seconds=1e-9)
    labeller.check_alive()
    clip = write_clip(tmp_path / "clip.mp4", num_frames=300)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, labeller, clip)
        looks = iter(asked.done, True)
        with pytest.raises(AssertionError, match="stuck"):
            collections.deque((labeller.check_alive() for _ in looks), maxlen=0)
    labeller.check_alive()
    labeller.close()


def test_a_model_goes_with_the_last_who_can_ask_it(model: Path) -> None:
    labeller = Labeller(model, name=None, device="cpu", limits=Limits())
    live, engine = labeller.live, labeller._computing.engine
    del labeller
    gc.collect()
    assert live is not None and engine.alive, "a stream may still ask it"
    del live
    gc.collect()
    wait_until(lambda: not engine.alive)


def test_a_name_that_was_let_through_before_the_model_was_replaced_is_not_found(
    labeller: Labeller, tmp_path: Path
) -> None:
    with write_clip(tmp_path / "clip.mp4").open("rb") as video, pytest.raises(ModelNotFound, match="any more"):
        labeller.classify(video, model="the one before", stop=threading.Event())


def test_a_labeller_is_alive_until_its_engine_has_ended(model: Path) -> None:
    labeller = Labeller(model, name=None, device="cpu", limits=Limits())
    labeller.check_alive()
    labeller.close()
    with pytest.raises(AssertionError, match="has died"):
        labeller.check_alive()
