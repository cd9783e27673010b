"""What a person is told before a run: in which words, and from what."""

from pathlib import Path

import pytest

from tests.toy_models import toy_config, toy_model
from tests.toy_videos import write_clip
from training.data.features import FeatureExtractor
from training.data.frame_augment import FrameAugment
from training.estimate import Estimate, estimate
from training.settings import FitConfig

SETTINGS = FitConfig(epochs=10, batch_size=4)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            Estimate(120, features_seconds=180, training_seconds=62),
            "about 4 minutes: 3 for features of 120 clips not yet cached, at most 1 for training",
        ),
        (
            Estimate(1, features_seconds=4, training_seconds=0.2),
            "about 4 seconds: 4 for features of 1 clip not yet cached, at most less than 1 for training",
        ),
        (
            Estimate(360, features_seconds=540, training_seconds=62, num_views=4),
            "about 10 minutes: 9 for features of 360 views of clips not yet cached, at most 1 for training",
        ),
        (Estimate(0, features_seconds=0, training_seconds=7300), "about 2 hours at most: all features are cached"),
        (Estimate(0, features_seconds=0, training_seconds=0.3), "about 1 second at most: all features are cached"),
    ],
    ids=lambda value: "",
)
def test_the_sentence(given: Estimate, sentence: str) -> None:
    assert str(given) == sentence


def told(
    paths: list[Path], extractor: FeatureExtractor, *, num_folds: int | None = None, **changes: object
) -> Estimate | None:
    settings = FitConfig.model_validate(SETTINGS.model_dump() | changes)
    return estimate(paths, extractor, configs=[toy_config()], settings=settings, num_folds=num_folds)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_clip(tmp_path / f"{number}.mp4", num_frames=10, first_number=number) for number in range(8)]


@pytest.fixture
def extractor(tmp_path: Path) -> FeatureExtractor:
    return FeatureExtractor(toy_model(toy_config()).encoder, config=toy_config(), store=tmp_path / "cache")


def test_features_of_a_few_clips_are_computed_for_it_and_stay(clips: list[Path], extractor: FeatureExtractor) -> None:
    found = told(clips, extractor)
    assert found is not None
    assert sum(map(extractor.has, clips)) == 3
    assert found.num_missing == 5
    assert found.features_seconds > 0 and found.training_seconds > 0


def test_what_is_cached_costs_nothing_more(clips: list[Path], extractor: FeatureExtractor) -> None:
    for clip in clips:
        extractor(clip)
    found = told(clips, extractor)
    assert found is not None
    assert (found.num_missing, found.features_seconds) == (0, 0)


def test_each_view_of_each_clip_is_counted(clips: list[Path], tmp_path: Path) -> None:
    config, cache = toy_config(), tmp_path / "cache"
    flipped = FeatureExtractor(toy_model(config).encoder, config=config, augment=FrameAugment(("flip",)), store=cache)
    for clip in clips:
        flipped(clip)
    found = told(clips, flipped, augment_frames=("flip",), num_views=3)
    assert found is not None
    assert (found.num_missing, found.num_views) == (2 * 8 - 3, 3)


def test_clips_that_cannot_be_decoded_tell_nothing(tmp_path: Path, extractor: FeatureExtractor) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is no video")
    assert told([bad], extractor) is None
