"""When two predictions say the same."""

import pytest

from vidseq.schemas import Prediction

SCORE = {"score"}
EACH_SCORE = {"__all__": SCORE}
LISTS = ("actions", "top", "frames", "segments")
MAY_DIFFER = {"timings": True, "action": SCORE, **dict.fromkeys(LISTS, EACH_SCORE)}


def assert_same(answers: list[Prediction], expected: list[Prediction]) -> None:
    """Scores within 1e-5, all else equal, but for the time it took."""
    for answer, right in zip(answers, expected, strict=True):
        assert answer.model_dump(exclude=MAY_DIFFER) == right.model_dump(exclude=MAY_DIFFER)
        assert scores(answer) == pytest.approx(scores(right), abs=1e-5)


def scores(prediction: Prediction) -> list[float]:
    return [scored.score for name in LISTS for scored in getattr(prediction, name)]
