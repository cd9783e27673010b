"""A batch job that cannot go on says so in a sentence, and keeps what was done; it does not wait for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy_videos import write_clip

ROOT = Path(__file__).parents[1]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_whose_workers_cannot_go_on_fails_in_a_sentence(tmp_path: Path) -> None:
    clip, outs = write_clip(tmp_path / "clip.mp4", num_frames=10), [tmp_path / "start.jsonl", tmp_path / "write.jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.failing_jobs", str(clip), *map(str, outs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    started, written = done.stdout.splitlines()
    assert started.startswith("start: job/failed: ") and "a model does not fit here" in started, done.stderr
    assert written.startswith("write: job/failed: ") and "a worker cannot go on: " in written, done.stderr
    assert max(len(started), len(written)) < 300
    assert not any(out.exists() for out in outs)
    assert all((tmp_path / f"{out.name}.unfinished" / "job.json").exists() for out in outs)
