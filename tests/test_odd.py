"""The odd clips of ../shared/data/odd: each ends in the decoded count that is expected, or in a typed error."""

import json
from pathlib import Path
from typing import Any

import pytest

from vidseq import schemas
from vidseq.config import Limits, Picture, Sampling
from vidseq.errors import TruncatedVideo, VideoError
from vidseq.sampling import sample
from vidseq.video import Reader

REFUSED = {
    "8k24fps_300ms.mp4": "video/too-many-pixels",  # 33 megapixels; the limit is 4K
    "full_blocks.mkv": "video/no-video-stream",
    "imageio_issue245.gif": "video/unsupported-container",
    "newtonscradle.gif": "video/unsupported-container",
    "sample.flv": "video/unsupported-container",
    "sample_audio_only.mp4": "video/no-video-stream",
    "sample_fragmented_uuid.mp4": "video/undecodable",  # its fragments stand in boxes that FFmpeg does not know
    "sample_malformed_free_box.mp4": "video/undecodable",
    "sample_with_sdt.ts": "video/undecodable",  # 21 packets without a picture
    "zero_bytes.mp4": "video/empty",
}
INCOMPLETE = {
    "bitflip.mp4",  # decoding stops at the flipped bit, after 1 of 53 frames
    "sample_with_invalid_nalu.mp4",  # after 26 of 30
    "sample_edit_list_no_sync_frame_before_edit.mp4",  # 17 frames before the first key frame cannot be decoded
}
WHOLE = [
    "av1_video.mkv",
    "bbb_176x144_192kbps_15fps_mpeg4.mp4",
    "bear-vp9-odd-dimensions.webm",
    "h264_10bits.mp4",
    "h265_10bits.mp4",
    "h265_video.mp4",
    "internal_emulator_transformer_output_180_rotated.mp4",
    "long_180p_av1.mp4",
    "long_1h_black.mp4",
    "mjpeg.avi",
    "nasa_13013.mp4",
    "odd_321x179_444.mp4",
    "realshort.mp4",
    "sample-with-large-length.avi",
    "sample_empty_track.mp4",
    "sample_fragmented.mp4",
    "sample_h262_mpeg_audio.ts",
    "sample_mdat_too_long.mp4",
    "sample_missing_stsd.mp4",
    "sample_portrait.mp4",
    "sample_rotate_and_reflect.mp4",
    "sample_vvc.mp4",
    "sample_with_fake_auxiliary_tracks.mp4",
    "sample_with_htc_rotation_track_name.mkv",
    "test.avi",
    "tiny_16x16.mp4",
]


@pytest.fixture(scope="module")
def expected(shared_data: Path) -> dict[str, dict[str, Any]]:
    entries = json.loads((shared_data / "odd" / "expected.json").read_text())
    return {entry["file"]: entry for entry in entries}


def watch(path: Path, *, limits: Limits) -> tuple[int, schemas.VideoReport]:
    """How many frames were sampled, one a second, and the report."""
    with Reader(path, picture=Picture(size=32), limits=limits) as reader:
        num_sampled = sum(len(clip) for clip in sample(reader, Sampling(frames_per_second=1)))
        return num_sampled, reader.report()


def truncated(path: Path) -> None:
    """Raises TruncatedVideo where so much is missing that no label is to be given."""
    with Reader(path, picture=Picture(size=32)) as reader:
        for _ in sample(reader, Sampling(frames_per_second=1)):
            pass
        reader.refuse_truncated(start_seconds=0.0, end_seconds=None)


def test_each_odd_clip_has_its_place_here(expected: dict[str, dict[str, Any]]) -> None:
    assert sorted([*REFUSED, *INCOMPLETE, *WHOLE]) == sorted(expected)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_clip_decodes_to_the_expected_count(
    name: str, expected: dict[str, dict[str, Any]], shared_data: Path
) -> None:
    entry = expected[name]
    num_sampled, report = watch(shared_data / "odd" / name, limits=Limits())
    assert entry["status"] == "ok"
    assert (report.frames_decoded, report.complete) == (entry["frames"], True)
    assert num_sampled >= 1
    sideways = entry["rot"] in (90, -90)
    assert (report.width, report.height) == ((entry["h"], entry["w"]) if sideways else (entry["w"], entry["h"]))


@pytest.mark.parametrize("name", sorted(INCOMPLETE))
def test_a_damaged_clip_decodes_to_the_expected_count_and_says_that_it_is_incomplete(
    name: str, expected: dict[str, dict[str, Any]], shared_data: Path
) -> None:
    _, report = watch(shared_data / "odd" / name, limits=Limits())
    assert (report.frames_decoded, report.complete) == (expected[name]["frames"], False)
    assert "could be decoded" in report.warnings[0]


@pytest.mark.parametrize("name", sorted(INCOMPLETE - {"bitflip.mp4"}))
def test_a_clip_of_which_most_could_be_decoded_may_be_labelled(name: str, shared_data: Path) -> None:
    truncated(shared_data / "odd" / name)


def test_a_clip_of_which_hardly_anything_could_be_decoded_may_not_be_labelled(shared_data: Path) -> None:
    with pytest.raises(TruncatedVideo, match=r"^0\.04 s could be decoded where the video declares 2\.12 s"):
        truncated(shared_data / "odd" / "bitflip.mp4")


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_what_cannot_be_labelled_ends_in_a_typed_error(name: str, code: str, shared_data: Path) -> None:
    with pytest.raises(VideoError) as caught:
        watch(shared_data / "odd" / name, limits=Limits())
    assert caught.value.code == code


def test_8k_decodes_where_the_limit_allows_it(expected: dict[str, dict[str, Any]], shared_data: Path) -> None:
    _, report = watch(shared_data / "odd" / "8k24fps_300ms.mp4", limits=Limits(max_pixels=7680 * 4320))
    assert (report.frames_decoded, report.complete) == (expected["8k24fps_300ms.mp4"]["frames"], True)
