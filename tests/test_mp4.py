"""vidseq.mp4: what the index of an MP4 says, and whether all of it was read."""

from pathlib import Path

import pytest

from tests.hostile_encrypted import SAMPLE_ENTRY, box, insert
from tests.toy_videos import in_memory, overwrite, write_clip, write_sound
from vidseq.config import Picture
from vidseq.errors import UndecodableVideo
from vidseq.mp4 import Index, read_index
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader

ENTRIES = SAMPLE_ENTRY[:-1]  # the path to the list of what samples may be


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=40).read_bytes()


def index(data: bytes) -> Index:
    with in_memory(data) as fd:
        return read_index(fd)


def test_an_index_is_read_to_its_end(clip: bytes, tmp_path: Path) -> None:
    assert index(clip) == Index(True, True, (b"vide",), encrypted=False, duration_seconds=4.0)
    assert index(write_sound(tmp_path / "sound.mp4").read_bytes()).handlers == (b"soun",)


def test_a_few_bytes_behind_the_last_box_of_a_folder_are_no_box(clip: bytes) -> None:
    for path in (ENTRIES[:1], ENTRIES[:2], ENTRIES[:5]):
        assert index(insert(clip, path, bytes(4))) == index(clip)


def test_what_a_track_may_be_in_the_second_place_counts_too(clip: bytes) -> None:
    assert not index(clip).encrypted
    assert index(insert(clip, ENTRIES, box(b"encv", bytes(78)))).encrypted


@pytest.mark.parametrize("kind", [b"tkhd", b"mdia", b"hdlr", b"stbl", b"stsd"])
@pytest.mark.parametrize("size", [2, 7, 1 << 20, (1 << 32) - 1])
def test_a_box_that_is_smaller_than_its_head_or_larger_than_its_folder_ends_the_reading(
    kind: bytes, size: int, clip: bytes
) -> None:
    assert not index(overwrite(clip, clip.index(kind) - 4, size.to_bytes(4, "big"))).whole


def test_a_box_that_ends_behind_its_folder_hides_nothing(clip: bytes) -> None:
    """A decoder stops at the folder's end and reads on there: another track, which is encrypted."""
    track = clip.index(b"trak") - 4
    edits = clip.index(b"edts") - 4
    size = int.from_bytes(clip[edits : edits + 4], "big")
    assert not index(overwrite(clip, edits, (size + len(clip) - track).to_bytes(4, "big"))).whole


def test_of_too_many_boxes_or_entries_the_rest_is_not_known(clip: bytes) -> None:
    moov = clip.index(b"moov") - 4
    assert index(clip[:moov] + box(b"free", b"") * 1_000 + clip[moov:]).whole
    assert not index(clip[:moov] + box(b"free", b"") * 10_001 + clip[moov:]).whole
    assert not index(insert(clip, ENTRIES, box(b"avc1", bytes(78)) * 101)).whole


def test_what_the_decoder_reads_and_we_do_not_is_refused(clip: bytes, sandbox: Sandbox) -> None:
    moov = clip.index(b"moov") - 4
    many = clip[:moov] + box(b"free", b"") * 10_001 + clip[moov:]
    with pytest.raises(UndecodableVideo, match="the header is damaged"):
        Reader(many, picture=Picture(size=32), sandbox=sandbox).__enter__()
