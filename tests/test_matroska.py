"""vidseq.matroska: what the head of a Matroska says of its tracks, whole or as it arrives."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.hostile_encrypted import SEGMENT, TRACKS, element, encrypted_mkv, place_of
from tests.toy_videos import in_memory, write_clip, write_sound
from vidseq.config import Picture
from vidseq.errors import UndecodableVideo, VideoError
from vidseq.incoming import Incoming
from vidseq.matroska import Tracks, TracksSearch, read_tracks
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader, Verdict

CLUSTER = b"\x1f\x43\xb6\x75"
WHOLE = Tracks(whole=True, encrypted=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mkv", num_frames=40).read_bytes()


def tracks(data: bytes) -> Tracks:
    with in_memory(data) as fd:
        return read_tracks(fd)


def decode(source: bytes | Incoming, sandbox: Sandbox) -> int:
    with Reader(source, picture=Picture(size=32), sandbox=sandbox) as reader:
        return len(list(reader.frames(lambda seconds: Verdict.TAKE)))


@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm"])
def test_a_head_is_read_whole(name: str, tmp_path: Path) -> None:
    codec = {"clip.mkv": "libx264", "clip.webm": "libvpx"}[name]
    assert tracks(write_clip(tmp_path / name, codec=codec).read_bytes()) == WHOLE


def test_a_head_without_pictures_is_whole(tmp_path: Path) -> None:
    assert tracks(write_sound(tmp_path / "sound.mkv").read_bytes()) == WHOLE


def test_a_file_that_was_never_finished_has_a_head(clip: bytes) -> None:
    segment = place_of(clip, SEGMENT)
    assert tracks(clip[: segment + 4] + b"\x01" + b"\xff" * 7 + clip[segment + 12 :]) == WHOLE


def test_what_is_encrypted_says_so(clip: bytes) -> None:
    assert tracks(encrypted_mkv(clip)) == Tracks(whole=True, encrypted=True)


def test_a_second_list_of_tracks_is_read_too(clip: bytes) -> None:
    encrypted = encrypted_mkv(clip)
    start = place_of(encrypted, TRACKS)
    second = encrypted[start : encrypted.index(CLUSTER)]
    assert tracks(clip[: clip.index(CLUSTER)] + second + clip[clip.index(CLUSTER) :]).encrypted


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_a_head_that_is_cut_short_is_not_whole(share: float, clip: bytes) -> None:
    head = clip[: clip.index(CLUSTER)]
    assert not tracks(head[: int(len(head) * share)]).whole


@pytest.mark.parametrize("size", [b"\xff", b"\x01" + b"\xff" * 6 + b"\xfe"])
def test_tracks_of_a_size_that_makes_no_sense_are_not_whole(size: bytes, clip: bytes) -> None:
    start = place_of(clip, TRACKS) + 4
    length = 9 - clip[start].bit_length()
    assert not tracks(clip[:start] + size + clip[start + length :]).whole


def test_more_elements_than_anybody_needs_are_not_read(clip: bytes) -> None:
    start = place_of(clip, TRACKS)
    many = element(0xEC, b"") * 10_001
    assert not tracks(clip[:start] + many + clip[start:]).whole


def test_what_the_decoder_reads_and_we_do_not_is_refused(clip: bytes, sandbox: Sandbox) -> None:
    start = place_of(clip, TRACKS)
    with pytest.raises(UndecodableVideo, match="the header is damaged"):
        decode(clip[:start] + element(0xEC, b"") * 10_001 + clip[start:], sandbox)


def test_the_end_of_a_head_is_found_as_it_arrives(clip: bytes) -> None:
    found = []
    with in_memory(b"") as fd:
        search = TracksSearch(fd)
        for start in range(0, len(clip), 10):
            os.write(fd, clip[start : start + 10])
            found.append(search.at_end())
    first = found.index(False)
    assert found == [None] * first + [False] * (len(found) - first)
    assert clip.index(CLUSTER) <= 10 * (first + 1) <= clip.index(CLUSTER) + 30


async def receive(data: bytes, sandbox: Sandbox) -> int:
    with Incoming(max_bytes=1 << 24) as incoming:
        answer = asyncio.create_task(asyncio.to_thread(decode, incoming, sandbox))
        for start in range(0, len(data), 100):
            if not await incoming.feed(data[start : start + 100]):
                break
        incoming.finish()
        return await answer


def test_what_arrives_is_decoded_if_it_is_not_encrypted(clip: bytes, sandbox: Sandbox) -> None:
    assert asyncio.run(receive(clip, sandbox)) == 40
    with pytest.raises(UndecodableVideo, match="the video is encrypted"):
        asyncio.run(receive(encrypted_mkv(clip), sandbox))


def test_a_head_that_never_ends_is_an_error_once_the_file_does(clip: bytes, sandbox: Sandbox) -> None:
    start = clip.index(CLUSTER)
    with pytest.raises(VideoError):
        asyncio.run(receive(clip[:start] + b"\xec\x08\xff\xff\xff\xff\xff\xff\xff" + bytes(10_000), sandbox))
