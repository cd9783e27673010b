"""Rows of a clip's frames come from disk as they were written, whatever their chunks, and large ones as a map."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseq.features.hashes import joint_hash
from vidseq.features.row_files import MAPPED_BYTES, read_rows, write_rows


def rows(num_frames: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(num_frames)
    return {
        "feature_TD": rng.normal(size=(num_frames, 5)).astype(np.float32),
        "pixels_THWC": rng.integers(0, 256, (num_frames, 3, 3, 3), dtype=np.uint8),
    }


def in_chunks(parts: dict[str, np.ndarray], cuts: list[int]) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Chunks that end at these frames; frame t is seen at t / 10 s."""
    bounds = list(zip([0, *cuts], cuts, strict=False))
    return [
        ({name: part[start:stop] for name, part in parts.items()}, np.arange(start, stop) / 10)
        for start, stop in bounds
    ]


@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5).map(lambda steps: np.cumsum(steps).tolist()))
def test_what_was_written_in_any_chunks_is_read_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path, written = tmp_path_factory.mktemp("rows") / "clip.safetensors", rows(cuts[-1])
    write_rows(path, in_chunks(written, cuts))
    for name, expected in written.items():
        found = read_rows(path, name)
        assert found is not None and found.columns[name].dtype == expected.dtype
        np.testing.assert_array_equal(found.columns[name], expected)
        np.testing.assert_array_equal(found.seconds_T, np.arange(cuts[-1]) / 10)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_large_rows_are_mapped_from_their_file(tmp_path: Path) -> None:
    path, written = tmp_path / "clip.safetensors", {"feature_TD": np.ones((MAPPED_BYTES // 4, 2), np.float32)}
    write_rows(path, in_chunks(written, [MAPPED_BYTES // 4]))
    found = read_rows(path, "feature_TD")
    assert found is not None and str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]]
)
@pytest.mark.parametrize("num_frames", [10, 40_000])
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: object, num_frames: int) -> None:
    path = tmp_path / "clip.safetensors"
    write_rows(path, in_chunks(rows(num_frames), [num_frames]))
    path.write_bytes(damage(path.read_bytes()))
    assert read_rows(path, "feature_TD") is None


def test_what_is_not_there_or_has_another_name_is_none(tmp_path: Path) -> None:
    write_rows(tmp_path / "clip.safetensors", in_chunks(rows(3), [3]))
    assert read_rows(tmp_path / "clip.safetensors", "map_TM") is None
    assert read_rows(tmp_path / "other.safetensors", "feature_TD") is None


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> object:
        yield from in_chunks(rows(3), [3])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_rows(tmp_path / "clip.safetensors", failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_frames", [10, 40_000])
def test_a_flipped_bit_counts_as_damage_to_whoever_checks(tmp_path: Path, num_frames: int) -> None:
    path = tmp_path / "clip.safetensors"
    write_rows(path, in_chunks(rows(num_frames), [num_frames]))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert read_rows(path, "pixels_THWC") is None
    assert read_rows(path, "pixels_THWC", checked=False) is not None


@pytest.mark.parametrize("num_frames", [10, 40_000])
def test_what_else_is_said_is_asked_last_and_read(tmp_path: Path, num_frames: int) -> None:
    path, asked = tmp_path / "clip.safetensors", []

    def chunks() -> object:
        yield from in_chunks(rows(num_frames), [num_frames])
        asked.append("the chunks have come")

    write_rows(path, chunks(), about=lambda: f"{asked} é")
    found = read_rows(path, "feature_TD")
    assert found is not None and found.about == "['the chunks have come'] é"


def test_parts_of_a_hash_keep_their_borders() -> None:
    assert len({joint_hash("ab", "c"), joint_hash("a", "bc"), joint_hash("abc"), joint_hash("abc", "")}) == 4
    assert joint_hash("é") == joint_hash("é".encode())
