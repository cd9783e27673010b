"""vidseq.client.faststart: the same video, with its index in front; everything else as it was."""

import io
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.open_files import none_stays_open
from tests.toy_videos import overwrite, turn_clockwise, write_clip, write_sound
from vidseq.client.faststart import faststart
from vidseq.config import Picture
from vidseq.container import Source, open_source
from vidseq.errors import EmptyVideo, OptionError, SourceNotFound
from vidseq.mp4 import IndexSearch
from vidseq.video import Reader, Verdict


def rearranged(source: Source) -> bytes:
    with faststart(source) as file:
        return file.read()


def index_at_end(data: bytes) -> bool | None:
    fd = open_source(data, max_bytes=1 << 30)
    try:
        return IndexSearch(fd).at_end()
    finally:
        os.close(fd)


def decoded(source: Source) -> list[tuple[float, bytes]]:
    with Reader(source, picture=Picture(size=32)) as reader:
        return [(frame.seconds, frame.pixels_HWC.tobytes()) for frame in reader.frames(lambda _: Verdict.TAKE)]


def wide_offsets(mp4: bytes) -> bytes:
    """The same file with its one table of chunk offsets in 64 bits."""
    at = mp4.index(b"stco") - 4
    size, _, flags, count = struct.unpack_from(">I4sII", mp4, at)
    offsets = struct.unpack_from(f">{count}I", mp4, at + 16)
    table = struct.pack(f">I4sII{count}Q", size + 4 * count, b"co64", flags, count, *offsets)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        start = mp4.index(kind) - 4
        mp4 = overwrite(mp4, start, struct.pack(">I", int.from_bytes(mp4[start : start + 4], "big") + 4 * count))
    return mp4[:at] + table + mp4[at + size :]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov"])
def test_the_index_is_in_front_and_frames_and_times_are_the_same(name: str, tmp_path: Path) -> None:
    """libx264 writes B-frames, so that the file has an edit list that takes their delay away."""
    path = write_clip(tmp_path / name, seconds=[0.0, 0.1, 0.15, 0.4, 1.0, 1.2])
    assert b"elst" in path.read_bytes()
    assert (index_at_end(path.read_bytes()), index_at_end(rearranged(path))) == (True, False)
    assert decoded(rearranged(path)) == decoded(path)
    assert len(rearranged(path)) == path.stat().st_size


def test_an_edit_that_cuts_frames_off_still_cuts_them_off(tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mp4", codec="mpeg4", num_frames=20).read_bytes()
    edit = mp4.index(b"elst") + 4 + 8
    timescale = struct.unpack_from(">I", mp4, mp4.index(b"mdhd") + 4 + 12)[0]
    cut = overwrite(mp4, edit, struct.pack(">Ii", 1000, timescale // 2))  # one second from 0.5 s on
    assert len(decoded(cut)) < 20
    assert decoded(rearranged(cut)) == decoded(cut)


def test_offsets_of_64_bits_are_moved_too(tmp_path: Path) -> None:
    mp4 = wide_offsets(write_clip(tmp_path / "clip.mp4").read_bytes())
    assert b"co64" in rearranged(mp4)
    assert decoded(rearranged(mp4)) == decoded(mp4)


def test_a_file_without_ftyp_and_with_more_behind_its_index_is_moved(tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mov").read_bytes()
    behind = struct.pack(">I4s", 1008, b"free") + bytes(1000)
    typeless = overwrite(mp4, 4, b"free") + behind
    assert rearranged(typeless)[4:8] == b"moov"
    assert rearranged(typeless).endswith(behind)
    assert decoded(rearranged(typeless)) == decoded(typeless)


def test_what_lies_on_its_side_stays_so(tmp_path: Path) -> None:
    turned = turn_clockwise(write_clip(tmp_path / "clip.mp4", height=96, width=64).read_bytes())
    assert decoded(rearranged(turned)) == decoded(turned)


def test_real_clips_keep_every_frame_and_every_time(shared_data: Path) -> None:
    names = ("sample_empty_track", "sample_portrait", "sample_vvc", "realshort", "h265_10bits", "tiny_16x16")
    clips = [shared_data / f"odd/{name}.mp4" for name in names] + sorted(shared_data.glob("*/*/*.mp4"))[::80]
    for clip in clips:
        assert (index_at_end(clip.read_bytes()), index_at_end(rearranged(clip))) == (True, False), clip.name
        assert decoded(rearranged(clip)) == decoded(clip), clip.name


@pytest.mark.slow
def test_a_real_clip_with_an_edit_keeps_every_frame_and_every_time(shared_data: Path) -> None:
    """68 frames; FFmpeg's own way to move the index leaves 58 of them."""
    clip = shared_data / "odd/sample_edit_list_no_sync_frame_before_edit.mp4"
    assert decoded(rearranged(clip)) == decoded(clip)


def test_what_needs_nothing_is_read_as_it_is(tmp_path: Path) -> None:
    fast = write_clip(tmp_path / "fast.mp4", muxing={"movflags": "faststart"})
    fragmented = write_clip(tmp_path / "fragmented.mp4", muxing={"movflags": "frag_keyframe+empty_moov"})
    (tmp_path / "notes.mp4").write_text("no video")
    for path in (fast, fragmented, write_clip(tmp_path / "clip.mkv"), tmp_path / "notes.mp4"):
        assert rearranged(path) == path.read_bytes()


def test_a_file_that_was_cut_before_its_index_is_left_to_the_service(tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mp4").read_bytes()
    cut = mp4[: mp4.index(b"moov") - 4]
    assert rearranged(cut) == cut


def test_sound_moves_with_the_picture(tmp_path: Path) -> None:
    mp4 = write_sound(tmp_path / "sound.mp4").read_bytes()
    first_chunk = struct.unpack_from(">I", rearranged(mp4), rearranged(mp4).index(b"stco") + 12)[0]
    old_chunk = struct.unpack_from(">I", mp4, mp4.index(b"stco") + 12)[0]
    assert rearranged(mp4)[first_chunk : first_chunk + 20] == mp4[old_chunk : old_chunk + 20]


def test_it_is_a_file_that_can_be_rewound_and_measured(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    whole, rng = rearranged(path), random.Random(0)
    with faststart(path) as file:
        assert file.seek(0, os.SEEK_END) == len(whole)
        for _ in range(200):
            start = rng.randrange(len(whole))
            file.seek(start)
            assert file.read(500) == whole[start : start + 500]


def test_bytes_and_binary_files_are_sources_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    assert rearranged(path.read_bytes()) == rearranged(io.BytesIO(path.read_bytes())) == rearranged(path)


@pytest.mark.parametrize(
    ("old", "new"), [(b"stco", b"free"), (b"udta", b"cmov"), (b"stsz", b"\xff" * 4)], ids=["table", "cmov", "odd"]
)
def test_an_index_of_an_unknown_form_is_not_moved(old: bytes, new: bytes, tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mp4").read_bytes()
    spoilt = mp4.replace(old, new) if old != b"stsz" else overwrite(mp4, mp4.index(old) - 4, new)
    with pytest.raises(OptionError, match="cannot be moved to the front"):
        faststart(spoilt)


@pytest.mark.parametrize("count", [2**31, 2**32 - 1])
def test_a_number_of_chunks_that_lies_is_refused(count: int, tmp_path: Path) -> None:
    mp4 = write_clip(tmp_path / "clip.mp4").read_bytes()
    with pytest.raises(OptionError, match="it is damaged"):
        faststart(overwrite(mp4, mp4.index(b"stco") + 8, struct.pack(">I", count)))


def test_offsets_that_would_not_fit_are_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    at, index = clip.index(b"mdat") - 4, clip.index(b"moov") - 4
    hole = 2**32 - index
    long = overwrite(clip[:index], at, struct.pack(">I", index - at + hole - 8))
    with (tmp_path / "long.mp4").open("wb") as file:  # sparse: a hole instead of pictures
        file.write(long)
        file.seek(hole - 8, os.SEEK_CUR)
        table = clip.index(b"stco") + 12 - index
        file.write(overwrite(clip[index:], table, struct.pack(">I", 2**32 - 100)))
    with pytest.raises(OptionError, match="would pass 4 GiB"):
        faststart(tmp_path / "long.mp4")


def test_a_path_that_is_not_there_and_an_empty_file_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceNotFound):
        faststart(tmp_path / "absent.mp4")
    with pytest.raises(EmptyVideo):
        faststart(tmp_path / "empty.mp4")


def test_nothing_stays_open(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    with none_stays_open():
        rearranged(path)
        with pytest.raises(OptionError):
            faststart(path.read_bytes().replace(b"stco", b"free"))


def test_it_loads_nothing_heavy() -> None:
    program = "import sys, vidseq.client.faststart; print({'cv2', 'numpy', 'torch', 'av'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
