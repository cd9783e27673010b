"""What rearranged frames tell of a model: one that needs their order fails without it, one that does not does not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.clips import LabelledClip, LabelledSegment
from training.data.dataset import Dataset
from training.loop.fit import fit
from training.measure.honesty import Right, Rights, honesty, rearranged
from training.settings import FitConfig
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig
from vidseq.features.store import ClipFeatures
from vidseq.model import SequenceModel

LABELS = ("fall", "rise")
NUM_FRAMES = 9
SETTINGS = FitConfig(epochs=30, batch_size=8, learning_rate=2e-2, label_smoothing=0.0)


def two_orders(num_clips: int) -> Dataset:
    """The same frames in two orders: of the two features that look alike in every clip, one falls or rises."""
    clips, features = [], []
    for number in range(num_clips):
        value_T = np.linspace(-1, 1, NUM_FRAMES) * (1 if number % 2 else -1)
        clips.append(LabelledClip(Path(f"{number}.mp4"), LABELS[number % 2], group=f"{number // 2}", split=None))
        noise_T3 = np.random.default_rng(number).normal(scale=0.1, size=(NUM_FRAMES, 3))
        feature_TD = np.concatenate([value_T[:, None], noise_T3], axis=1).astype(np.float32)
        features.append(ClipFeatures(feature_TD, np.arange(NUM_FRAMES) / 8))
    return Dataset(tuple(clips), tuple(features), LABELS, frame_labels=(), background=None, failed=())


def a_config(*, frame_labels: tuple[str, ...] = (), cell: str = "gru") -> ModelConfig:
    return ModelConfig(
        recurrent=RecurrentConfig(cell=cell, hidden_size=8, projection_size=8, dropout=0.0),
        heads=HeadsConfig(action_labels=LABELS, frame_labels=frame_labels),
    )


def trained(config: ModelConfig) -> SequenceModel:
    data = two_orders(32)
    examples = data.examples(range(32))
    return fit(examples, [], config=config, settings=SETTINGS, run_file=None, on_epoch=lambda _: None).model


def test_a_model_that_tells_two_orders_apart_loses_all_without_the_order() -> None:
    data = two_orders(24)
    found = honesty(data, rearranged(trained(a_config()), data, range(24)))
    accuracy = {row.name: row.accuracy for row in found.clips}
    assert accuracy["shuffled"] + found.clips[0].drop > 0.95, "in order it is right"
    assert accuracy["shuffled"] < 0.75 and accuracy["reversed"] < 0.05
    assert accuracy["frozen"] == pytest.approx(0.5, abs=0.15)
    assert accuracy["one frame"] == pytest.approx(0.5, abs=0.15)
    assert "clips: shuffling the frames costs" in found.sentences[0]
    assert "this model uses their order" in found.sentences[0]


def test_a_mean_of_frames_loses_nothing_in_any_order() -> None:
    data = two_orders(12)
    torch.manual_seed(0)
    model = SequenceModel(a_config().baseline(), feature_size=4)
    found = honesty(data, rearranged(model, data, range(12)))
    assert [row.drop for row in found.clips if row.name in ("shuffled", "reversed")] == [0, 0]
    assert "hardly uses their order" in found.sentences[0]


def test_the_label_of_a_frame_is_its_own_wherever_it_is_shown() -> None:
    """A model without memory says the same of each frame in any order, and of each for itself."""
    generator = np.random.default_rng(0)
    marks = tuple(LabelledSegment(t / 8, (t + 1) / 8, LABELS[generator.integers(2)]) for t in range(40))
    clip = LabelledClip(Path("a.mp4"), None, group=None, split=None, segments=marks)
    features = ClipFeatures(generator.normal(size=(40, 4)).astype(np.float32), np.arange(40) / 8)
    data = Dataset((clip,), (features,), LABELS, frame_labels=LABELS, background=None, failed=())
    torch.manual_seed(0)
    model = SequenceModel(a_config(frame_labels=LABELS, cell="none"), feature_size=4)
    (rights,) = rearranged(model, data, [0])
    in_order = rights["in order"]
    assert in_order.num_frames == 40 and 5 < in_order.frames < 35
    assert [rights[name].frames for name in ("shuffled", "reversed", "one frame")] == [in_order.frames] * 3
    assert rights["frozen"].frames != in_order.frames
    assert in_order.num_actions == 0, "nobody said what the clip shows"


def given(**right: float) -> Rights:
    """Of one clip, whose action is right in order; `right` of its rearrangements."""
    names = ("shuffled", "reversed", "frozen", "one frame")
    return {name: Right(right.get(name, 1.0), 1, 0.0, 0) for name in ("in order", *names)}


def told(rights: list[Rights]) -> str:
    (sentence,) = honesty(two_orders(len(rights)), rights).sentences
    return sentence


def test_a_drop_that_may_be_large_or_nothing_is_called_undecided() -> None:
    assert "cannot tell" in told([given(shuffled=0), *[given()] * 9])


def test_a_drop_that_is_small_for_sure_is_called_so() -> None:
    assert "hardly uses" in told([given()] * 10)


def test_a_model_that_gains_from_disorder_is_not_said_to_use_order() -> None:
    worse = {**given(), "in order": Right(0.0, 1, 0.0, 0)}
    assert "does better without their order" in told([worse] * 8 + [given()] * 4)


def test_the_drop_is_the_mean_over_clips_with_a_label() -> None:
    unlabelled = {name: Right(0.0, 0, 0.0, 0) for name in given()}
    found = honesty(two_orders(4), [given(shuffled=1 / 3), given(), unlabelled, unlabelled])
    assert found.clips[0].drop == pytest.approx(1 / 3)
    assert found.frames == ()
