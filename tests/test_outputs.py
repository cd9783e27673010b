"""Where rows go: a file or a folder of Parquet, each refused before any work where it could not be written."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from serving.batch.outputs import JOB, Output
from vidseq.errors import OptionError

SCHEMA = pa.schema({"path": pa.string(), "day": pa.string()})


def table(*days: str) -> pa.Table:
    return pa.table({"path": [f"{number}.mp4" for number in range(len(days))], "day": list(days)}, schema=SCHEMA)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("scores.csv", r"must end in \.parquet or \.jsonl"),
        ("missing/scores.parquet", "there is no folder"),
        ("missing/scores", "there is no folder"),
        ("taken.parquet", "is a folder"),
        ("file", "is a file"),
        ("full", "holds other things"),
    ],
)
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "taken.parquet").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(OptionError, match=sentence):
        Output.of(str(tmp_path / name))


@pytest.mark.parametrize("name", ["clip.jsonl", "link.jsonl"])
def test_an_output_that_is_one_of_the_clips_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "clip.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "clip.jsonl")
    with pytest.raises(OptionError, match="is one of the inputs"):
        Output.of(str(tmp_path / name)).refuse_inputs([str(tmp_path / "gone.mp4"), str(tmp_path / "clip.jsonl")])


def test_one_file_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is to be one file"):
        Output.of(str(tmp_path / "scores.parquet"), partition_by="day")


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").touch()
    output = Output.of(str(tmp_path / "scores.parquet"))
    output.refuse_inputs([str(tmp_path / "gone.mp4")])
    assert (tmp_path / "scores.parquet").is_file()


def test_a_folder_holds_the_rows_in_their_order_and_says_of_what_job(tmp_path: Path) -> None:
    out = tmp_path / "scores"
    Output.of(f"{out}/").write([table("a"), table("b", "c")], SCHEMA, {"top_k": 5})
    assert ds.dataset(out).to_table().to_pylist() == [*table("a").to_pylist(), *table("b", "c").to_pylist()]
    assert json.loads((out / JOB).read_text()) == {"complete": True, "top_k": 5}


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    out = tmp_path / "scores"
    for days in (("a", "b"), ("c",)):
        Output.of(str(out), partition_by="day").write([table(*days)], SCHEMA, {})
    assert sorted(os.listdir(out)) == [JOB, "day=c"]


def test_a_folder_whose_writing_was_broken_off_is_written_again(tmp_path: Path) -> None:
    """As a kill leaves it."""
    out = tmp_path / "scores"

    def broken_off() -> Iterator[pa.Table]:
        yield table("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Output.of(str(out)).write(broken_off(), SCHEMA, {})
    assert json.loads((out / JOB).read_text()) == {"complete": False}
    Output.of(str(out)).write([table("b")], SCHEMA, {})
    assert ds.dataset(out).to_table().to_pylist() == table("b").to_pylist()
    assert sorted(os.listdir(out)) == [JOB, "part-0.parquet"]


def test_what_somebody_put_beside_the_rows_stays(tmp_path: Path) -> None:
    out = tmp_path / "scores"
    Output.of(str(out)).write([table("a")], SCHEMA, {})
    (out / "notes.txt").touch()
    Output.of(str(out)).write([table("b")], SCHEMA, {})
    assert sorted(os.listdir(out)) == [JOB, "notes.txt", "part-0.parquet"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([["a"]], "holds list"),
        ([None], "holds null"),
        ([b"\xff"], "holds binary"),
        (["x" * 252], "too long to name a folder: 'xxx"),
        (["日" * 28], "too long to name a folder: '日"),  # each becomes %E6%97%A5
    ],
)
def test_a_column_that_names_no_folders_is_refused(tmp_path: Path, values: list[object], sentence: str) -> None:
    column = pa.chunked_array([pa.array(values)])
    with pytest.raises(OptionError, match=sentence):
        Output.of(str(tmp_path / "scores"), partition_by="day").refuse_partition(column.type, column)


def test_the_longest_name_of_a_folder_is_one(tmp_path: Path) -> None:
    values = ["x" * 251, "日" * 27, "/" * 83]
    column = pa.chunked_array([pa.array(values)])
    output = Output.of(str(tmp_path / "scores"), partition_by="day")
    output.refuse_partition(column.type, column)
    output.write([table(*values)], SCHEMA, {})
    found = ds.dataset(tmp_path / "scores", partitioning="hive").to_table()
    assert sorted(found["day"].to_pylist()) == sorted(values)


def test_bytes_of_a_manifest_are_base64_in_lines_of_json(tmp_path: Path) -> None:
    rows = pa.table({"path": ["a.mp4"], "thumbnail": [b"\xff\x00"]})
    Output.of(str(tmp_path / "scores.jsonl")).write([rows], rows.schema, {})
    assert json.loads((tmp_path / "scores.jsonl").read_text()) == {"path": "a.mp4", "thumbnail": "_wA="}


def test_a_divided_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    out = tmp_path / "scores"
    Output.of(str(out), partition_by="day").write([table("mo", "tu", "mo")], SCHEMA, {})
    found = ds.dataset(out, partitioning="hive").to_table().sort_by("path")
    assert found.select(SCHEMA.names).to_pylist() == table("mo", "tu", "mo").to_pylist()
