"""What a worker of a batch job makes of faults: the clip's own become a row, the machine's end the job."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from serving.batch.clips import PATH
from serving.batch.inputs import find_clips
from serving.batch.places import Place
from serving.batch.rows import INDEX, Row, answered, columns
from serving.batch.unfinished import Unfinished
from serving.local_ray import local_ray
from tests.test_rows import PREDICTION
from vidseq.config import Limits
from vidseq.errors import SandboxError
from vidseq.features.legs import Leg

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    """Only to be asked for GPUs."""
    with local_ray(num_cpus=1):
        yield


def write_on_a_full_disk() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"features")


@dataclass(frozen=True)
class Copies:
    """A leg is a copy of the clip's bytes; rows of legs are made if each leg is there. `fault` comes before either."""

    fault: Callable[[], None] = lambda: None
    limits: Limits = Limits()
    constants: Sequence[Row] = ({},)
    columns: pa.Schema = field(default_factory=lambda: columns(frames=False))

    def asked(self) -> dict[str, Any]:
        return {}

    def start(self, device: str) -> "Copies":
        return self

    def rows(self, path: str, sha256: str) -> list[Row]:
        self.fault()
        return [answered(PREDICTION, frames=False)]

    def encode_leg(self, path: str, sha256: str, leg: Leg, out: Path) -> None:
        self.fault()
        out.parent.mkdir(exist_ok=True)
        out.write_bytes(Path(path).read_bytes())

    def rows_of_legs(self, legs: Sequence[Path], sha256: str) -> list[Row] | None:
        if not all(leg.exists() for leg in legs):
            return None
        (same,) = {leg.read_bytes() for leg in legs}
        return [answered(PREDICTION, frames=False) | {"action_label": same.decode()}]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    clip = tmp_path / "clip.mp4"
    clip.write_text("old")
    return clip


def working(clip: Path, job: Copies) -> tuple[Unfinished, Callable[..., Row]]:
    """A job of one clip, and its worker, which is told a part of its task."""
    from serving.batch.ray_job import Task, Worker  # bring Ray, once it is told where to listen

    unfinished = Unfinished(Place.of(str(clip.with_name("job"))))
    unfinished.begin({}, find_clips([str(clip)]), [range(1)])
    worker = Worker(unfinished, job, num_threads=1)

    def work(**task: int) -> Row:
        (done,) = worker(pa.Table.from_pylist([asdict(Task(0, **task))])).to_pylist()
        return dict(done)

    return unfinished, work


def raising(error: Exception) -> Callable[[], None]:
    def fault() -> None:
        raise error

    return fault


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (write_on_a_full_disk, "No space left on device"),
        (raising(SandboxError("no process for a decoder can be had")), "no process for a decoder can be had"),
    ],
)
def test_a_fault_of_the_machine_ends_the_job_and_leaves_no_part(
    clip: Path, fault: Callable[[], None], sentence: str
) -> None:
    unfinished, work = working(clip, Copies(fault))
    assert sentence in work()["error"]
    assert unfinished.done() == set()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "a bad sector"), AssertionError("a mistake of ours")])
def test_a_fault_of_the_clip_is_a_row_also_where_the_clip_is_divided(clip: Path, error: Exception) -> None:
    unfinished, work = working(clip, Copies(raising(error)))
    assert [work(**task)["error"] for task in ({"leg": 0, "of": 2}, {"leg": 1, "of": 2}, {"of": 2})] == [None] * 3
    (row,) = unfinished.read_part(0).select([INDEX, PATH, "error_code"]).to_pylist()
    assert row == {INDEX: 0, PATH: str(clip), "error_code": "error/internal"}


def test_legs_of_other_bytes_are_not_joined(clip: Path) -> None:
    """The clip is another one after a kill, when one of its legs was made."""
    unfinished, work = working(clip, Copies())
    work(leg=0, of=2)
    clip.write_text("new")
    work(leg=1, of=2)
    work(of=2)
    assert unfinished.read_part(0)["action_label"].to_pylist() == [PREDICTION.action.label]
    work(leg=0, of=2)
    work(of=2)
    assert unfinished.read_part(0)["action_label"].to_pylist() == ["new"]


def test_a_clip_that_is_written_to_meanwhile_has_no_label(clip: Path) -> None:
    """Its hash would be that of bytes which nobody has looked at."""

    def write() -> None:
        with clip.open("a") as file:
            file.write("more")
        os.utime(clip, (1, 1))

    unfinished, work = working(clip, Copies(write))
    assert work()["error"] is None
    (row,) = unfinished.read_part(0).to_pylist()
    assert row["error_code"] == "source/lost" and "was written to" in row["error_detail"]
