"""What a job has done is kept by shard, and one process at a time works on it."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from serving.batch.clips import FILE, NUM_BYTES, addresses, own_columns
from serving.batch.manifests import manifest_hash
from serving.batch.places import Place
from serving.batch.unfinished import Unfinished
from vidseq.errors import OptionError

CLIPS = pa.table({"index": list(range(10)), "path": [f"{n}.mp4" for n in range(10)]})
SHARDS = [range(0, 4), range(4, 5), range(5, 10)]


@pytest.fixture
def unfinished(tmp_path: Path) -> Unfinished:
    found = Unfinished.beside(Place.of(str(tmp_path / "scores.parquet")))
    found.begin({"top_k": 5}, CLIPS, SHARDS)
    return found


def again(unfinished: Unfinished) -> Unfinished:
    """As another process finds it."""
    return Unfinished(unfinished.place)


def test_a_job_is_found_as_it_was_begun(unfinished: Unfinished) -> None:
    found = again(unfinished)
    assert found.begun and found.job() == {"top_k": 5}
    assert found.shards() == SHARDS
    assert [found.clips(shard)["path"].to_pylist() for shard in range(3)] == [
        [f"{n}.mp4" for n in shard] for shard in SHARDS
    ]
    assert found.column("index") == list(range(10))


def test_clips_may_be_had_from_elsewhere_later_on(tmp_path: Path) -> None:
    """Signed URLs: what is shown of them stays, and where one name stands for two, so do both."""
    name = "https://host/{}.mp4?signature={}"
    before = own_columns([(name.format(path, "old"), 7) for path in "abc"])
    twice = own_columns([("https://host/x?id=1", None), ("https://host/x?id=2", None)])
    unfinished = Unfinished.beside(Place.of(str(tmp_path / "scores.parquet")))
    unfinished.begin({}, pa.concat_tables([before, twice]), [range(2), range(2, 5)])
    now = own_columns([(name.format(path, "new"), None) for path in "acd"])
    unfinished.renew(addresses(pa.concat_tables([now, twice])))
    found = again(unfinished)
    files = [file.decode().removeprefix("https://host/") for file in found.column(FILE)]
    assert files == ["a.mp4?signature=new", "b.mp4?signature=old", "c.mp4?signature=new", "x?id=1", "x?id=2"]
    assert (found.shards(), found.column(NUM_BYTES)) == ([range(2), range(2, 5)], [7, 7, 7, None, None])
    assert unfinished.column(FILE) == found.column(FILE)


def test_a_manifest_is_the_same_with_other_signatures_and_another_with_another_column(tmp_path: Path) -> None:
    def hashed(content: str) -> str:
        path = tmp_path / "list.csv"
        path.write_text(content)
        return manifest_hash(str(path))

    row = "https://host/a.mp4?signature="
    assert hashed(f"path,camera\n{row}1,7\n") == hashed(f"path,camera\n{row}2,7\n")
    others = [f"path,camera\n{row}1,8\n", f"path,lens\n{row}1,7\n", "path,camera\nhttps://host/b.mp4,7\n"]
    assert len({hashed(content) for content in [f"path,camera\n{row}1,7\n", *others]}) == 4


def test_a_part_is_found_once_it_was_written(unfinished: Unfinished) -> None:
    assert unfinished.done() == set()
    for shard in (2, 0):
        unfinished.write_part(shard, CLIPS.slice(shard, 1))
    assert again(unfinished).done() == {0, 2}
    assert again(unfinished).read_part(2) == CLIPS.slice(2, 1)


def test_what_a_kill_left_of_a_part_is_no_part(unfinished: Unfinished) -> None:
    unfinished.write_part(0, CLIPS)
    scratch = Path(unfinished.place.path) / "parts" / ".000001.parquet-x"
    scratch.mkdir()
    (scratch / "000001.parquet").write_bytes(b"half")
    assert unfinished.done() == {0}


def test_a_job_that_begins_anew_has_done_nothing(unfinished: Unfinished) -> None:
    unfinished.write_part(0, CLIPS)
    fresh = again(unfinished)
    fresh.begin({}, CLIPS, [range(10)])
    assert (fresh.done(), fresh.num_shards) == (set(), 1)


def test_two_processes_do_not_work_on_one_job(unfinished: Unfinished) -> None:
    with (
        unfinished.locked(),
        pytest.raises(OptionError, match="another process is at work"),
        again(unfinished).locked(),
    ):
        pass
    with again(unfinished).locked():
        pass


def test_nothing_is_left_of_a_job_that_was_never_begun_or_is_discarded(tmp_path: Path) -> None:
    job = Unfinished.beside(Place.of(str(tmp_path / "scores")))
    with job.locked():
        pass
    assert os.listdir(tmp_path) == []
    with job.locked():
        job.begin({}, CLIPS, SHARDS)
        job.discard()
    assert os.listdir(tmp_path) == []
