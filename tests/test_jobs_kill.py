"""A replica and a dispatcher that are killed cost jobs a moment; none is lost, doubled or wrong."""

from pathlib import Path

import pytest

from benchmarks.jobs import measured


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_job_has_one_result_and_its_webhook_hears_of_it_when_workers_are_killed(tmp_path: Path) -> None:
    found = measured(tmp_path, f"sqlite://{tmp_path}/vidseq.db", num_jobs=40, num_replicas=2, num_kills=2)
    assert (found.num_acknowledged, found.num_lost, found.num_doubled, found.num_wrong) == (40, 0, 0, 0)
    assert (found.num_untold, found.num_unsigned) == (0, 0)
    assert 40 <= found.num_executions < 80
