"""Cross-validation: each clip is tested once, by a model that nothing of its own group has reached."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.crossval import CrossValidated, cross_validate
from training.data.clips import LabelledClip
from training.data.dataset import Dataset
from training.data.splits import Fold
from training.loop.progress import Epoch
from training.settings import FitConfig
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig
from vidseq.features.store import ClipFeatures

LABELS = ("a", "b")
GROUPS = ("u", "v", "w", "x", "y", "z")
CONFIG = ModelConfig(
    recurrent=RecurrentConfig(hidden_size=8, projection_size=8), heads=HeadsConfig(action_labels=LABELS)
)
SETTINGS = FitConfig(epochs=3, batch_size=4)


def dataset(*, other_way_round: str | None = None, split: str | None = None) -> Dataset:
    """Two clips a group, each of another length; the labels of one group may be swapped."""
    generator = np.random.default_rng(0)
    clips, features = [], []
    for index in range(2 * len(GROUPS)):
        group = GROUPS[index // 2]
        label = LABELS[(index + (group == other_way_round)) % 2]
        clips.append(LabelledClip(Path(f"{index}.mp4"), label, group, split))
        feature_TD = generator.normal(size=(index + 2, 4)).astype(np.float32)
        features.append(ClipFeatures(feature_TD, np.arange(index + 2) / 8))
    return Dataset(tuple(clips), tuple(features), LABELS, frame_labels=(), background=None, failed=())


def folds() -> list[Fold]:
    """Two groups a fold."""
    tests = [tuple(range(start, start + 4)) for start in (0, 4, 8)]
    return [Fold(tuple(index for index in range(12) if index not in test), test) for test in tests]


def run(data: Dataset, *, run_prefix: Path | None = None, epochs: list[Epoch] | None = None) -> CrossValidated:
    seen = [] if epochs is None else epochs
    return cross_validate(data, folds(), config=CONFIG, settings=SETTINGS, on_epoch=seen.append, run_prefix=run_prefix)


def actions(found: CrossValidated) -> np.ndarray:
    return np.stack([score.action_A for score in found.scores if score.action_A is not None])


@pytest.mark.parametrize("group", GROUPS)
def test_the_labels_of_a_group_do_not_reach_the_model_that_scores_it(group: str) -> None:
    one, other = actions(run(dataset())), actions(run(dataset(other_way_round=group)))
    fold = folds()[GROUPS.index(group) // 2]
    assert np.array_equal(one[list(fold.test)], other[list(fold.test)])
    assert not np.array_equal(one[list(fold.train)], other[list(fold.train)]), "the others do learn from it"


def test_each_clip_is_scored_once_in_the_order_of_the_dataset() -> None:
    config = CONFIG.model_copy(update={"heads": HeadsConfig(frame_labels=LABELS)})
    data = replace(dataset(), action_labels=(), frame_labels=LABELS)
    found = cross_validate(data, folds(), config=config, settings=SETTINGS, on_epoch=lambda _: None)
    lengths = [len(score.frame_TL) for score in found.scores if score.frame_TL is not None]
    assert lengths == [len(features.feature_TD) for features in data.features]
    assert len(found.best_epochs) == 3


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_given_split_is_not_looked_at(split: str) -> None:
    assert np.array_equal(actions(run(dataset(split=split))), actions(run(dataset())))


class Killed(Exception):
    pass


def test_a_killed_run_continues_within_its_fold_and_ends_with_the_same_scores(tmp_path: Path) -> None:
    before: list[Epoch] = []

    def kill(epoch: Epoch) -> None:
        before.append(epoch)
        if len(before) == 5:  # the second epoch of the second fold
            raise Killed

    with pytest.raises(Killed):
        cross_validate(dataset(), folds(), config=CONFIG, settings=SETTINGS, on_epoch=kill, run_prefix=tmp_path / "gru")
    after: list[Epoch] = []
    assert np.array_equal(actions(run(dataset(), run_prefix=tmp_path / "gru", epochs=after)), actions(run(dataset())))
    assert [epoch.number for epoch in after] == [3, 1, 2, 3]
