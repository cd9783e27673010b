"""Settings that do not go together are refused in a sentence before the work begins."""

from typing import Any

import pytest

from tests.toy_models import toy_config
from training.recipes import Options, default
from training.settings import FitConfig, UnfreezeConfig, check_together
from vidseq.errors import OptionError

LABELS = {"action_labels": ("a", "b"), "frame_labels": (), "background": None}
LAST = UnfreezeConfig(blocks=1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"augment_frames": ("crop",), "num_views": 3},
        {"augment_frames": ("crop",), "unfreeze": LAST},
        {"unfreeze": LAST, "augment_time": ("drop",)},
    ],
    ids=str,
)
def test_what_goes_together_is_let_through(settings: dict[str, Any]) -> None:
    check_together(toy_config(), FitConfig(**settings))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"augment_frames": ("crop",)}, "give both, or neither"),
        ({"num_views": 2}, "give both, or neither"),
        ({"unfreeze": LAST, "num_views": 2, "augment_frames": ("crop",)}, "views are of a CNN that is frozen"),
        ({"unfreeze": LAST, "long": "truncated"}, "needs long 'whole', not 'truncated'"),
        ({"unfreeze": LAST, "mixup": 0.2}, r"mixup \(0.2\) lays features over each other"),
    ],
    ids=str,
)
def test_what_does_not_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        check_together(toy_config(), FitConfig(**settings))


def test_a_recipe_freezes_the_cnn_unless_told_how_much_of_it_to_train() -> None:
    assert default(Options(), **LABELS)[1].unfreeze is None
    options = Options(
        unfreeze=3, backbone_learning_rate=1e-5, layer_decay=0.5, clip_frames=8, checkpoint_gradients=True
    )
    chosen = default(options, **LABELS)[1].unfreeze
    assert chosen == UnfreezeConfig(
        blocks=3, learning_rate=1e-5, layer_decay=0.5, clip_frames=8, checkpoint_gradients=True
    )
    assert default(Options(unfreeze="all"), **LABELS)[1].unfreeze == UnfreezeConfig(blocks="all")
