"""Features are computed once, and whatever they depend on decides which ones are read."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from tests.toy_models import toy_config, toy_model
from tests.toy_videos import paint, write_clip, write_frames
from training.data.features import Failed, FeatureExtractor, extract_all
from training.data.frame_augment import FrameAugment
from training.settings import FrameChange
from vidseq.config import ModelConfig, Picture, Sampling
from vidseq.encoder import Encoder
from vidseq.errors import VideoError
from vidseq.features.row_files import MAPPED_BYTES
from vidseq.features.store import ClipFeatures


class CountingEncoder(Encoder):
    """A toy encoder that knows how many frames it was given."""

    def __init__(self, config: ModelConfig, *, seed: int) -> None:
        super().__init__(config.encoder)
        self.load_state_dict(toy_model(config, seed=seed).encoder.state_dict())
        self.num_frames = 0

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        self.num_frames += len(pixels_NHWC)
        return super().forward(pixels_NHWC)


def encoder(config: ModelConfig | None = None, *, seed: int = 0) -> CountingEncoder:
    return CountingEncoder(config or toy_config(), seed=seed)


def num_computed(cache: Path, clip: Path, *, config: ModelConfig | None = None, seed: int = 0) -> int:
    """How many frames went through the CNN to get the features of this clip."""
    config = config or toy_config()
    fresh = encoder(config, seed=seed)
    FeatureExtractor(fresh, config=config, store=cache)(clip)
    return fresh.num_frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """2 s at 10 frames a second: 16 frames at the default 8."""
    return write_clip(tmp_path / "clip.mp4", num_frames=20)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write_pictures(folder: Path, *, num_frames: int) -> Path:
    folder.mkdir()
    for number in range(num_frames):
        assert cv2.imwrite(str(folder / f"{number}.png"), paint(number, height=32, width=32))
    return folder


# What is computed ------------------------------------------------------------------------------------


def test_a_clip_gives_one_feature_and_one_time_for_every_sampled_frame(clip: Path, cache: Path) -> None:
    fresh = encoder()
    features = FeatureExtractor(fresh, config=toy_config(), store=cache)(clip)
    assert features.feature_TD.shape == (16, fresh.feature_size)
    assert features.feature_TD.dtype == np.float32
    assert features.seconds_T[:4].tolist() == pytest.approx([0, 0.2, 0.3, 0.4], abs=1e-6)


def test_a_folder_of_pictures_gives_the_features_of_its_pictures(tmp_path: Path, cache: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", num_frames=4)
    config = toy_config(sampling=Sampling(frames_per_second=25))
    features = FeatureExtractor(encoder(config), config=config, store=cache)(folder)
    painted_NHWC = torch.from_numpy(np.stack([paint(number, height=32, width=32) for number in range(4)]))
    np.testing.assert_allclose(features.feature_TD, encoder(config)(painted_NHWC).numpy(), atol=1e-5)
    assert features.seconds_T.tolist() == pytest.approx([0, 0.04, 0.08, 0.12])


# What is kept ----------------------------------------------------------------------------------------


def test_features_are_computed_once_and_read_the_same(clip: Path, cache: Path) -> None:
    fresh = encoder()
    extractor = FeatureExtractor(fresh, config=toy_config(), store=cache)
    first, second = extractor(clip), extractor(clip)
    assert fresh.num_frames == 16
    np.testing.assert_array_equal(first.feature_TD, second.feature_TD)
    np.testing.assert_array_equal(first.seconds_T, second.seconds_T)


def test_another_extractor_with_the_same_recipe_reads_them_too(clip: Path, cache: Path) -> None:
    assert (num_computed(cache, clip), num_computed(cache, clip)) == (16, 0)


def test_the_same_clip_under_another_name_is_read(clip: Path, cache: Path) -> None:
    num_computed(cache, clip)
    assert num_computed(cache, clip.rename(clip.with_name("renamed.mp4"))) == 0


def test_another_clip_under_the_same_name_is_computed(clip: Path, cache: Path) -> None:
    num_computed(cache, clip)
    assert num_computed(cache, write_clip(clip, num_frames=20, first_number=100)) > 0


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": Sampling(frames_per_second=4)},
        {"picture": Picture(size=48)},
        {"picture": Picture(size=32, fit="letterbox")},
        {"encoder": {"precision": "bfloat16"}},
        {"encoder": {"pixel_mean_RGB": (0.4, 0.5, 0.5)}},
    ],
    ids=str,
)
def test_a_changed_recipe_is_computed(clip: Path, cache: Path, change: dict[str, Any]) -> None:
    num_computed(cache, clip)
    parts = toy_config().model_dump()
    encoder_parts = parts["encoder"] | change.get("encoder", {})
    changed = ModelConfig.model_validate(parts | change | {"encoder": encoder_parts})
    assert num_computed(cache, clip, config=changed) > 0


def test_changed_weights_are_computed(clip: Path, cache: Path) -> None:
    num_computed(cache, clip, seed=0)
    assert num_computed(cache, clip, seed=1) == 16


def test_what_does_not_touch_the_features_is_read(clip: Path, cache: Path) -> None:
    num_computed(cache, clip)
    assert num_computed(cache, clip, config=toy_config(cell="lstm", num_layers=2)) == 0


def test_pictures_in_another_order_are_computed(tmp_path: Path, cache: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", num_frames=4)
    num_computed(cache, folder)
    (folder / "0.png").rename(folder / "9.png")
    assert num_computed(cache, folder) > 0


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]]
)
def test_a_damaged_file_in_the_cache_is_computed_again_and_mended(clip: Path, cache: Path, damage: Any) -> None:
    num_computed(cache, clip)
    (kept,) = cache.rglob("*.safetensors")
    kept.write_bytes(damage(kept.read_bytes()))
    assert (num_computed(cache, clip), num_computed(cache, clip)) == (16, 0)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_a_long_clip_is_mapped_and_a_damaged_map_is_mended(tmp_path: Path, cache: Path, damage: Any) -> None:
    """A feature of a toy is 4 bytes x 256: a thousand and some frames are more than `MAPPED_BYTES`."""
    clip = write_clip(tmp_path / "long.mp4", num_frames=1100)
    config = toy_config(sampling=Sampling(frames_per_second="native"))
    computed = encoder(config)
    features = FeatureExtractor(computed, config=config, store=cache)(clip)
    (kept,) = cache.rglob("*.safetensors")
    assert kept.stat().st_size >= MAPPED_BYTES
    assert str(kept) in Path("/proc/self/maps").read_text()
    np.testing.assert_array_equal(features.seconds_T, load_file(kept)["seconds_T"])
    np.testing.assert_array_equal(features.feature_TD, load_file(kept)["feature_TD"])
    del features
    kept.write_bytes(damage(kept.read_bytes()))
    assert (num_computed(cache, clip, config=config), num_computed(cache, clip, config=config)) == (1100, 0)


# Views -----------------------------------------------------------------------------------------------


def test_each_view_has_features_of_its_own_and_view_0_is_the_clip_as_it_is(clip: Path, cache: Path) -> None:
    plain = FeatureExtractor(encoder(), config=toy_config(), store=cache.with_name("plain"))(clip).feature_TD
    extractor = FeatureExtractor(encoder(), config=toy_config(), augment=FrameAugment(("crop", "colour")), store=cache)
    views = [extractor(clip, view=view).feature_TD for view in range(3)]
    np.testing.assert_array_equal(views[0], plain)
    assert not any(np.array_equal(views[one], views[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_a_wide_view_has_the_features_of_the_whole_frame(clip: Path, cache: Path) -> None:
    letterboxed = toy_config().model_copy(update={"picture": Picture(size=32, fit="letterbox")})
    cut, whole = (
        FeatureExtractor(encoder(), config=config, store=cache)(clip) for config in (toy_config(), letterboxed)
    )
    extractor = FeatureExtractor(encoder(), config=toy_config(), augment=FrameAugment(("wide", "flip")), store=cache)
    for view, expected in enumerate((cut, whole)):
        np.testing.assert_array_equal(extractor(clip, view=view).feature_TD, expected.feature_TD)


def test_a_view_is_computed_once_for_each_way_to_change_frames(clip: Path, cache: Path) -> None:
    def num_frames(*changes: FrameChange) -> int:
        fresh = encoder()
        FeatureExtractor(fresh, config=toy_config(), augment=FrameAugment(changes), store=cache)(clip, view=1)
        return fresh.num_frames

    assert (num_frames("crop"), num_frames("crop"), num_frames("crop", "flip")) == (16, 0, 16)


def test_a_view_of_a_long_clip_changes_its_chunks_alike(tmp_path: Path, cache: Path) -> None:
    """One picture for 4 s, two chunks: all its features are those of one picture again."""
    still = write_frames(tmp_path / "still.mp4", [paint(7)] * 40, [number / 10 for number in range(40)])
    extractor = FeatureExtractor(encoder(), config=toy_config(), augment=FrameAugment(("crop",)), store=cache)
    feature_TD = extractor(still, view=1).feature_TD
    assert len(feature_TD) == 32
    np.testing.assert_allclose(feature_TD, feature_TD[:1].repeat(32, axis=0), atol=1e-2)


# Many clips ------------------------------------------------------------------------------------------


def test_many_clips_keep_their_order_and_one_that_cannot_be_decoded_is_told_with_its_path(
    clip: Path, tmp_path: Path, cache: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is no video")
    short = write_clip(tmp_path / "short.mp4", num_frames=1)
    told: list[Path] = []
    extractor = FeatureExtractor(encoder(), config=toy_config(), store=cache)
    first, failed, last = extract_all(extractor, [clip, bad, short], on_clip=told.append)
    assert isinstance(first, ClipFeatures) and isinstance(last, ClipFeatures)
    assert (len(first.seconds_T), len(last.seconds_T)) == (16, 1)
    assert isinstance(failed, Failed) and failed.path == bad and isinstance(failed.error, VideoError)
    assert told == [clip, bad, short]


def test_a_clip_that_failed_leaves_nothing_in_the_cache(tmp_path: Path, cache: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is no video")
    with pytest.raises(VideoError):
        FeatureExtractor(encoder(), config=toy_config(), store=cache)(bad)
    assert not any(cache.rglob("*.safetensors"))
