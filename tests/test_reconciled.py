"""A job whose rows are not those of its clips fails and writes nothing. All parts are there: no worker is needed."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from serving.batch.feature_job import FeatureJob
from serving.batch.inputs import find_clips
from serving.batch.outputs import Output
from serving.batch.rows import INDEX, feature_columns, to_table
from serving.batch.run import Batch, NotReconciled
from serving.batch.unfinished import Unfinished
from tests.toy_models import toy_checkpoint, toy_config
from vidseq.config import Limits
from vidseq.features.extract import Look


@pytest.fixture
def job(tmp_path: Path) -> FeatureJob:
    model = toy_checkpoint(tmp_path / "toy")
    return FeatureJob(Look.of(toy_config()), model, None, tmp_path / "store", None, Limits())


def finished(job: FeatureJob, tmp_path: Path, indices: list[int]) -> Batch:
    """Two clips in one shard, and rows with these indices."""
    clips = [tmp_path / f"{number}.mp4" for number in range(2)]
    for clip in clips:
        clip.touch()
    inputs = [str(clip) for clip in clips]
    output = Output.of(str(tmp_path / "rows.parquet"))
    asked: dict[str, Any] = {"inputs": inputs, "manifests": {}, "partition_by": None, **job.asked()}
    unfinished = Unfinished.beside(output.place)
    unfinished.begin(asked, find_clips(inputs), [range(2)])
    rows: list[dict[str, Any]] = [{INDEX: index, "path": f"{index}.mp4"} for index in indices]
    part: pa.Table = to_table(rows, feature_columns())
    unfinished.write_part(0, part)
    return Batch(inputs, output, output.place, resume=True, num_workers=1)


def test_rows_that_are_those_of_the_clips_are_written(job: FeatureJob, tmp_path: Path) -> None:
    summary = finished(job, tmp_path, [0, 1]).run(job, title="encoding", console=Console(file=io.StringIO()))
    assert (summary.num_in, summary.num_ok) == (2, 2) and (tmp_path / "rows.parquet").is_file()


@pytest.mark.parametrize(
    "indices", [[0], [0, 0], [0, 1, 1], [1, 0]], ids=["lost", "lost and doubled", "doubled", "mixed"]
)
def test_rows_that_are_not_are_not_written(job: FeatureJob, tmp_path: Path, indices: list[int]) -> None:
    batch = finished(job, tmp_path, indices)
    with pytest.raises(NotReconciled):
        batch.run(job, title="encoding", console=Console(file=io.StringIO()))
    assert not (tmp_path / "rows.parquet").exists()
