"""Batch scoring as real Ray Data jobs: a row for every input, whatever happens to its clip or to its worker."""

import io
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from serving.batch.features import make_features
from serving.batch.places import Place
from serving.batch.rows import LOST, Row
from serving.batch.run import Summary
from serving.batch.score import score
from serving.batch.unfinished import SUFFIX, Unfinished
from serving.local_ray import local_ray
from tests.running import VIDSEQ, alive, descendants, listeners
from tests.s3_server import running_s3
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip, write_sound
from tests.web_folder import serving_folder
from vidseq.classifier import Classifier
from vidseq.errors import CheckpointError, OptionError, VideoError

cluster = pytest.mark.cluster
WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class Scored:
    """A finished job: its rows, what was returned and what was shown."""

    rows: list[Row]
    summary: Summary
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


def run(model: Path, inputs: list[str], out: Path, **options: Any) -> Scored:
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


@contextmanager
def job_process(
    model: Path, inputs: list[object], out: object, *options: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`vidseq score` in a process of its own, killed if it still runs; no process and no temporary file outlives it."""
    with tempfile.TemporaryDirectory(prefix="t-") as temporary:
        command = [str(VIDSEQ), "score", str(model), *map(str, inputs), "--out", str(out), *options]
        variables = {**os.environ, **(environment or {}), "TMPDIR": temporary}
        process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            tree = descendants(process.pid)
            process.kill()
            process.wait()
        deadline = time.monotonic() + WAIT_SECONDS
        while process.returncode == -signal.SIGKILL and (os.listdir(temporary) or any(map(alive, tree))):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert os.listdir(temporary) == []


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def works(process: subprocess.Popen[bytes]) -> bool:
    """Whether a worker is there."""
    found = False
    for pid in descendants(process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            found = found or b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


@cluster
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_leaves_nothing_behind_but_what_it_goes_on_with(
    model: Path, long_clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """No half file, no process, no temporary file; and while it ran, nothing listened to other machines.

    Who is impatient and asks again, while it is being ended, changes nothing.
    """
    out = tmp_path / "scores.parquet"
    with job_process(model, [long_clip], out) as process:
        wait_for(process, lambda: works(process))
        tree = {process.pid, *descendants(process.pid)}
        heard = {listener.address for listener in listeners(tree)}
        process.send_signal(number)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == 128 + number
        assert heard == {ip_address("127.0.0.1")}
        assert [pid for pid in tree if alive(pid)] == []
        assert os.listdir(tmp_path) == [f"{out.name}{SUFFIX}"]


@cluster
@pytest.mark.slow
def test_a_killed_job_goes_on_and_scores_no_part_again(
    model: Path, clips: Path, long_clip: Path, tmp_path: Path, ray_here: None
) -> None:
    """The long clip is worked on first, by one of two workers; when the job is killed, some of the others are done."""
    out, inputs = tmp_path / "scores.parquet", [long_clip, clips]
    unfinished = Unfinished.beside(Place.of(str(out)))
    with job_process(model, inputs, out, "--workers", "2") as process:
        wait_for(process, lambda: len(unfinished.done()) >= 3)
    done = unfinished.done()
    before = {row["path"]: row for shard in done for row in unfinished.read_part(shard).to_pylist()}
    with pytest.raises(OptionError, match="go on with --resume"):
        run(model, [str(item) for item in inputs], out, num_workers=2)
    with pytest.raises(OptionError, match="of another job: top_k was 5, and is 2"):
        run(model, [str(item) for item in inputs], out, num_workers=2, resume=True, top_k=2)
    finished = run(model, [str(item) for item in inputs], out, num_workers=2, resume=True)
    assert len({row["path"] for row in finished.rows}) == len(finished.rows) == finished.summary.num_in == 14
    again = [row["path"] for row in finished.rows if row["path"] in before and not is_same(row, before[row["path"]])]
    assert again == [] and 3 <= len(before) < 14
    assert os.listdir(tmp_path) == [out.name]


def is_same(row: Row, other: Row) -> bool:
    """The very row, not one that says the same: how long each step took says which."""
    return all(row[name] == other[name] for name in row)


@cluster
def test_a_manifest_s_columns_are_carried_through_into_a_divided_folder(
    model: Path, clips: Path, ray_here: None, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(
        f"path,day,camera\n{clips}/clip 1.mp4,mo,7\n{clips}/gone.mp4,tu,8\n{clips}/clip 2.mp4,mo,9\n"
    )
    out = tmp_path / "scores"
    score(
        model, [str(tmp_path / "list.csv")], out, num_workers=1, partition_by="day", console=Console(file=io.StringIO())
    )
    rows = ds.dataset(out, partitioning="hive").to_table().sort_by("path").to_pylist()
    assert [(row["day"], row["camera"], row["error_code"]) for row in rows] == [
        ("mo", "7", None),
        ("mo", "9", None),
        ("tu", "8", "source/not-found"),
    ]
    assert rows[0]["clip_sha256"] == sha256((clips / "clip 1.mp4").read_bytes()).hexdigest()


@cluster
def test_labels_from_stored_features_are_those_of_the_videos_and_the_videos_are_not_decoded_again(
    model: Path, clips: Path, scored: Scored, ray_here: None, tmp_path: Path
) -> None:
    store, table, quiet = tmp_path / "store", tmp_path / "encoded.parquet", Console(file=io.StringIO())
    inputs = [f"{clips}/**/*.m??"]
    encoded = make_features(model, inputs, store, table=str(table), num_workers=1, console=quiet)
    assert (encoded.num_in, encoded.failures) == (scored.summary.num_in, scored.summary.failures)
    rows = pq.read_table(table).to_pylist()
    assert [row["sampled_num_frames"] for row in rows] == [row["sampled_num_frames"] for row in scored.rows]
    kept = {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")}
    found = run(model, inputs, tmp_path / "scores.parquet", num_workers=1, frames=True, features=store)
    for row, expected in zip(found.rows, scored.rows, strict=True):
        for name in row.keys() - {"action_score", "actions", "top", "segments", "frames", "error_detail"}:
            assert name.startswith("timings_") or row[name] == expected[name], (row["path"], name)
        assert [each["label"] for each in row["frames"] or []] == [each["label"] for each in expected["frames"] or []]
        assert row["timings_encode_ms"] in (0.0, None)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")} == kept
    assert len(kept) == encoded.num_ok + 1, "of the stump, too: how much of it must be seen is asked of each reader"


@cluster
def test_a_clip_whose_features_are_not_there_is_decoded_and_they_are_kept(
    model: Path, clips: Path, ray_here: None, tmp_path: Path
) -> None:
    for _ in range(2):
        done = run(model, [f"{clips}/clip 1.mp4"], tmp_path / "s.parquet", num_workers=1, features=tmp_path / "store")
        assert done.summary.num_ok == 1 and len(list((tmp_path / "store").rglob("*.safetensors"))) == 1


@pytest.fixture(scope="module")
def large_clip(long_clip: Path) -> Path:
    """The long one with a box that nobody reads, so that it is worth two legs."""
    file = long_clip.with_name("large.mp4")
    size = 72 * 2**20
    with file.open("wb") as copy:
        copy.write(long_clip.read_bytes())
        copy.write(size.to_bytes(4, "big") + b"free")
        copy.truncate(copy.tell() + size - 8)
    return file


@cluster
def test_a_long_clip_is_encoded_in_legs_side_by_side_and_labelled_as_one(
    model: Path, large_clip: Path, clips: Path, ray_here: None, tmp_path: Path
) -> None:
    inputs = [str(large_clip), f"{clips}/clip 1.mp4"]
    done = run(model, inputs, tmp_path / "scores.parquet", num_workers=2, frames=True)
    (row,) = [row for row in done.rows if row["path"] == str(large_clip)]
    code, scores = in_process(Classifier.load(model), str(large_clip))
    assert (row["error_code"], code) == (None, None)
    assert [each["score"] for column in ("top", "frames") for each in row[column]] == pytest.approx(scores, abs=1e-5)
    assert row["timings_decode_ms"] == 0.0, "whoever labelled it did not decode it"
    assert os.listdir(tmp_path) == ["scores.parquet"]


@cluster
def test_a_long_clip_one_of_whose_legs_dies_with_its_worker_is_worked_on_once_more_alone(
    model: Path, large_clip: Path, ray_here: None, tmp_path: Path
) -> None:
    with killing_workers(at_most=1) as killed:
        done = run(model, [str(large_clip)], tmp_path / "scores.parquet", num_workers=2)
    assert len(killed) == 1 and (done.summary.num_in, done.summary.num_ok) == (1, 1)
    assert done.rows[0]["timings_decode_ms"] > 0


@cluster
def test_several_models_have_a_row_each_for_every_clip(
    model: Path, clips: Path, ray_here: None, tmp_path: Path
) -> None:
    other = toy_checkpoint(tmp_path / "other", cell="lstm")
    (tmp_path / "list.csv").write_text(f"path,camera\n{clips}/clip 1.mp4,7\n{clips}/empty.mp4,8\n")
    done = run(model, [str(tmp_path / "list.csv")], tmp_path / "scores.parquet", num_workers=1, also=[other])
    assert [(row["camera"], row["model_name"], row["error_code"]) for row in done.rows] == [
        ("7", "toy", None),
        ("7", "other", None),
        ("8", "toy", "video/empty"),
        ("8", "other", "video/empty"),
    ]
    assert (done.summary.num_in, done.summary.num_ok, done.summary.num_failed) == (4, 2, 2)


@cluster
@pytest.mark.slow
def test_a_bucket_is_scored_into_a_bucket(model: Path, clips: Path, scored: Scored, tmp_path: Path) -> None:
    (tmp_path / "buckets" / "out").mkdir(parents=True)
    (tmp_path / "buckets" / "clips").symlink_to(clips)
    with (
        running_s3(tmp_path / "buckets") as environment,
        job_process(model, ["s3://clips/clip*.mp4"], "s3://out/scores", environment=environment) as process,
    ):
        assert process.wait(WAIT_SECONDS) == 0
    rows = ds.dataset(tmp_path / "buckets" / "out" / "scores").to_table().to_pylist()
    expected = [row for row in scored.rows if Path(row["path"]).name.startswith("clip ") and row["error_code"] is None]
    assert [row["path"] for row in rows] == [f"s3://clips/{Path(row['path']).name}" for row in expected]
    assert [row["clip_sha256"] for row in rows] == [row["clip_sha256"] for row in expected]
    assert os.listdir(tmp_path / "buckets" / "out") == ["scores"]


@cluster
def test_clips_behind_a_url_say_what_files_say(
    model: Path, clips: Path, scored: Scored, ray_here: None, tmp_path: Path
) -> None:
    with serving_folder(clips) as url:
        inputs = [f"{url}/clip%201.mp4?key=secret", f"{url}/empty.mp4", f"{url}/gone.mp4"]
        found = run(model, inputs, tmp_path / "scores.jsonl", num_workers=1)
    (expected,) = [row for row in scored.rows if row["path"].endswith("clip 1.mp4")]
    assert [row["path"] for row in found.rows] == [
        f"{url}/{name}" for name in ("clip%201.mp4", "empty.mp4", "gone.mp4")
    ]
    assert [row["error_code"] for row in found.rows] == [None, "video/empty", "source/not-found"]
    assert found.rows[0]["action_score"] == pytest.approx(expected["action_score"], abs=1e-5)
    assert found.rows[0]["clip_sha256"] == expected["clip_sha256"]


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
