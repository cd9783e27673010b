"""When two predictions say the same."""

import pytest

from vidseq.schemas import Prediction

SCORE = {"score"}
EACH_SCORE = {"__all__": SCORE}
MAY_DIFFER = {"timings": True, "action": SCORE, "top": EACH_SCORE, "frames": EACH_SCORE, "segments": EACH_SCORE}


def assert_same(answers: list[Prediction], expected: list[Prediction]) -> None:
    """Scores within 1e-5, all else equal, but for the time it took."""
    for answer, right in zip(answers, expected, strict=True):
        assert answer.model_dump(exclude=MAY_DIFFER) == right.model_dump(exclude=MAY_DIFFER)
        assert scores(answer) == pytest.approx(scores(right), abs=1e-5)


def scores(prediction: Prediction) -> list[float]:
    return [scored.score for scored in (*prediction.top, *prediction.frames, *prediction.segments)]
