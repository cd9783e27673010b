"""The rows of a batch job, and the two kinds of file that they are written to."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.batch.places import Place
from serving.batch.rows import INDEX, Row, answered, as_text, columns, failed, of_model, to_table
from serving.batch.sink import FORMATS, open_sink
from vidseq.errors import EmptyVideo, TooManyFrames
from vidseq.schemas import (
    EarlyExited,
    FrameLabel,
    ModelInfo,
    Prediction,
    Sampled,
    Scored,
    Segment,
    Timings,
    VideoReport,
)

EVERY_FORMAT = pytest.mark.parametrize("suffix", sorted(FORMATS))
MODEL = ModelInfo(name="toy", version="1", sha256="0" * 64, action_labels=("run", "sit"), frame_labels=("up",))
PREDICTION = Prediction(
    action=Scored(label="run", score=0.75),
    actions=(Scored(label="run", score=0.75),),
    top=(Scored(label="run", score=0.75), Scored(label="sit", score=0.25)),
    frames=(FrameLabel(seconds=0.0, label="up", score=1.0),),
    segments=(Segment(start_seconds=0.0, end_seconds=0.125, label="up", score=1.0),),
    sampled=Sampled(num_frames=1, frames_per_second=None, start_seconds=0.0, end_seconds=0.0),
    video=VideoReport(
        width=96,
        height=64,
        codec="h264",
        container="mp4",
        duration_seconds=None,
        frames_declared=None,
        frames_decoded=1,
        complete=True,
        warnings=("odd",),
    ),
    model=MODEL,
    timings=Timings(decode_ms=1.0, encode_ms=2.0, recur_ms=3.0, queued_ms=4.0, total_ms=10.0),
    early_exit=EarlyExited(seconds=0.0, score=0.9),
)


def leaves(answer: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a Prediction under the name of its column."""
    for name, value in answer.items():
        yield from leaves(value, f"{name}_") if isinstance(value, dict) else [(prefix + name, value)]


def test_every_field_of_a_prediction_has_a_column_of_its_name() -> None:
    (row,) = to_table(
        [{INDEX: 0, "path": "a.mp4"} | answered(PREDICTION, frames=True)], columns(frames=True)
    ).to_pylist()
    of_the_model = {"action_labels", "several", "frame_labels"}  # what is the same in every row
    expected = dict(leaves(PREDICTION.model_dump(mode="json", exclude={"model": of_the_model})))
    nothing_went_wrong = {"error_code": None, "error_detail": None}
    expected["clip_sha256"] = None  # the worker's to say
    assert row == {INDEX: 0, "path": "a.mp4"} | expected | nothing_went_wrong


def test_a_failed_clip_has_the_same_columns_and_no_answer() -> None:
    ok = {INDEX: 0, "path": "a.mp4"} | answered(PREDICTION, frames=False)
    bad = {INDEX: 1, "path": "b.mp4"} | (of_model(MODEL) | failed(EmptyVideo("the video has zero bytes")))
    table = to_table([ok, bad], columns(frames=False))
    (_, row) = table.to_pylist()
    said = {name: value for name, value in row.items() if value is not None}
    assert said == {
        INDEX: 1,
        "path": "b.mp4",
        "model_name": "toy",
        "model_version": "1",
        "model_sha256": "0" * 64,
        "error_code": "video/empty",
        "error_detail": "the video has zero bytes",
    }
    assert table.schema.remove(0) == columns(frames=False)


def test_the_labels_of_frames_are_a_column_only_when_asked_for() -> None:
    assert set(columns(frames=True).names) - set(columns(frames=False).names) == {"frames"}


def test_an_error_of_the_clip_keeps_its_code_and_its_sentence() -> None:
    row = of_model(MODEL) | failed(TooManyFrames(51, 50))
    assert (row["error_code"], row["error_detail"]) == (
        "video/too-many-frames",
        "the video has 51 frames; at most 50 are allowed",
    )


def test_an_error_of_ours_is_told_with_its_class() -> None:
    row = of_model(MODEL) | failed(ZeroDivisionError("division by zero"))
    assert (row["error_code"], row["error_detail"]) == ("error/internal", "ZeroDivisionError: division by zero")


def test_a_name_that_is_no_unicode_can_be_written() -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    table = to_table(
        [{INDEX: 0, "path": as_text(name)} | (of_model(MODEL) | failed(ValueError(name)))], columns(frames=False)
    )
    assert table["path"].to_pylist() == ["caf\\udce9.mp4"]


def rows(numbers: range) -> pa.Table:
    return to_table([{INDEX: n, "path": f"{n}.mp4"} for n in numbers], columns(frames=False)).drop_columns(INDEX)


def read(file: Path) -> list[Row]:
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    found: list[Row] = pq.read_table(file).to_pylist()
    return found


@EVERY_FORMAT
def test_tables_are_written_one_after_the_other(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"scores{suffix}"
    with open_sink(Place.of(str(out)), columns(frames=False)) as sink:
        for first in (0, 3, 6):
            sink.write(rows(range(first, first + 3)))
    assert read(out) == rows(range(9)).to_pylist()
    assert os.listdir(tmp_path) == [out.name]


@EVERY_FORMAT
def test_an_unknown_action_is_null_beside_its_candidates_and_names_keep_their_slashes(
    tmp_path: Path, suffix: str
) -> None:
    top = (Scored(label="sport/tennis/serve", score=0.4), Scored(label="sport/tennis", score=0.35))
    unknown = PREDICTION.model_copy(update={"action": None, "actions": (), "top": top})
    several = PREDICTION.model_copy(update={"action": top[0], "actions": top, "top": top})
    table = to_table(
        [{INDEX: 0, "path": "a"} | answered(one, frames=False) for one in (unknown, several)], columns(frames=False)
    )
    out = tmp_path / f"scores{suffix}"
    with open_sink(Place.of(str(out)), columns(frames=False)) as sink:
        sink.write(table.drop_columns(INDEX))
    first, second = read(out)
    assert (first["action_label"], first["action_score"], first["actions"]) == (None, None, [])
    assert [one["label"] for one in first["top"]] == ["sport/tennis/serve", "sport/tennis"]
    assert second["action_label"] == "sport/tennis/serve" and second["actions"] == second["top"]


@EVERY_FORMAT
def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"scores{suffix}"
    out.write_text("older")
    with open_sink(Place.of(str(out)), columns(frames=False)) as sink:
        sink.write(rows(range(5000)))
        assert out.read_text() == "older"
    assert len(read(out)) == 5000


@EVERY_FORMAT
def test_a_job_that_fails_leaves_no_half_file(tmp_path: Path, suffix: str) -> None:
    def interrupted() -> None:
        with open_sink(Place.of(f"{tmp_path}/scores{suffix}"), columns(frames=False)) as sink:
            sink.write(rows(range(5000)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


@EVERY_FORMAT
def test_the_file_can_be_read_by_whom_the_umask_allows(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "like").touch()
    out = tmp_path / f"scores{suffix}"
    with open_sink(Place.of(str(out)), columns(frames=False)) as sink:
        sink.write(rows(range(1)))
    assert out.stat().st_mode == (tmp_path / "like").stat().st_mode


def test_parquet_gathers_small_tables_into_groups(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    with open_sink(Place.of(str(out)), columns(frames=False)) as sink:
        for number in range(5000):
            sink.write(rows(range(number, number + 1)))
    assert pq.ParquetFile(out).metadata.num_row_groups == 2


def test_a_number_that_is_none_is_null_in_json(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    with open_sink(Place.of(str(out)), columns(frames=False)) as sink:
        sink.write(to_table([{INDEX: 0, "action_score": math.nan}], columns(frames=False)).drop_columns(INDEX))
    assert "NaN" not in out.read_text()
    assert read(out)[0]["action_score"] is None
