"""What a worker says of a clip: one model, several on one look, from video or from features, all the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.batch.rows import Row
from serving.batch.score_job import ScoreJob
from serving.looks import refuse_other_looks
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits, Sampling
from vidseq.errors import OptionError, TruncatedVideo
from vidseq.features.legs import Leg

SCORES = {"action_score", "actions", "top", "segments", "frames"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three with one backbone and heads of their own; the last reads videos from both ends."""
    folder = tmp_path_factory.mktemp("models")
    return [
        toy_checkpoint(folder / "gru"),
        toy_checkpoint(folder / "lstm", cell="lstm", num_layers=2),
        toy_checkpoint(folder / "both", bidirectional=True),
    ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several chunks."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=100)


def job(models: list[Path], **options: Any) -> ScoreJob:
    infos = tuple(load_checkpoint(model).info for model in models)
    plain = ScoreJob(tuple(models), None, infos, top_k=5, frames=True, limits=Limits())
    return replace(plain, **options)


def assert_same(row: Row, expected: Row) -> None:
    assert row.keys() == expected.keys()
    for name in row.keys() - SCORES:
        assert name.startswith("timings_") or row[name] == expected[name], name
    assert row["action_score"] == pytest.approx(expected["action_score"], abs=1e-5)
    for name in ("top", "frames", "segments"):
        assert [each["label"] for each in row[name]] == [each["label"] for each in expected[name]]
        assert [each["score"] for each in row[name]] == pytest.approx([e["score"] for e in expected[name]], abs=1e-5)


def test_several_models_on_one_look_say_what_each_says_alone(models: list[Path], clip: Path) -> None:
    together = job(models).start("cpu").rows(str(clip), "")
    alone = [job([model]).start("cpu").rows(str(clip), "")[0] for model in models]
    assert [row["model_name"] for row in together] == ["gru", "lstm", "both"]
    for row, expected in zip(together, alone, strict=True):
        assert_same(row, expected)


def test_several_models_on_stored_features_say_the_same(models: list[Path], clip: Path, tmp_path: Path) -> None:
    together = job(models).start("cpu").rows(str(clip), "")
    for _ in range(2):  # made, and read
        from_store = job(models, features=tmp_path / "store").start("cpu").rows(str(clip), "ab" * 32)
        for row, expected in zip(from_store, together, strict=True):
            assert_same(row, expected)


@pytest.mark.parametrize("num_models", [1, 3])
@pytest.mark.parametrize("stored", [False, True])
def test_a_clip_in_legs_has_the_rows_of_the_clip_in_one_piece(
    models: list[Path], clip: Path, tmp_path: Path, num_models: int, stored: bool
) -> None:
    expected = job(models[:num_models]).start("cpu").rows(str(clip), "")
    started = job(models[:num_models], features=tmp_path / "store" if stored else None).start("cpu")
    legs = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, file in enumerate(legs):
        started.encode_leg(str(clip), "ab" * 32, Leg(number, of=3), file)
    assert started.rows_of_legs([*legs[:-1], tmp_path / "gone"], "ab" * 32) is None
    rows = started.rows_of_legs(legs, "ab" * 32)
    assert rows is not None
    for row, right in zip(rows, expected, strict=True):
        assert_same(row, right)


def test_a_clip_that_is_cut_short_is_refused_for_all(models: list[Path], tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "clip.mkv", num_frames=200).read_bytes()
    (tmp_path / "stump.mkv").write_bytes(whole[: len(whole) // 4])
    for chosen in (models[:1], models):
        with pytest.raises(TruncatedVideo):
            job(chosen).start("cpu").rows(str(tmp_path / "stump.mkv"), "")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sampling": Sampling(frames_per_second=4)}, "other cannot share .* gru: frames_per_second is 4.0, not 8.0"),
        ({"sampling": Sampling(max_frames=50)}, "max_frames is 50, not None"),
        ({"seed": 1}, "their backbones have other weights"),
    ],
    ids=["rate", "most", "weights"],
)
def test_a_model_that_looks_otherwise_is_refused_with_what_differs(
    models: list[Path], tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    other = toy_checkpoint(tmp_path / "other", **change)
    with pytest.raises(OptionError, match=sentence):
        refuse_other_looks([load_checkpoint(model) for model in (models[0], other)])


def test_a_model_that_is_there_twice_is_refused(models: list[Path]) -> None:
    with pytest.raises(OptionError, match="there twice"):
        refuse_other_looks([load_checkpoint(model) for model in (*models, models[0])])
    refuse_other_looks([load_checkpoint(model) for model in models])
