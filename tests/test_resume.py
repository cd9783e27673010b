"""Training that is killed for good, with SIGKILL, and begun again: the weights are those of a run left alone."""

import pytest

from benchmarks.resume import killed_runs


@pytest.mark.slow
def test_killed_processes_resume_to_the_same_weights() -> None:
    trials = killed_runs(3, seed=1)
    assert [trial.equal for trial in trials] == [True] * 3
