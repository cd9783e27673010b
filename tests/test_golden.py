"""A model's own answer to a known clip: kept with it, and asked for again before it answers anybody."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.check import check
from serving.labeller import Labeller
from tests.toy_models import hash_again, toy_checkpoint, toy_config, toy_model
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Calibration, Limits, MotionConfig, Sampling
from vidseq.engine import Engine, direct
from vidseq.errors import CheckpointError
from vidseq.golden import tolerance_of
from vidseq.rehearsal import answer, rehearse


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy", with_answer=True)


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(sound, tmp_path / "toy")


def change_answer(model: Path, **changes: Any) -> None:
    said = json.loads((model / "golden.json").read_text())
    (model / "golden.json").write_text(json.dumps(said | changes))
    hash_again(model, "golden.json")


def rehearsed(model: Path) -> str | None:
    checkpoint = load_checkpoint(model)
    return rehearse(checkpoint, direct(checkpoint.model), device="cpu")


def change_weights(model: Path, name: str, *, by: float) -> None:
    """Everything that knows hashes is satisfied."""
    tensors = load_file(model / "model.safetensors")
    tensors[name] = tensors[name] + by * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    save_file(tensors, model / "model.safetensors")
    hash_again(model, "model.safetensors")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "lstm", "num_layers": 2, "readout": "attention"},
        {"bidirectional": True},
        {"motion": MotionConfig(maps=("last",))},
        {"lookahead_seconds": 0.5},
        {"several": True, "readout": "last"},
        {"action_labels": ()},
        {"frame_labels": (), "background": None},
        {"sampling": Sampling(frames_per_second="native")},
        {"sampling": Sampling(max_frames=3)},
        {"sampling": Sampling(frames_per_second=0.1)},
        {"calibration": Calibration(elapsed_seconds=(0.0, 0.5), temperatures=(2.0, 1.5))},
    ],
    ids=str,
)
def test_every_kind_of_model_gives_its_own_answer_again(tmp_path: Path, options: dict[str, Any]) -> None:
    model = toy_checkpoint(tmp_path / "toy", with_answer=True, **options)
    kept = load_checkpoint(model).golden
    assert kept is not None and len(kept.seconds) == len(kept.actions or kept.frames) > 0
    assert rehearsed(model) is None


def test_the_answer_says_who_made_it(sound: Path) -> None:
    kept = load_checkpoint(sound).golden
    assert kept is not None
    assert {"vidseq", "torch", "device", "precision", "machine"} <= kept.made_by.keys()


def test_a_model_without_an_answer_is_told_of_and_not_refused(tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "older")
    assert "older has no golden answer" in str(rehearsed(model))
    assert "older has no golden answer" in check(model, device="cpu").splitlines()[-1]


def test_an_answer_to_another_clip_tells_nothing(model: Path) -> None:
    change_answer(model, clip_sha256="0" * 64)
    assert "has a golden answer to another clip" in str(rehearsed(model))


@pytest.mark.parametrize("part", ["action_head", "frame_head", "recurrent"])
def test_weights_that_were_changed_and_hashed_again_are_found_out(model: Path, part: str) -> None:
    name = min(name for name in load_file(model / "model.safetensors") if name.startswith(part) and "weight" in name)
    change_weights(model, name, by=1.0)
    words = r"the (action|frame) score of '\w+' at \d\.\d{3} s of the known clip is 0\.\d+, and was 0\.\d+ when the "
    with pytest.raises(CheckpointError, match=words + r"model was made: they are 0\.\d+ apart, where 0\.02"):
        rehearsed(model)


def test_labels_that_were_exchanged_are_found_out(model: Path) -> None:
    """Each score is one that was said before, under another name."""
    tensors = load_file(model / "model.safetensors")
    for name in [name for name in tensors if name.startswith("frame_head") and len(tensors[name]) == 3]:
        tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, model / "model.safetensors")
    hash_again(model, "model.safetensors")
    with pytest.raises(CheckpointError, match="the frame score of"):
        rehearsed(model)


def test_what_differs_by_less_than_machines_do_is_not_refused(model: Path) -> None:
    change_weights(model, "frame_head.linear.bias", by=1e-5)
    assert rehearsed(model) is None


def test_the_service_and_its_check_refuse_a_model_that_answers_otherwise(model: Path) -> None:
    change_weights(model, "frame_head.linear.weight", by=1.0)
    with pytest.raises(CheckpointError, match="computes something else here"):
        check(model, device="cpu")
    labeller = Labeller(model, name=None, device="cpu", limits=Limits(max_frames=1))
    with pytest.raises(CheckpointError, match="computes something else here"):
        labeller.answer_canary()
    labeller.close()


def test_the_service_gives_the_answer_under_whatever_limits_and_turns(sound: Path) -> None:
    labeller = Labeller(sound, name="another", device="cpu", limits=Limits(max_frames=1))
    assert labeller.answer_canary() is None
    labeller.close()
    checkpoint = load_checkpoint(sound)
    with Engine(checkpoint.model, turn_frames=3) as engine:
        assert rehearse(checkpoint, engine.submit, device="cpu") is None


def test_another_number_of_frames_is_told_with_their_times(model: Path) -> None:
    change_answer(model, seconds=[0.0, 0.5], actions=[[0.3] * 3] * 2, frames=[[0.3] * 3] * 2)
    with pytest.raises(CheckpointError, match=r"8 frames are sampled here, .* and 2 were when the model was made"):
        rehearsed(model)


def test_an_answer_of_another_shape_is_refused(model: Path) -> None:
    change_answer(model, frames=[[1.0]] * 8)
    with pytest.raises(CheckpointError, match=r"frame scores of shape \(8, 1\), the model's are \(8, 3\)"):
        rehearsed(model)


@pytest.mark.parametrize("content", ["", "[]", '{"clip_sha256": 1}', "[" * 10_000])
def test_an_answer_that_is_none_is_refused(model: Path, content: str) -> None:
    (model / "golden.json").write_text(content)
    hash_again(model, "golden.json")
    with pytest.raises(CheckpointError, match=r"golden\.json is damaged: it is no answer"):
        load_checkpoint(model)


def test_scores_that_are_no_table_are_refused(model: Path) -> None:
    change_answer(model, frames=[[0.5, 0.5], *[[0.5]] * 7])
    with pytest.raises(CheckpointError, match=r"golden\.json is damaged"):
        rehearsed(model)


def test_scores_that_are_no_numbers_are_refused(model: Path) -> None:
    change_answer(model, frames=[[float("nan"), 0.5, 0.5]] * 8)
    with pytest.raises(CheckpointError, match=r"golden\.json is damaged|was nan"):
        rehearsed(model)


def test_a_reduced_precision_may_differ_by_more(sound: Path) -> None:
    plain = load_checkpoint(sound)
    reduced = toy_config().model_copy(
        update={"encoder": plain.config.encoder.model_copy(update={"precision": "bfloat16"})}
    )
    found = answer(reduced, direct(toy_model(reduced)), device="cpu")
    assert plain.golden is not None and plain.golden.frames != found.frames
    plain.golden.refuse_other(found, plain.config.heads, tolerance=tolerance_of("cpu", reduced.encoder))


def test_a_model_whose_scores_are_no_numbers_gives_no_answer() -> None:
    config = toy_config(cell="none")
    model = toy_model(config)
    next(model.sequence.parameters()).data.fill_(float("nan"))
    with pytest.raises(AssertionError, match="known clip"):
        answer(config, direct(model), device="cpu")
