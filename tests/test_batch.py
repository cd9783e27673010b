"""Batch scoring as real Ray Data jobs: a row for every input, whatever happens to its clip or to its worker."""

import io
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from serving.batch import ScoreSummary, score
from serving.local_ray import local_ray
from serving.rows import LOST, Row
from tests.running import VIDSEQ, alive, descendants, listeners
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip, write_sound
from vidseq.classifier import Classifier
from vidseq.errors import CheckpointError, OptionError, VideoError

cluster = pytest.mark.cluster
WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Scored:
    """A finished job: its rows, what was returned and what was shown."""

    rows: list[Row]
    summary: ScoreSummary
    shown: str


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of several lengths and names, a cut one, and five files that get no label."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        write_clip(folder / f"clip {number}.mp4", num_frames=5 + 15 * number, first_number=100 * number)
    (folder / "clip 0.mp4").rename(folder / os.fsdecode(b"caf\xe9\n.mp4"))  # Latin-1, and two lines
    (folder / "more").mkdir()
    whole = write_clip(folder / "more" / "clip.mkv", num_frames=200).read_bytes()
    (folder / "more" / "cut.mkv").write_bytes(whole[: len(whole) * 3 // 4])
    (folder / "more" / "stump.mkv").write_bytes(whole[: len(whole) // 4])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    write_sound(folder / "sound.mp4")
    (folder / "gone.mp4").symlink_to("nowhere")
    return folder


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for all jobs of this file."""
    with local_ray(num_cpus=2):
        yield


def run(model: Path, inputs: list[str], out: Path, **options: bool | int) -> Scored:
    shown = io.StringIO()
    summary = score(model, inputs, out, console=Console(file=shown, width=100), **options)
    lines = out.read_text().splitlines() if out.suffix == ".jsonl" else []
    rows = [json.loads(line) for line in lines] or pq.read_table(out).to_pylist()
    return Scored(rows, summary, shown.getvalue())


@pytest.fixture(scope="module")
def scored(model: Path, clips: Path, ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Two workers, every column."""
    out = tmp_path_factory.mktemp("out") / "scores.parquet"
    return run(model, [f"{clips}/**/*.m??"], out, num_workers=2, frames=True)


def in_process(classifier: Classifier, file: bytes | str) -> tuple[str | None, list[float]]:
    """The error's code, or the scores of actions and frames."""
    try:
        prediction = classifier.classify(os.fsdecode(file))
    except VideoError as error:
        return error.code, []
    except Exception as error:
        return getattr(error, "code", None), []
    return None, [scored.score for scored in (*prediction.top, *prediction.frames)]


@cluster
def test_every_input_has_a_row_in_the_order_of_the_paths(scored: Scored, clips: Path) -> None:
    files = sorted(str(file) for file in clips.rglob("*.m??"))
    assert [row["path"] for row in scored.rows] == [file.encode("utf-8", "backslashreplace").decode() for file in files]
    assert len(files) == 13


@cluster
def test_every_row_says_what_the_classifier_says_in_this_process(scored: Scored, model: Path, clips: Path) -> None:
    classifier = Classifier.load(model)
    for row, file in zip(scored.rows, sorted(str(file) for file in clips.rglob("*.m??")), strict=True):
        code, scores = in_process(classifier, file)
        found = [answer["score"] for column in ("top", "frames") for answer in row[column] or []]
        assert row["error_code"] == code
        assert found == pytest.approx(scores, abs=1e-5)
        assert row["model_sha256"] == classifier.info.sha256


@cluster
def test_a_file_that_is_no_video_has_a_row_with_the_reason_and_no_label(scored: Scored) -> None:
    reasons = {Path(row["path"]).name: row["error_code"] for row in scored.rows if row["error_code"]}
    assert reasons == {
        "empty.mp4": "video/empty",
        "text.mp4": "video/unsupported-container",
        "sound.mp4": "video/no-video-stream",
        "gone.mp4": "source/not-found",
        "stump.mkv": "video/truncated",
    }
    assert all(row["action_label"] is None and row["top"] is None for row in scored.rows if row["error_code"])


@cluster
def test_a_clip_that_is_cut_short_has_labels_and_says_so(scored: Scored) -> None:
    (row,) = [row for row in scored.rows if row["path"].endswith("cut.mkv")]
    assert row["action_label"] is not None and not row["video_complete"]
    assert len(row["frames"]) == row["sampled_num_frames"] > 0


@cluster
def test_the_count_at_the_end_adds_up_and_the_failures_are_listed(scored: Scored) -> None:
    summary = scored.summary
    assert (summary.num_in, summary.num_ok, summary.num_failed) == (13, 8, 5)
    assert "in 13 = ok 8 + failed 5" in scored.shown
    assert all(code in scored.shown for code in summary.failures)


@cluster
def test_json_lines_say_the_same_as_parquet(scored: Scored, model: Path, clips: Path, tmp_path: Path) -> None:
    other = run(model, [f"{clips}/**/*.m??"], tmp_path / "scores.jsonl", num_workers=2, frames=True)
    for row, expected in zip(other.rows, scored.rows, strict=True):
        assert list(row) == list(expected)
        stable = [name for name in row if not name.startswith("timings_")]
        assert [row[name] for name in stable] == [expected[name] for name in stable]


@cluster
def test_a_ray_that_is_there_is_used_and_left_alone(ray_here: None) -> None:
    import ray

    with local_ray(num_cpus=1):
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()


@contextmanager
def killing_workers(*, at_most: int) -> Iterator[list[int]]:
    """Workers are killed while they score, one after the other; yields those that were."""
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.01) and len(killed) < at_most:
            for pid in descendants(os.getpid()) - set(killed):
                with suppress(FileNotFoundError, ProcessLookupError):
                    title = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if b"MapWorker" in title and b".submit" in title and len(killed) < at_most:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes a worker some seconds, also to be found while it is read."""
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", num_frames=12000, frames_per_second=8)


@cluster
def test_clips_that_are_lost_with_their_worker_are_scored_by_another(
    model: Path, clips: Path, long_clip: Path, ray_here: None, tmp_path: Path
) -> None:
    with killing_workers(at_most=1) as killed:
        done = run(model, [str(long_clip), f"{clips}/clip*.mp4"], tmp_path / "scores.parquet", num_workers=1)
    assert len(killed) == 1
    assert (done.summary.num_in, done.summary.num_ok) == (6, 6)
    assert all(row["action_label"] for row in done.rows)


@cluster
def test_a_clip_that_kills_every_worker_has_a_row_that_says_so(
    model: Path, long_clip: Path, ray_here: None, tmp_path: Path
) -> None:
    with killing_workers(at_most=2) as killed:
        done = run(model, [str(long_clip)], tmp_path / "scores.parquet", num_workers=1)
    assert len(killed) == 2
    assert done.summary.failures == {LOST: 1}
    assert (done.rows[0]["path"], done.rows[0]["action_label"]) == (str(long_clip), None)


@cluster
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_leaves_nothing_behind(
    model: Path, long_clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """No half file, no process, no temporary file; and while it ran, nothing listened to other machines."""
    out = tmp_path / "scores.parquet"
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        command = [str(VIDSEQ), "score", str(model), str(long_clip), "--out", str(out)]
        process = subprocess.Popen(command, env={**os.environ, "TMPDIR": temporary}, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + WAIT_SECONDS
        while not list(tmp_path.glob(".scores.parquet-*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        tree = {process.pid, *descendants(process.pid)}
        heard = {address for _, address in listeners(tree)}
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) != 0
        assert heard == {ip_address("127.0.0.1")}
        assert [pid for pid in tree if alive(pid)] == []
        assert os.listdir(tmp_path) == os.listdir(temporary) == []


@pytest.mark.parametrize(
    ("options", "sentence"), [({"num_workers": 0}, "number of workers is 0"), ({"top_k": 0}, "top_k is 0")]
)
def test_a_number_that_cannot_be_is_refused_before_any_work(
    model: Path, clips: Path, tmp_path: Path, options: dict[str, int], sentence: str
) -> None:
    with pytest.raises(OptionError, match=sentence):
        run(model, [str(clips)], tmp_path / "scores.parquet", **options)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_no_model_is_refused_before_any_work(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a model"):
        run(clips, [str(clips)], tmp_path / "scores.parquet")
    assert os.listdir(tmp_path) == []
