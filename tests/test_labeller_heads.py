"""Several models behind one engine: what each says of a video is what it says alone; they come and go meanwhile."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from serving.labeller import Labeller
from tests.predictions import assert_same
from tests.test_golden import change_weights
from tests.test_labeller import ask
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from tests.web_server import running, toy_app
from vidseq.classifier import Classifier
from vidseq.client import Client
from vidseq.config import Calibration, Limits, Sampling
from vidseq.early import EarlyExit
from vidseq.errors import CheckpointError, ModelNotFound, OptionError
from vidseq.schemas import Prediction

NAMES = ["gru", "lstm", "both"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three with one backbone; the last reads videos from both ends."""
    folder = tmp_path_factory.mktemp("models")
    toy_checkpoint(folder / "gru")
    toy_checkpoint(folder / "lstm", cell="lstm", num_layers=2, readout="attention")
    toy_checkpoint(folder / "both", bidirectional=True, action_labels=("yes", "no"))
    return folder


@pytest.fixture
def labeller(folder: Path) -> Iterator[Labeller]:
    labeller = loaded(folder, *NAMES)
    yield labeller
    labeller.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=100)


def loaded(folder: Path, first: str, *others: str | Path) -> Labeller:
    also = [folder / name for name in others]
    return Labeller(folder / first, also=also, name=None, device="cpu", limits=Limits())


def ask_each(labeller: Labeller, clip: Path, *names: str) -> list[Prediction]:
    with clip.open("rb") as video:
        return [*labeller.classify_each(video, models=names, stop=threading.Event())]


def ask_one(labeller: Labeller, clip: Path, name: str) -> Prediction:
    with clip.open("rb") as video:
        return labeller.classify(video, model=name, stop=threading.Event())


def alone(folder: Path, clip: Path, *names: str) -> list[Prediction]:
    return [Classifier.load(folder / name).classify(clip) for name in names]


def names_of(labeller: Labeller) -> list[str]:
    return [info.name for info in labeller.models.models]


@pytest.mark.parametrize("names", [NAMES, ["lstm", "gru"], ["both", "lstm"]], ids="-".join)
def test_several_models_say_together_what_each_says_alone_in_the_order_asked(
    labeller: Labeller, folder: Path, clip: Path, names: list[str]
) -> None:
    assert_same(ask_each(labeller, clip, *names), alone(folder, clip, *names))


def test_one_of_them_by_its_name_and_the_first_without_one(labeller: Labeller, folder: Path, clip: Path) -> None:
    answers = [ask_one(labeller, clip, name) for name in NAMES]
    assert_same([*answers, ask(labeller, clip)], alone(folder, clip, *NAMES, "gru"))


def test_together_they_are_decoded_and_encoded_once(labeller: Labeller, clip: Path) -> None:
    gru, lstm, both = (prediction.timings for prediction in ask_each(labeller, clip, *NAMES))
    assert gru.encode_ms == pytest.approx(lstm.encode_ms) == pytest.approx(both.encode_ms)
    assert gru.decode_ms > 0 and lstm.decode_ms == pytest.approx(gru.decode_ms, rel=0.5)


def test_requests_for_different_models_at_once_get_their_own_answers(
    labeller: Labeller, folder: Path, clip: Path
) -> None:
    asked = [NAMES, ["lstm"], ["gru", "lstm"], ["both"], ["gru"], ["lstm", "both"]] * 2
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda names: ask_each(labeller, clip, *names), asked))
    expected = dict(zip(NAMES, alone(folder, clip, *NAMES), strict=True))
    for names, answer in zip(asked, answers, strict=True):
        assert_same(answer, [expected[name] for name in names])


def test_a_model_beside_the_first_may_exit_early(folder: Path, tmp_path: Path, clip: Path) -> None:
    sure = Calibration(elapsed_seconds=(0.0,), temperatures=(1e-4,))
    labeller = loaded(folder, "gru", toy_checkpoint(tmp_path / "sure", calibration=sure))
    patience = EarlyExit(score=0.9, hold_seconds=0.25)
    with clip.open("rb") as video:
        early = labeller.classify(video, model="sure", early_exit=patience, stop=threading.Event())
    assert early.early_exit is not None and early.early_exit.seconds < 1.0
    expected = Classifier.load(tmp_path / "sure").classify(clip, early_exit=patience)
    assert (early.early_exit, early.frames) == (expected.early_exit, expected.frames)
    labeller.close()


def test_a_model_that_is_added_answers_and_one_that_is_removed_does_not(folder: Path, clip: Path) -> None:
    labeller = loaded(folder, "gru")
    labeller.add(labeller.load(folder / "lstm"))
    assert names_of(labeller) == ["gru", "lstm"] and labeller.also == (folder / "lstm",)
    assert_same(ask_each(labeller, clip, "lstm", "gru"), alone(folder, clip, "lstm", "gru"))
    labeller.remove(folder / "lstm")
    assert names_of(labeller) == ["gru"] and labeller.also == ()
    for names in (["lstm"], ["gru", "lstm"]):
        with pytest.raises(ModelNotFound, match="'lstm' here any more"):
            ask_each(labeller, clip, *names)
    labeller.close()


def test_the_first_model_cannot_be_removed(labeller: Labeller, folder: Path) -> None:
    labeller.remove(folder / "gru")
    assert names_of(labeller) == NAMES


def test_what_was_begun_with_a_model_ends_with_it(labeller: Labeller, folder: Path, clip: Path) -> None:
    begun = labeller._classifier([labeller._named("lstm"), labeller._named("both")], stop=threading.Event())
    labeller.remove(folder / "lstm")
    labeller.remove(folder / "both")
    assert_same([*begun.classify_each(clip)], alone(folder, clip, "lstm", "both"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "their backbones have other weights"),
        ({"sampling": Sampling(frames_per_second=4)}, "frames_per_second is 4.0, not 8.0"),
    ],
    ids=["weights", "rate"],
)
def test_a_model_that_looks_otherwise_is_refused_and_those_that_answer_go_on(
    labeller: Labeller, folder: Path, tmp_path: Path, clip: Path, change: dict[str, object], sentence: str
) -> None:
    other = toy_checkpoint(tmp_path / "other", **change)
    with pytest.raises(OptionError, match=f"other cannot share a look with gru: {sentence}"):
        labeller.load(other)
    assert names_of(labeller) == NAMES
    assert_same([ask(labeller, clip)], alone(folder, clip, "gru"))


def test_names_are_those_of_one_model(labeller: Labeller, folder: Path, tmp_path: Path) -> None:
    for name, sentence in (("gru", "two models are named 'gru'"), ("all", "stands for all")):
        with pytest.raises(OptionError, match=sentence):
            labeller.load(toy_checkpoint(tmp_path / name, cell="elman"))
    with pytest.raises(OptionError, match="there twice"):
        labeller.load(folder / "gru")


def test_a_model_of_the_same_folder_takes_the_place_of_the_one_before(folder: Path, tmp_path: Path) -> None:
    labeller = loaded(folder, "gru")
    for version in ("1", "2"):
        labeller.add(labeller.load(toy_checkpoint(tmp_path / "other", cell="lstm", version=version)))
    assert [info.version for info in labeller.models.models] == ["1", "2"]
    labeller.close()


def test_each_model_answers_the_canary(folder: Path, tmp_path: Path) -> None:
    other = toy_checkpoint(tmp_path / "other", cell="lstm", with_answer=True)
    labeller = loaded(folder, "gru", "lstm")
    odd = labeller.answer_canary()
    assert odd is not None and "gru has no golden answer" in odd and "lstm has no golden answer" in odd
    assert labeller.rehearse(labeller.load(other)) is None
    change_weights(other, "frame_head.linear.weight", by=1.0)
    with pytest.raises(CheckpointError, match="computes something else here"):
        labeller.rehearse(labeller.load(other))
    labeller.close()


def test_the_client_gets_over_http_what_each_model_says_alone(labeller: Labeller, folder: Path, clip: Path) -> None:
    app = toy_app(labeller.classify, classify_each=labeller.classify_each, models=labeller.models)
    with running(app) as url, Client(url, max_retries=0) as client:
        assert [info.name for info in client.models()] == NAMES
        assert_same([*client.classify_each(clip)], alone(folder, clip, *NAMES))
        assert_same([*client.classify_each(clip, ["both", "gru"])], alone(folder, clip, "both", "gru"))
        assert_same([client.classify(clip, model="lstm"), client.classify(clip)], alone(folder, clip, "lstm", "gru"))


@pytest.mark.gpu
def test_on_a_gpu_a_head_that_is_added_shares_the_encoder_there(folder: Path, clip: Path, cuda: torch.device) -> None:
    labeller = Labeller(folder / "gru", name=None, device=str(cuda), limits=Limits())
    labeller.add(labeller.load(folder / "lstm"))
    for prediction, expected in zip(
        ask_each(labeller, clip, "gru", "lstm"), alone(folder, clip, "gru", "lstm"), strict=True
    ):
        assert prediction.model == expected.model
        assert [frame.score for frame in prediction.frames] == pytest.approx(
            [frame.score for frame in expected.frames], abs=1e-3
        )
    labeller.close()
