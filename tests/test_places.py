"""Where files lie: here and in a bucket the same is read as was written, whole, and removed with all that is in it."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from serving.batch.clips import FILE, NUM_BYTES, PATH
from serving.batch.inputs import find_clips
from serving.batch.outputs import JOB, Output
from serving.batch.places import Place, is_url, plain, without_secrets
from serving.batch.sources import opened
from serving.batch.unfinished import Unfinished
from tests.s3_server import running_s3
from vidseq.errors import EmptyVideo, SourceNotFound, TooManyBytes

TABLE = pa.table({"path": ["a", "b"], "day": ["mo", "tu"]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all: a process has one client for a bucket, and it stays."""
    folder = tmp_path_factory.mktemp("buckets")
    with pytest.MonkeyPatch.context() as patch, running_s3(folder) as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture
def buckets(server: Path) -> Path:
    """clips/{a.mp4, deep/b.mkv, deep/notes.txt} and an empty out, behind S3."""
    for bucket in server.iterdir():
        shutil.rmtree(bucket)
    for name in ("clips/a.mp4", "clips/deep/b.mkv", "clips/deep/notes.txt", "out/.keep"):
        (server / name).parent.mkdir(parents=True, exist_ok=True)
        (server / name).write_bytes(name.encode())
    return server


@pytest.fixture(params=["here", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder that is not there yet."""
    if request.param == "here":
        return Place.of(str(tmp_path / "folder"))
    request.getfixturevalue("buckets")
    return Place.of("s3://out/folder")


def test_what_is_written_is_read_named_and_removed(place: Place) -> None:
    assert place.names() == [] and not place.exists()
    (place / "deep" / "file").write(b"123" * 10_000)
    assert (place / "deep/file").read() == b"123" * 10_000
    assert place.names() == ["deep"] and (place / "deep").names() == ["file"]
    (place / "deep/file").write(b"4")
    assert (place / "deep/file").read() == b"4"
    place.remove()
    assert not (place / "deep/file").exists() and (place / "deep").names() == []


def test_a_job_goes_on_wherever_it_lies(place: Place) -> None:
    Unfinished.beside(place).begin({"top_k": 5}, TABLE, [range(1), range(1, 2)])
    with Unfinished.beside(place).locked():
        Unfinished.beside(place).write_part(1, TABLE.slice(1))
    found = Unfinished.beside(place)
    assert found.begun and found.done() == {1} and found.read_part(1) == TABLE.slice(1)
    found.discard()
    assert not Unfinished.beside(place).begun


def test_a_folder_of_rows_is_written_wherever_it_lies(place: Place) -> None:
    Output("folder", place, suffix="", partition_by="day").write([TABLE], TABLE.schema, {})
    assert place.names() == [JOB, "day=mo", "day=tu"]
    found = ds.dataset(place.path, filesystem=place.files, partitioning="hive").to_table()
    assert found.sort_by("path").to_pylist() == TABLE.to_pylist()


def test_a_file_of_rows_is_written_into_a_bucket(buckets: Path) -> None:
    Output.of("s3://out/scores.parquet").write([TABLE], TABLE.schema, {})
    assert pq.read_table(buckets / "out/scores.parquet") == TABLE


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://clips", ["a.mp4", "deep/b.mkv"]),
        ("s3://clips/deep/", ["deep/b.mkv"]),
        ("s3://clips/*", ["a.mp4"]),
        ("s3://clips/**/*.txt", ["deep/notes.txt"]),
        ("s3://clips/a.mp4", ["a.mp4"]),
        ("s3://clips/gone.mp4", ["gone.mp4"]),
    ],
)
def test_clips_of_a_bucket(buckets: Path, url: str, found: list[str]) -> None:
    clips = find_clips([url])
    assert clips[PATH].to_pylist() == [f"s3://clips/{name}" for name in found]
    sizes = [len(f"clips/{name}") if (buckets / "clips" / name).exists() else None for name in found]
    assert clips[NUM_BYTES].to_pylist() == sizes


def test_a_manifest_of_a_bucket_counts_from_its_folder(buckets: Path) -> None:
    (buckets / "clips/deep/list.csv").write_text("path,camera\nb.mkv,7\ns3://clips/a.mp4,8\n")
    clips = find_clips(["s3://clips/deep/list.csv"])
    assert clips.select([PATH, "camera"]).to_pylist() == [
        {PATH: "s3://clips/a.mp4", "camera": "8"},
        {PATH: "s3://clips/deep/b.mkv", "camera": "7"},
    ]
    assert clips[FILE].to_pylist() == [b"s3://clips/a.mp4", b"s3://clips/deep/b.mkv"]


def test_a_clip_of_a_bucket_is_opened_by_its_bytes(buckets: Path) -> None:
    with opened("s3://clips/a.mp4", max_bytes=100) as (path, sha256):
        assert Path(path).read_bytes() == b"clips/a.mp4"
        assert sha256 == hashlib.sha256(b"clips/a.mp4").hexdigest()
    assert not Path(path).exists()


@pytest.mark.parametrize("name", ["take #1.mp4", "what?.mp4", "100%.mp4", "a+b.mp4", "é.mp4"])
def test_names_of_a_bucket_may_be_odd(buckets: Path, name: str) -> None:
    (buckets / "clips" / "deep" / name).write_bytes(name.encode())
    (path,) = [path for path in find_clips(["s3://clips/deep"])[PATH].to_pylist() if path.endswith(".mp4")]
    assert path == f"s3://clips/deep/{name}"
    with opened(path, max_bytes=100) as (copy, _):
        assert Path(copy).read_bytes() == name.encode()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("s3://clips/gone.mp4", SourceNotFound),
        ("s3://clips/empty.mp4", EmptyVideo),
        ("s3://clips/large.mp4", TooManyBytes),
        ("http://127.0.0.1:9/a.mp4?key=secret", SourceNotFound),  # the discard port, where nobody listens
    ],
)
def test_a_clip_that_cannot_be_had_is_told_without_secrets(buckets: Path, url: str, error: type[Exception]) -> None:
    (buckets / "clips/empty.mp4").touch()
    (buckets / "clips/large.mp4").write_bytes(bytes(101))
    with pytest.raises(error) as caught, opened(url, max_bytes=100):
        pass
    assert "secret" not in str(caught.value)


def test_names_of_places() -> None:
    assert [is_url(name) for name in ("a.mp4", "/a:b", "s3://b/a", "C3PO://a")] == [False, False, True, True]
    assert plain("file:///data/a%20b.mp4") == "/data/a b.mp4"
    assert without_secrets("s3://me:word@bucket?endpoint=x/a.mp4") == "s3://bucket/a.mp4"
    assert without_secrets("s3://me:wo/rd@bucket/a.mp4") == "s3://bucket/a.mp4"
    assert without_secrets("http://me:word@host:8080/a@b.mp4?key=1") == "http://host:8080/a@b.mp4"
    assert without_secrets("http://host:8080/a@b.mp4") == "http://host:8080/a@b.mp4"
