"""A batch job that cannot go on says so in a sentence, and keeps what was done; it does not wait for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy_videos import write_clip

ROOT = Path(__file__).parents[1]


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "words"), [("start", "a model does not fit here"), ("write", "a worker cannot go on: ")]
)
def test_a_job_whose_workers_cannot_go_on_fails_in_a_sentence(tmp_path: Path, where: str, words: str) -> None:
    clip, out = write_clip(tmp_path / "clip.mp4", num_frames=10), tmp_path / "rows.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "tests.failing_jobs", where, str(clip), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("job/failed: ")]
    assert words in said and len(said) < 300, done.stdout + done.stderr
    assert not out.exists() and (tmp_path / "rows.jsonl.unfinished" / "job.json").exists()
