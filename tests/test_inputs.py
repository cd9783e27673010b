"""What is scored: files, folders, globs and manifests, here and behind URLs, before any work."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from serving.batch.clips import FILE, NUM_BYTES, PATH, extras
from serving.batch.inputs import find_clips
from tests.web_folder import serving_folder
from vidseq.errors import OptionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """clips/{b.mp4, a.MKV, notes.txt, .hidden.mp4, deep/er/c.webm, deep/[odd].mp4, .cache/d.mp4}"""
    for name in ("b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "deep/er/c.webm", "deep/[odd].mp4", ".cache/d.mp4"):
        file = tmp_path / "clips" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "clips"


def make_deep(folder: Path) -> None:
    """A path longer than a system call takes, made step by step."""
    here = os.open("/", os.O_RDONLY)
    try:
        for name in folder.parts[1:]:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=here)
            deeper = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)


def paths(inputs: list[str]) -> list[str]:
    shown: list[str] = find_clips(inputs)[PATH].to_pylist()
    return shown


def found(folder: Path, *inputs: object) -> list[str]:
    return [os.path.relpath(path, folder) for path in paths([str(item) for item in inputs])]


def test_a_folder_stands_for_the_videos_in_it_at_any_depth(folder: Path) -> None:
    assert found(folder, folder) == ["a.MKV", "b.mp4", "deep/[odd].mp4", "deep/er/c.webm"]


def test_a_folder_that_is_a_link_is_looked_into_once(folder: Path, tmp_path: Path) -> None:
    """As by a glob; also one that leads back to where it lies."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "e.mp4").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "deep" / "round").symlink_to(folder)
    assert found(folder, folder) == ["a.MKV", "b.mp4", "deep/[odd].mp4", "deep/er/c.webm", "link/e.mp4"]


def test_a_folder_that_cannot_be_looked_into_is_told(folder: Path) -> None:
    """Its clips would be missing, and nobody would know."""
    (folder / "gone").symlink_to(folder / "nowhere")
    assert len(found(folder, folder)) == 4, "a link to nothing is no folder"
    deep = folder / Path(*["x" * 250] * 20)
    make_deep(deep)
    with pytest.raises(OptionError, match="cannot be looked into: File name too long"):
        find_clips([str(folder)])


def test_a_glob_stands_for_every_file_that_it_matches(folder: Path) -> None:
    assert found(folder, folder / "*") == ["a.MKV", "b.mp4", "notes.txt"]
    assert found(folder, folder / "**/*.webm") == ["deep/er/c.webm"]


def test_a_file_stands_for_itself_whatever_its_name(folder: Path) -> None:
    assert found(folder, folder / "deep/[odd].mp4", folder / "notes.txt") == ["deep/[odd].mp4", "notes.txt"]


def test_a_clip_that_is_named_twice_is_scored_once(folder: Path) -> None:
    assert found(folder, folder / "b.mp4", folder / "*.mp4", folder / "deep" / ".." / "b.mp4") == ["b.mp4"]


def test_paths_are_kept_as_they_were_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert paths(["*.mp4", "deep"]) == ["b.mp4", "deep/[odd].mp4", "deep/er/c.webm"]


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


# Sizes


def test_sizes_are_told_and_a_file_that_is_not_there_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"123")
    (tmp_path / "b.mp4").symlink_to("nowhere")
    assert find_clips([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")])[NUM_BYTES].to_pylist() == [3, None]


# Manifests


def write_manifest(file: Path, columns: dict[str, list[object]]) -> str:
    table = pa.table(columns)
    if file.suffix == ".csv":
        pa.csv.write_csv(table, file)
    elif file.suffix == ".parquet":
        pq.write_table(table, file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return str(file)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_manifest_counts_from_its_folder_and_its_other_columns_stay(folder: Path, suffix: str) -> None:
    columns: dict[str, list[object]] = {"camera": [7, 8], "path": ["b.mp4", "deep/er/c.webm"], "site": ["x", "y"]}
    clips = find_clips([write_manifest(folder / f"list{suffix}", columns)])
    assert clips[PATH].to_pylist() == [str(folder / "b.mp4"), str(folder / "deep/er/c.webm")]
    assert extras(clips.column_names) == ["camera", "site"]
    cameras = ["7", "8"] if suffix == ".csv" else [7, 8]
    assert (clips["camera"].to_pylist(), clips["site"].to_pylist()) == (cameras, ["x", "y"])


def test_a_path_of_digits_stays_a_path(folder: Path) -> None:
    (folder / "007").touch()
    (folder / "list.csv").write_text("path\n007\n")
    assert found(folder, folder / "list.csv") == ["007"]


def test_a_manifest_may_name_files_anywhere(folder: Path, tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"path": [str(folder / "b.mp4"), "http://h/a.mp4?key=1"]}
    clips = find_clips([write_manifest(tmp_path / "list.parquet", columns)])
    assert clips[PATH].to_pylist() == [str(folder / "b.mp4"), "http://h/a.mp4"]
    assert clips[FILE].to_pylist() == [str(folder / "b.mp4").encode(), b"http://h/a.mp4?key=1"]


def test_what_a_csv_holds_stays_as_it_was_written(folder: Path) -> None:
    (folder / "list.csv").write_text("path,id,note\nb.mp4,007,NA\na.MKV,99999999999999999999,\n")
    clips = find_clips([str(folder / "list.csv")])
    assert clips.select(["id", "note"]).to_pylist() == [
        {"id": "99999999999999999999", "note": ""},
        {"id": "007", "note": "NA"},
    ]


@pytest.mark.parametrize("folder_first", [True, False])
def test_a_manifest_s_row_goes_before_that_of_a_folder(folder: Path, folder_first: bool) -> None:
    manifest = write_manifest(folder.parent / "list.parquet", {"path": [str(folder / "b.mp4")], "camera": [7]})
    clips = find_clips([str(folder), manifest] if folder_first else [manifest, str(folder)])
    assert clips["camera"].to_pylist() == [None, 7, None, None]


def test_two_manifests_do_not_name_one_clip(folder: Path) -> None:
    manifests = [write_manifest(folder / f"{n}.parquet", {"path": ["b.mp4"], "camera": [n]}) for n in range(2)]
    with pytest.raises(OptionError, match=r"two manifests name '.*b\.mp4'"):
        find_clips(manifests)


def test_manifests_that_do_not_agree_are_told(folder: Path) -> None:
    columns: list[dict[str, list[object]]] = [{"path": ["b.mp4"], "x": [1]}, {"path": ["a.MKV"], "x": ["one"]}]
    manifests = [write_manifest(folder / f"{n}.parquet", each) for n, each in enumerate(columns)]
    with pytest.raises(OptionError, match="cannot be kept together"):
        find_clips(manifests)


def test_a_zero_byte_in_a_path_is_a_clip_that_is_not_there(folder: Path) -> None:
    assert find_clips([write_manifest(folder / "l.parquet", {"path": ["a\0b.mp4"]})])[NUM_BYTES].to_pylist() == [None]


def test_clips_beside_a_manifest_have_nothing_in_its_columns(folder: Path) -> None:
    manifest = write_manifest(folder / "list.parquet", {"path": ["b.mp4"], "camera": [7]})
    clips = find_clips([manifest, str(folder / "deep")])
    assert clips["camera"].to_pylist() == [7, None, None]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"file": ["b.mp4"]}, "has no column 'path', but file"),
        ({"path": ["b.mp4"], "error_code": ["x"]}, "'error_code', which is one of the output's own"),
        ({"path": ["b.mp4", ""]}, "names no path in row 2"),
        ({"path": ["b.mp4", "deep/../b.mp4"]}, r"names 'deep/\.\./b\.mp4' twice"),
        ({"path": []}, "names no clip"),
        ({"path": ["b.mp4"], "__file__": ["x"]}, "'__file__', which is one of the output's own"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_told_with_what_is_wrong(
    folder: Path, columns: dict[str, list[object]], sentence: str
) -> None:
    with pytest.raises(OptionError, match=f"list.parquet' {sentence}|list.parquet' .*{sentence}"):
        find_clips([write_manifest(folder / "list.parquet", columns)])


def test_text_that_looks_like_a_date_stays_text(folder: Path) -> None:
    (folder / "list.jsonl").write_text('{"path": "b.mp4", "day": "2026-11-27"}\n\n{"path": "a.MKV", "n": 7}\n')
    clips = find_clips([str(folder / "list.jsonl")])
    assert (clips["day"].to_pylist(), clips["n"].to_pylist()) == ([None, "2026-11-27"], [7, None])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('{"path": "b.mp4"}\n[1]\n', "line 2 is no object"),
        ('{"path": "b.mp4"', "Expecting"),
        ('{"path": "b.mp4", "n": 1}\n{"path": "a.MKV", "n": "x"}', "Could not convert 'x'"),
        ('{"path": "b.mp4", "n": 123456789012345678901234567890}', "too large"),
    ],
)
def test_lines_that_are_no_rows_are_told(folder: Path, lines: str, sentence: str) -> None:
    (folder / "list.jsonl").write_text(lines)
    with pytest.raises(OptionError, match=f"list.jsonl' cannot be read: .*{sentence}"):
        find_clips([str(folder / "list.jsonl")])


@pytest.mark.parametrize("name", ["list.parquet", "list.csv", "gone.jsonl"])
def test_a_manifest_that_cannot_be_read_is_told(folder: Path, name: str) -> None:
    for damaged in ("list.parquet", "list.csv"):
        (folder / damaged).write_bytes(b"")
    with pytest.raises(OptionError, match=f"manifest '.*{name}' cannot be read"):
        find_clips([str(folder / name)])


# Behind URLs


@pytest.fixture
def site(folder: Path) -> Iterator[str]:
    with serving_folder(folder) as url:
        yield url


def test_a_url_stands_for_a_file(site: str, folder: Path) -> None:
    (folder / "b.mp4").write_bytes(b"12345")
    clips = find_clips([f"{site}/b.mp4?token=secret"])
    assert clips[PATH].to_pylist() == [f"{site}/b.mp4"]
    assert clips[FILE].to_pylist() == [f"{site}/b.mp4?token=secret".encode()]
    assert clips[NUM_BYTES].to_pylist() == [5]


def test_a_glob_behind_a_url_stands_for_what_it_matches(site: str) -> None:
    assert paths([f"{site}/*.mp4"]) == [f"{site}/b.mp4"]


def test_a_url_behind_which_nothing_is_stays_a_clip(site: str) -> None:
    assert paths([f"{site}/gone.mp4"]) == [f"{site}/gone.mp4"]


def test_a_server_that_refuses_is_told_without_the_secret() -> None:
    with refusing_server() as url, pytest.raises(OptionError) as caught:
        find_clips([f"{url}/list.csv?signature=SECRET"])
    assert "SECRET" not in str(caught.value) and "403" in str(caught.value)


@contextmanager
def refusing_server() -> Iterator[str]:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_url_that_nobody_here_knows_is_told() -> None:
    with pytest.raises(OptionError, match=r"'gopher://h/a\.mp4' cannot be used"):
        find_clips(["gopher://user:word@h/a.mp4"])
