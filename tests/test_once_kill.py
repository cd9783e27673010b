"""A replica that is killed while it executes requests costs them a moment; none is answered twice, or wrongly."""

from pathlib import Path

import pytest

from benchmarks.once import measured


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_request_has_one_answer_when_replicas_are_killed(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/vidseq.db"
    found = measured(tmp_path, url, num_requests=40, num_replicas=2, num_kills=2)
    assert (found.num_answered, found.num_killed) == (40, 2)
    assert (found.num_visible_twice, found.num_wrong) == (0, 0)
    assert 40 <= found.num_executions < 80
