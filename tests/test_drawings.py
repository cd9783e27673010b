"""Curves that stand in a page of either colour, or in a file of their own."""

import re
from xml.etree import ElementTree

import pytest

from training.loop.progress import Epoch
from training.measure.figures import Band, Reliability, ReliabilityBin
from training.measure.gradient_health import Fade
from training.report.drawings import as_file, gradients, learning_curves, reliability

HALVED = Fade(gradient_norm_LK=(tuple(0.5**back for back in range(40)),))
HISTORY = [Epoch(number, 1 / number, 2 / number, min(number, 3), 0.5, 0.1, 1e-3) for number in range(1, 6)]
BINS = (
    ReliabilityBin(low=0.0, high=0.5, num=0, mean_score=None, share_right=None),
    ReliabilityBin(low=0.5, high=1.0, num=9, mean_score=0.8, share_right=0.7),
)
UNSURE = Reliability(nll=0.9, brier=0.4, ece=0.1, band=Band(low=0.02, mean=0.05, high=0.09), bins=BINS)


def drawings() -> list[str]:
    return [
        gradients({"elman": HALVED}, frames_per_second=8.0),
        learning_curves({"gru": HISTORY, "mean-pool": [Epoch(1, 1.0, None, 1, 0.5, 0.0, 1e-3)]}),
        reliability({"before": UNSURE}),
    ]


def texts(drawing: str) -> set[str]:
    return set(re.findall(r">([^<>]+)</text>", drawing))


def test_a_drawing_takes_the_colour_and_the_font_of_its_page_and_names_no_address() -> None:
    for drawing in drawings():
        assert drawing.startswith("<svg viewBox=") and drawing.rstrip().endswith("</svg>")
        assert "currentColor" in drawing and "#010203" not in drawing
        assert not re.search(r"font-family|//|<style|\dpt\b", drawing)


def test_the_same_numbers_make_the_same_drawing() -> None:
    assert drawings() == drawings()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, {"steps back (sampled frames)", "seconds back", "elman"}),
        (1, {"loss", "gru, learnt from", "gru, held out", "mean-pool, learnt from"}),
        (2, {"share right", "before: ECE 0.100"}),
    ],
)
def test_axes_and_curves_are_named_in_text(number: int, words: set[str]) -> None:
    assert words <= texts(drawings()[number])


def test_without_clips_held_out_there_is_no_curve_of_theirs() -> None:
    assert "mean-pool, held out" not in texts(drawings()[1])


def test_a_gradient_that_ends_in_nothing_can_be_drawn() -> None:
    assert "gone" in texts(gradients({"gone": Fade(gradient_norm_LK=((1.0, 0.0, 0.0),))}))


def test_a_drawing_in_a_file_of_its_own_is_sound_xml() -> None:
    root = ElementTree.fromstring(as_file(drawings()[0]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
