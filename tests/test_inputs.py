"""What is scored, and where to: files, folders and globs, and an output that can be written, before any work."""

import os
from pathlib import Path

import pytest

from serving.inputs import check_output, find_clips
from vidseq.errors import OptionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """clips/{b.mp4, a.MKV, notes.csv, .hidden.mp4, deep/er/c.webm, deep/[odd].mp4, .cache/d.mp4}"""
    for name in ("b.mp4", "a.MKV", "notes.csv", ".hidden.mp4", "deep/er/c.webm", "deep/[odd].mp4", ".cache/d.mp4"):
        file = tmp_path / "clips" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "clips"


def found(folder: Path, *inputs: object) -> list[str]:
    return [os.path.relpath(path, folder) for path in find_clips([str(item) for item in inputs])]


def test_a_folder_stands_for_the_videos_in_it_at_any_depth(folder: Path) -> None:
    assert found(folder, folder) == ["a.MKV", "b.mp4", "deep/[odd].mp4", "deep/er/c.webm"]


def test_a_glob_stands_for_every_file_that_it_matches(folder: Path) -> None:
    assert found(folder, folder / "*") == ["a.MKV", "b.mp4", "notes.csv"]
    assert found(folder, folder / "**/*.webm") == ["deep/er/c.webm"]


def test_a_file_stands_for_itself_whatever_its_name(folder: Path) -> None:
    assert found(folder, folder / "deep/[odd].mp4", folder / "notes.csv") == ["deep/[odd].mp4", "notes.csv"]


def test_a_clip_that_is_named_twice_is_scored_once(folder: Path) -> None:
    assert found(folder, folder / "b.mp4", folder / "*.mp4", folder / "deep" / ".." / "b.mp4") == ["b.mp4"]


def test_paths_are_kept_as_they_were_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert find_clips(["*.mp4", "deep"]) == ["b.mp4", "deep/[odd].mp4", "deep/er/c.webm"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("*.avi", "nothing matches"), ("gone.mp4", "nothing matches"), ("empty", "there are no videos in")],
)
def test_an_input_that_stands_for_nothing_is_named(folder: Path, name: str, sentence: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(OptionError, match=sentence) as caught:
        find_clips([str(folder / "b.mp4"), str(folder / name)])
    assert name in str(caught.value)


def test_no_input_at_all_is_an_error() -> None:
    with pytest.raises(OptionError, match="at least one"):
        find_clips([])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("scores.csv", r"must end in \.parquet or \.jsonl"),
        ("missing/scores.parquet", "there is no folder"),
        ("taken.parquet", "is a folder"),
        ("clip.jsonl", "is one of the clips"),
        ("link.jsonl", "is one of the clips"),
    ],
)
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "taken.parquet").mkdir()
    (tmp_path / "clip.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "clip.jsonl")
    with pytest.raises(OptionError, match=sentence):
        check_output(tmp_path / name, suffixes=[".parquet", ".jsonl"], clips=[str(tmp_path / "clip.jsonl")])


def test_an_older_output_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").touch()
    check_output(tmp_path / "scores.parquet", suffixes=[".parquet"], clips=[str(tmp_path / "gone.mp4")])
    assert (tmp_path / "scores.parquet").is_file(), "until the new one is whole"
