"""card.md says what a model is and what was measured, and leaves out what was not."""

import re
from typing import Any

import pytest

from tests.test_report import CLIPS, EVALUATION, HEALTH, findings
from tests.toy_models import toy_config
from training.measure.calibration import Calibrated, Stretch
from training.measure.figures import Evaluation
from training.measure.gradient_health import Fade
from training.report.card import write_card
from vidseq.config import Calibration

CALIBRATED = Calibrated(
    Calibration(elapsed_seconds=(0.0, 0.5), temperatures=(1.25, 0.8)),
    num_clips=40,
    stretches=(Stretch(0.0, 40, 1.25, 0.9, 0.85, 0.2, 0.1), Stretch(0.5, 31, 0.8, 0.5, 0.45, 0.1, 0.05)),
)


def card(**changes: Any) -> str:
    return write_card(findings(**changes))


@pytest.mark.parametrize(
    "words",
    [
        "# toy\n",
        "A recurrence (gru, 1 x 16) on timm:test_efficientnet features, 8 frames a second at 32 px.",
        "on 90 clips (seed 5)",
        "* actions: grow, shrink, turn\n",
        "* frame labels: still, moving, gone\n",
        "could not be decoded: 1\n",
        "## Measured: 27 clips held out\n",
        "* Does it beat a mean of the frames? Of clips, +0.070 in accuracy",
        "* Does it use time? Clips: shuffling the frames costs 0.078.\n",
        "* Can its scores be believed? Scores are off by 0.060 on average",
        "* 'turn' has only 1 group(s)\n",
        "* the gradient 64 steps back (8 s) is 2e-10 of that 1 step back",
    ],
)
def test_a_card_says_what_the_model_is_what_it_is_worth_and_what_to_doubt(words: str) -> None:
    assert words in card()


def test_the_figures_stand_beside_those_of_the_baselines_on_the_same_clips() -> None:
    lines = card().splitlines()
    model = lines.index("| model | 27 | 0.778 [0.63, 0.90] | 0.771 |")
    assert lines[model + 1].startswith("| mean pool | 27 | 0.778 ")
    assert lines[model + 2].startswith("| frame alone | 27 | 0.778 ")


def test_a_baseline_that_was_not_measured_has_no_row() -> None:
    without = EVALUATION.model_copy(
        update={"frames": None, "clips": EVALUATION.clips.model_copy(update={"baseline": None})}
    )
    assert not re.search("^. mean pool", card(evaluation=without), re.MULTILINE)
    assert re.search("^. frame alone", card(evaluation=without), re.MULTILINE)


def test_what_was_not_measured_is_not_spoken_of() -> None:
    healthy = HEALTH.model_copy(update={"after": Fade(gradient_norm_LK=((1.0,) * 64,))})
    little = card(evaluation=Evaluation(clips=None, frames=None), gradient=healthy, problems=())
    assert "|" not in little
    assert little.endswith("## Measured: 27 clips held out\n")


def test_a_model_without_actions_says_so() -> None:
    assert "* actions: none\n" in card(config=toy_config(action_labels=()))


def test_a_calibration_is_shown_with_what_it_does_and_where_that_was_measured() -> None:
    written = card(calibrated=CALIBRATED)
    assert "| 0.5 s and more | 31 | 0.80 | 0.500, 0.450 | 0.100, 0.050 |" in written
    assert "Found on 40 clips that the scoring model had not learnt from, and measured on the same" in written
    assert "## Calibration" not in card()


def test_a_lookahead_is_told_in_seconds_and_frames() -> None:
    assert "* lookahead: 0.5 s: a frame is named 4 sampled frames later" in card(
        config=toy_config(lookahead_seconds=0.5)
    )
    assert "lookahead" not in card()


def test_from_which_score_on_an_action_is_named_is_told_where_it_is_not_simply_the_best() -> None:
    assert "called unknown" not in card()
    assert "* an action whose score lies below 0.62 is called unknown\n" in card(config=toy_config(unknown_below=0.62))
    several = card(config=toy_config(several=True, thresholds=(0.3, 0.5, 0.85)))
    assert "each is named from its score on: grow 0.30, shrink 0.50, turn 0.85\n" in several
    assert "It says any of 3 actions for a clip" in several


def test_figures_of_several_labels_fit_the_same_table() -> None:
    several = CLIPS.model_copy(update={"top5": None, "mean_average_precision": 0.7, "confusion": ()})
    evaluation = EVALUATION.model_copy(update={"clips": EVALUATION.clips.model_copy(update=dict(several))})
    assert "| model | 27 | 0.778 [0.63, 0.90] | 0.771 |" in card(evaluation=evaluation)
