"""card.md says what a model is and what was measured, and leaves out what was not."""

import re
from pathlib import Path

import pytest

from tests.toy_models import ACTIONS, FRAMES, toy_config
from training.calibration import Calibrated, Stretch
from training.card import write_card
from training.clips import LabelledClip
from training.dataset import Dataset
from training.evaluate import ClipResults, Evaluation, FrameResults
from training.features import Failed
from training.fit import FitConfig
from training.metrics import ClipMetrics, FrameMetrics
from vidseq.config import Calibration, ModelConfig
from vidseq.errors import EmptyVideo

CLIPS = ClipMetrics(num=7, accuracy=0.5, top5=1.0, macro_f1=0.25, labels=ACTIONS, confusion=((7, 0, 0),) * 3)
FRAME_FIGURES = FrameMetrics(num=90, accuracy=0.8125, accuracy_foreground=0.7, macro_f1=0.6)
BOTH = Evaluation(
    clips=ClipResults(**CLIPS.model_dump() | {"accuracy": 0.875}, baseline=CLIPS),
    frames=FrameResults(**FRAME_FIGURES.model_dump(), baseline=None),
)


CALIBRATED = Calibrated(
    Calibration(elapsed_seconds=(0.0, 0.5), temperatures=(1.25, 0.8)),
    num_clips=40,
    stretches=(Stretch(0.0, 40, 1.25, 0.9, 0.85, 0.2, 0.1), Stretch(0.5, 31, 0.8, 0.5, 0.45, 0.1, 0.05)),
)


def card(
    evaluation: Evaluation,
    *,
    config: ModelConfig | None = None,
    num_failed: int = 0,
    calibrated: Calibrated | None = None,
) -> str:
    clip = LabelledClip(Path("a.mp4"), label="grow", group=None, split=None)
    dataset = Dataset(
        clips=(clip,) * 9,
        features=(),
        action_labels=ACTIONS,
        frame_labels=FRAMES,
        background="still",
        failed=(Failed(Path("b.mp4"), EmptyVideo("b.mp4 is empty")),) * num_failed,
    )
    return write_card(
        "toy",
        evaluation,
        measured_on="3 clips held out",
        calibrated=calibrated,
        dataset=dataset,
        config=config or toy_config(),
        settings=FitConfig(seed=5),
    )


@pytest.mark.parametrize(
    "words",
    [
        "# toy\n",
        "A gru of 1 x 16 on frozen timm:test_efficientnet features, 8 frames a second at 32 px",
        "on 9 clips (seed 5)",
        "actions: grow, shrink, turn\n",
        "frame labels: still, moving, gone\n",
        "could not be decoded: 2\n",
        "## Measured: 3 clips held out\n",
    ],
)
def test_a_card_says_what_the_model_is_and_where_its_figures_come_from(words: str) -> None:
    assert words in card(BOTH, num_failed=2)


def test_the_figures_stand_beside_those_of_the_baseline_on_the_same_clips() -> None:
    lines = card(BOTH).splitlines()
    below = lines[lines.index("| model | 7 | 0.875 | 0.250 |") + 1]
    assert re.fullmatch(r"\| .*baseline.* \| 7 \| 0.500 \| 0.250 \|", below)


def test_a_baseline_that_was_not_measured_has_no_row() -> None:
    written = card(BOTH)
    assert "| model | 90 | 0.812 | 0.600 |" in written
    assert len(re.findall("^.*baseline.*$", written, re.MULTILINE)) == 1


def test_what_was_not_measured_has_no_table() -> None:
    assert "|" not in card(Evaluation(clips=None, frames=None))


def test_a_model_without_actions_says_so() -> None:
    assert "* actions: none\n" in card(BOTH, config=toy_config(action_labels=()))


def test_a_calibration_is_shown_with_what_it_does_and_where_that_was_measured() -> None:
    written = card(BOTH, calibrated=CALIBRATED)
    assert "| 0.5 s and more | 31 | 0.80 | 0.500, 0.450 | 0.100, 0.050 |" in written
    assert "Found on 40 clips that the scoring model had not learnt from, and measured on the same" in written
    assert "alibration" not in card(BOTH)


def test_a_lookahead_is_told_in_seconds_and_frames() -> None:
    assert "* lookahead: 0.5 s: a frame is named 4 sampled frames later" in card(
        BOTH, config=toy_config(lookahead_seconds=0.5)
    )
    assert "lookahead" not in card(BOTH)
