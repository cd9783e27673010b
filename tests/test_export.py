"""Labels in the forms of other tools say what was said, as those tools' own readers see it."""

import csv
import html
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pympi.Elan import Eaf
from typer.testing import CliRunner
from webvtt import WebVTT

from serving.batch.rows import Row, answered, columns, of_model
from tests.test_rows import PREDICTION
from training.data.clips import read_clips
from vidseq.cli import app
from vidseq.errors import OptionError
from vidseq.export.forms import FORMS, Form, export
from vidseq.export.labelled import Labelled, read_labelled
from vidseq.export.names import names_of
from vidseq.schemas import Scored, Segment

FIGHT = Scored(label="fight", score=0.9)
HOSTILE = "a --> b & <i>c</i>"
SEGMENTS = (
    Segment(start_seconds=0.0, end_seconds=1.5, label=HOSTILE, score=0.5),
    Segment(start_seconds=1.5, end_seconds=3700.25, label="go", score=0.75),
)
CLIPS = [
    Labelled("videos/a/x.mp4", (FIGHT,), SEGMENTS, 3701.0),
    Labelled("videos/a/x.mkv", (FIGHT,), (), 3.0),
    Labelled("videos/b/é.mp4", (), (), 2.0),
]


def write_rows(folder: Path, suffix: str) -> Path:
    """Two clips with labels and one that failed."""
    rows = [{"path": f"{n}.mp4"} | answered(PREDICTION, frames=False) for n in range(2)]
    failed = {"error_code": "video/empty", "error_detail": "zero bytes"}
    rows.append({"path": "bad.mp4"} | of_model(PREDICTION.model) | failed)
    return written_rows(folder, suffix, rows)


def written_rows(folder: Path, suffix: str, rows: Sequence[Row]) -> Path:
    table = pa.Table.from_pylist(rows, schema=columns(frames=False))
    file = folder / f"scores{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    elif suffix:
        pq.write_table(table, file)
    else:
        file.mkdir()
        pq.write_table(table, file / "part-0.parquet")
    return file


def seen(clips: Sequence[Labelled]) -> list[tuple[str, tuple[Scored, ...], tuple[Segment, ...]]]:
    return [(clip.path, clip.actions, clip.segments) for clip in clips]


# What is read


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ""])
def test_rows_are_read_but_for_those_that_failed(tmp_path: Path, suffix: str) -> None:
    found = list(read_labelled(write_rows(tmp_path, suffix)))
    assert seen(found) == [(f"{n}.mp4", PREDICTION.actions, PREDICTION.segments) for n in range(2)]
    assert {clip.end_seconds for clip in found} == {PREDICTION.segments[0].end_seconds}


def test_a_prediction_is_read_with_the_name_of_its_clip(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(PREDICTION.model_dump_json())
    found = list(read_labelled(tmp_path / "one.json", clip="c.mp4"))
    assert seen(found) == [("c.mp4", PREDICTION.actions, PREDICTION.segments)]
    with pytest.raises(OptionError, match="name it with --clip"):
        list(read_labelled(tmp_path / "one.json"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.parquet", "no table", "is no table"),
        ("a.jsonl", "no JSON", "is not JSON"),
        ("a.json", "5", "neither rows of `vidseq score` nor Predictions"),
        ("a.jsonl", '{"path": "x.mp4", "error_code": null}', "neither rows of `vidseq score` nor Predictions"),
        ("a.json", '{"x": 1}', "neither rows of `vidseq score` nor Predictions"),
        ("a.txt", "", "does not end in"),
    ],
)
def test_what_is_no_result_is_told(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(OptionError, match=sentence):
        list(read_labelled(tmp_path / name, clip="c.mp4"))


# What is written


def test_captions_are_read_back(tmp_path: Path) -> None:
    export(CLIPS, "webvtt", tmp_path)
    captions = WebVTT.read(str(tmp_path / "a/x.mp4.vtt")).captions
    assert [(caption.start, caption.end) for caption in captions] == [
        ("00:00:00.000", "00:00:01.500"),
        ("00:00:01.500", "01:01:40.250"),
    ]
    assert [html.unescape(caption.raw_text) for caption in captions] == [f"{HOSTILE} 0.50", "go 0.75"]
    assert not set("<>") & set(captions[0].raw_text), "no tag, and no arrow that would begin another caption"
    (whole,) = WebVTT.read(str(tmp_path / "a/x.mkv.vtt")).captions
    assert (whole.start, whole.end, whole.text) == ("00:00:00.000", "00:00:03.000", "fight 0.90")
    assert WebVTT.read(str(tmp_path / "b/é.vtt")).captions == []


def test_elan_files_are_read_back(tmp_path: Path) -> None:
    export(CLIPS, "elan", tmp_path)
    eaf = Eaf(str(tmp_path / "a/x.mp4.eaf"))
    assert eaf.get_annotation_data_for_tier("action") == [(0, 3701000, "fight")]
    assert eaf.get_annotation_data_for_tier("segments") == [(0, 1500, HOSTILE), (1500, 3700250, "go")]
    (media,) = eaf.get_linked_files()
    assert media["MEDIA_URL"] == Path(os.path.abspath("videos/a/x.mp4")).as_uri()
    assert Eaf(str(tmp_path / "b/é.eaf")).get_annotation_data_for_tier("segments") == []


def test_fiftyone_finds_each_clip_by_the_name_of_its_labels(tmp_path: Path) -> None:
    """As its importer does: names of data.json without their suffix are those of labels.json."""
    export(CLIPS, "fiftyone", tmp_path)
    data, labels = (json.loads((tmp_path / name).read_text()) for name in ("data.json", "labels.json"))
    paths = {os.path.splitext(name)[0]: path for name, path in data.items()}
    assert paths.keys() == labels["labels"].keys() and set(paths.values()) == {os.path.abspath(c.path) for c in CLIPS}
    said = {paths[name]: spans for name, spans in labels["labels"].items()}
    assert said[os.path.abspath("videos/a/x.mp4")][1] == {
        "label": "go",
        "timestamps": [1.5, 3700.25],
        "confidence": 0.75,
    }


def test_tables_are_what_training_reads(tmp_path: Path) -> None:
    """In the folder that holds the clips, wherever the labels were made from."""
    clips = [replace(clip, path=str(tmp_path / clip.path)) for clip in CLIPS[:2]]
    for clip in clips:
        Path(clip.path).parent.mkdir(parents=True, exist_ok=True)
        Path(clip.path).touch()
    export(clips, "csv", tmp_path)
    folder = read_clips(tmp_path)
    assert [(clip.path.suffix, clip.label, len(clip.segments)) for clip in folder.clips] == [
        (".mp4", "fight", 2),
        (".mkv", "fight", 0),
    ]
    with (tmp_path / "segments.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == [HOSTILE, "go"]


def test_actions_without_segments_are_what_training_reads(tmp_path: Path) -> None:
    export([replace(CLIPS[0], path=str(tmp_path / "x.mp4"))], "csv", tmp_path)
    (tmp_path / "x.mp4").touch()
    export([replace(CLIPS[0], path=str(tmp_path / "x.mp4"), segments=())], "csv", tmp_path, overwrite=True)
    assert [clip.label for clip in read_clips(tmp_path).clips] == ["fight"]
    assert not (tmp_path / "segments.csv").exists()


PATHS = st.lists(st.sampled_from(["a", "b", "..", "x.mp4", "x.mkv", "x", "x-2", ""]), min_size=1, max_size=4)


@given(paths=st.lists(st.tuples(st.sampled_from(["", "/", "s3://", "gs://", "./"]), PATHS), max_size=12))
def test_no_two_clips_have_one_name_and_none_leads_out(paths: list[tuple[str, list[str]]]) -> None:
    names = names_of([start + "/".join(parts) for start, parts in paths])
    assert len(set(names)) == len(names) == len(paths)
    assert not any(name.startswith("/") or ".." in name.split("/") for name in names)


def test_names_of_many_clips_take_no_time() -> None:
    names = names_of([f"clips/{number}.mp4" for number in range(100_000)])
    assert names[:2] == ["0", "1"]


def test_elan_keeps_the_address_of_a_clip_that_lies_elsewhere(tmp_path: Path) -> None:
    export([replace(CLIPS[0], path="s3://bucket/x.mp4")], "elan", tmp_path)
    (media,) = Eaf(str(tmp_path / "x.eaf")).get_linked_files()
    assert media["MEDIA_URL"] == "s3://bucket/x.mp4"


def test_a_moment_is_long_enough_to_be_seen(tmp_path: Path) -> None:
    moment = (Segment(start_seconds=1.0, end_seconds=1.0, label="go", score=1.0),)
    for form in FORMS:
        export([Labelled("x.mp4", (), moment, 2.0)], form, tmp_path)
    (caption,) = WebVTT.read(str(tmp_path / "x.vtt")).captions
    assert (caption.start, caption.end) == ("00:00:01.000", "00:00:01.001")
    assert Eaf(str(tmp_path / "x.eaf")).get_annotation_data_for_tier("segments") == [(1000, 1001, "go")]


@pytest.mark.parametrize("path", ["../../etc/x.mp4", "/etc/../../x.mp4", "s3://bucket/../x.mp4"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    out = tmp_path / "deep" / "out"
    export([Labelled(path, (FIGHT,), (), 1.0), Labelled("y.mp4", (FIGHT,), (), 1.0)], "webvtt", out)
    assert len(list(out.rglob("*.vtt"))) == len(list(tmp_path.rglob("*.vtt"))) == 2


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_already_stays(tmp_path: Path, form: Form) -> None:
    """It may have been made by hand, or corrected."""
    export(CLIPS, form, tmp_path)
    (first, *_) = written = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    first.write_text("by hand")
    with pytest.raises(OptionError, match=r"is there already, and [12] more: --overwrite takes its place"):
        export(CLIPS, form, tmp_path)
    assert first.read_text() == "by hand"
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == written
    export(CLIPS, form, tmp_path, overwrite=True)
    assert first.read_text() != "by hand"


def test_a_table_of_segments_that_nobody_has_replaced_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text("by hand")
    with pytest.raises(OptionError, match=r"segments\.csv' is there already"):
        export([replace(CLIPS[0], segments=())], "csv", tmp_path)
    assert os.listdir(tmp_path) == ["segments.csv"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_of_several_models_one_is_named(tmp_path: Path, suffix: str) -> None:
    """By its name, or its hash where two have one name. Where it failed, nobody else's labels take their place."""
    models = [PREDICTION.model.model_copy(update={"name": name, "sha256": name * 64}) for name in "ab"]
    said = [answered(PREDICTION, frames=False) | of_model(model) for model in models]
    failed = of_model(models[0]) | {"error_code": "video/empty", "error_detail": "zero bytes"}
    rows = [{"path": "x.mp4"} | row for row in said] + [{"path": "y.mp4"} | row for row in (failed, said[1])]
    file = written_rows(tmp_path, suffix, rows)
    with pytest.raises(OptionError, match=r"has labels of a \(a{64}\) and b \(b{64}\): say with --model whose"):
        list(read_labelled(file))
    assert [clip.path for clip in read_labelled(file, model="a")] == ["x.mp4"]
    assert [clip.path for clip in read_labelled(file, model="b" * 64)] == ["x.mp4", "y.mp4"]
    with pytest.raises(OptionError, match=r"not one is 'c'"):
        list(read_labelled(file, model="c"))


@pytest.mark.parametrize("form", FORMS)
def test_the_command_says_what_to_do_next(tmp_path: Path, form: Form) -> None:
    arguments = ["export", str(write_rows(tmp_path, ".parquet")), "--to", form, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and result.output.startswith("2 clips in ")
