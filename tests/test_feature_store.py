"""A store of features keeps what follows from a clip, tells it apart from all else, and is whole whoever writes."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.batch.sources import opened
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from training.data.features import FeatureExtractor
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import EncoderConfig, Limits, MotionConfig, Picture, Sampling
from vidseq.errors import OptionError, TruncatedVideo
from vidseq.feature_classifier import FeatureClassifier
from vidseq.features.extract import Look, recipe_of
from vidseq.features.extractor import Extractor
from vidseq.features.hashes import content_hash
from vidseq.features.row_files import MAPPED_BYTES
from vidseq.features.store import FeatureStore, Kind, Recipe
from vidseq.runner import direct

RECIPE = Recipe(EncoderConfig(), weights_sha256="00" * 32, picture=Picture(), sampling=Sampling())
KEY = "ab" * 32
FEATURES = np.linspace(-3, 3, 40, dtype=np.float32).reshape(8, 5)


def chunks(feature_TD: np.ndarray = FEATURES) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    yield {"feature_TD": feature_TD}, np.arange(len(feature_TD)) / 8


# What is kept


@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 0.0), ("float16", 2e-3)])
def test_features_are_read_as_they_were_written(tmp_path: Path, kind: Kind, tolerance: float) -> None:
    FeatureStore(tmp_path / "store", kind=kind).write(RECIPE, KEY, chunks(), about=lambda: "a fight")
    found = FeatureStore(tmp_path / "store").read(RECIPE, KEY)
    assert found is not None and found.feature_TD.dtype == kind and found.about == "a fight"
    np.testing.assert_allclose(found.feature_TD, FEATURES, atol=tolerance)


def test_a_number_too_large_for_a_half_is_the_largest_half(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", kind="float16")
    store.write(RECIPE, KEY, chunks(np.array([[1e9, -1e9]], np.float32)))
    found = store.read(RECIPE, KEY)
    assert found is not None and found.feature_TD.tolist() == [[65504.0, -65504.0]]


def test_a_folder_keeps_all_features_in_one_way(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "store", kind="float16").write(RECIPE, KEY, chunks())
    with pytest.raises(OptionError, match="are float16, and float32 was asked for"):
        FeatureStore(tmp_path / "store", kind="float32")


def test_a_store_says_what_its_features_are_of(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "store").write(RECIPE, KEY, chunks())
    said = json.loads((tmp_path / "store" / RECIPE.id / "recipe.json").read_text())
    assert said["encoder"]["backbone"] == "efficientnet-lite0" and said["sampling"]["frames_per_second"] == 8.0


@pytest.mark.parametrize("name", ["thesis.tex", "store.json"])
def test_a_folder_of_other_things_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("other things")
    with pytest.raises(OptionError, match="is no store of features"):
        FeatureStore(tmp_path)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="is no store of features"):
        FeatureStore(tmp_path / "file")


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    assert FeatureStore(tmp_path / "store").read(RECIPE, KEY) is None
    assert os.listdir(tmp_path) == []


# What is told apart


@pytest.mark.parametrize(
    "other",
    [
        Recipe(EncoderConfig(precision="bfloat16"), RECIPE.weights_sha256, Picture(), Sampling()),
        Recipe(EncoderConfig(motion=MotionConfig()), RECIPE.weights_sha256, Picture(), Sampling()),
        Recipe(EncoderConfig(), "11" * 32, Picture(), Sampling()),
        Recipe(EncoderConfig(), RECIPE.weights_sha256, Picture(fit="letterbox"), Sampling()),
        Recipe(EncoderConfig(), RECIPE.weights_sha256, Picture(), Sampling(frames_per_second=4)),
        Recipe(EncoderConfig(), RECIPE.weights_sha256, Picture(), Sampling(max_frames=100)),
    ],
    ids=["precision", "motion", "weights", "picture", "rate", "max_frames"],
)
def test_what_follows_from_something_else_is_not_found(tmp_path: Path, other: Recipe) -> None:
    store = FeatureStore(tmp_path / "store")
    store.write(RECIPE, KEY, chunks())
    assert store.read(other, KEY) is None and store.read(RECIPE, KEY[::-1]) is None


def test_where_the_weights_came_from_does_not_count() -> None:
    moved = Recipe(EncoderConfig(weights="elsewhere.pt"), RECIPE.weights_sha256, Picture(), Sampling())
    assert moved.id == RECIPE.id


# Many writers


def write_again_and_again(folder: Path, number: int) -> None:
    for _ in range(50):
        FeatureStore(folder).write(RECIPE, KEY, chunks())


def test_many_writers_share_a_folder(tmp_path: Path) -> None:
    """Whoever reads meanwhile finds nothing, or all of it."""
    folder = tmp_path / "store"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_again_and_again, args=(folder, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    num_read = 0
    while any(writer.is_alive() for writer in writers):
        if FeatureStore(folder).has(RECIPE, KEY):
            found = FeatureStore(folder).read(RECIPE, KEY)
            assert found is not None
            np.testing.assert_array_equal(found.feature_TD, FEATURES)
            num_read += 1
    assert [writer.exitcode for writer in writers] == [0] * 4 and num_read > 0
    assert sorted(path.name for path in folder.rglob("*.*")) == sorted(
        ["store.json", "recipe.json", f"{KEY}.safetensors"]
    )


def test_a_store_that_comes_into_being_while_it_is_opened_is_one(tmp_path: Path) -> None:
    """Two hundred times: who opens it finds nothing yet, or a store, and never a folder of other things."""
    folders = [tmp_path / str(number) for number in range(200)]
    with ThreadPoolExecutor(1) as pool:
        for folder in folders:
            folder.mkdir()
            writing = pool.submit(FeatureStore(folder).write, RECIPE, KEY, chunks())
            while not writing.done():
                FeatureStore(folder)
            writing.result()
            assert FeatureStore(folder).has(RECIPE, KEY)


def test_a_layout_that_leads_nowhere_is_none(tmp_path: Path) -> None:
    (tmp_path / "store.json").symlink_to("nowhere")
    with pytest.raises(OptionError, match="holds other things"):
        FeatureStore(tmp_path)


# Of a model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(toy_checkpoint(tmp_path_factory.mktemp("models") / "toy", cell="lstm"))


def extractor(checkpoint: Checkpoint, folder: Path, **limits: float) -> Extractor:
    look = Look.of(checkpoint.config)
    return Extractor(checkpoint.model.encoder, look, store=FeatureStore(folder), limits=Limits.model_validate(limits))


def key_of(clip: Path) -> str:
    with opened(str(clip), max_bytes=10**9) as (_, sha256):
        return sha256


def test_training_finds_what_a_batch_has_kept_and_the_other_way_round(checkpoint: Checkpoint, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{number}.mp4", num_frames=10, first_number=number) for number in range(2)]
    training = FeatureExtractor(checkpoint.model.encoder, config=checkpoint.config, store=tmp_path / "store")
    batch = extractor(checkpoint, tmp_path / "store")
    batch(clips[0], key=key_of(clips[0]))
    assert [training.has(clip) for clip in clips] == [True, False]
    training(clips[1])
    assert FeatureStore(tmp_path / "store").has(batch.recipe, key_of(clips[1]))
    assert key_of(clips[0]) == sha256(clips[0].read_bytes()).hexdigest() == content_hash(clips[0]).hex()


@pytest.mark.parametrize("folder", ["s3://bucket/store", "gs://b/s"])
def test_a_store_behind_a_url_is_refused(folder: str) -> None:
    with pytest.raises(OptionError, match="not a URL"):
        FeatureStore(Path(folder))


def test_whoever_may_read_the_folder_may_read_the_store(tmp_path: Path) -> None:
    (tmp_path / "like").touch()
    FeatureStore(tmp_path / "store").write(RECIPE, KEY, chunks())
    modes = {path.stat().st_mode for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "like").stat().st_mode}


@pytest.mark.parametrize("num_frames", [1, 37, 400])
def test_a_model_says_of_features_what_it_says_of_the_video(
    checkpoint: Checkpoint, tmp_path: Path, num_frames: int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=num_frames)
    of_video = Classifier(checkpoint, compute=direct(checkpoint.model), limits=Limits()).classify(clip)
    features = extractor(checkpoint, tmp_path / "store")(clip, key=key_of(clip))
    of_features = FeatureClassifier(checkpoint, limits=Limits()).classify(features)
    stable = {"timings", "action", "actions", "top", "frames", "segments"}
    assert of_features.model_dump(exclude=stable) == of_video.model_dump(exclude=stable)
    assert [frame.label for frame in of_features.frames] == [frame.label for frame in of_video.frames]
    assert [s.model_dump(exclude={"score"}) for s in of_features.segments] == [
        s.model_dump(exclude={"score"}) for s in of_video.segments
    ]
    expected = [scored.score for scored in (*of_video.top, *of_video.frames)]
    assert [scored.score for scored in (*of_features.top, *of_features.frames)] == pytest.approx(expected, abs=1e-5)


def test_a_long_video_is_read_in_chunks_with_the_state_between_them(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """10,000 frames of 256 features are more than is read at once, and are mapped."""
    store = FeatureStore(tmp_path / "store")
    clip = write_clip(tmp_path / "clip.mp4", num_frames=30)
    short = extractor(checkpoint, tmp_path / "store")(clip, key=key_of(clip))
    recipe = recipe_of(checkpoint.model.encoder, Look.of(checkpoint.config))
    rng = np.random.default_rng(0)
    feature_TD = rng.normal(size=(10_000, short.feature_TD.shape[1])).astype(np.float32)
    store.write(recipe, KEY, chunks(feature_TD), about=lambda: short.about)
    found = store.read(recipe, KEY)
    assert found is not None and feature_TD.nbytes > MAPPED_BYTES
    prediction = FeatureClassifier(checkpoint, limits=Limits()).classify(found)
    assert prediction.sampled.num_frames == 10_000
    with torch.inference_mode():
        scores, _ = checkpoint.model.sequence(torch.from_numpy(feature_TD)[None])
    score_BTL = scores.frame_probabilities_BTL()
    assert score_BTL is not None
    expected_T = score_BTL[0].amax(dim=1).tolist()
    assert [frame.score for frame in prediction.frames] == pytest.approx(expected_T, abs=1e-5)


def test_what_was_cut_short_stays_refused_and_may_be_allowed_later(checkpoint: Checkpoint, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "clip.mkv", num_frames=200).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    features = extractor(checkpoint, tmp_path / "store")(cut, key=key_of(cut))
    with pytest.raises(TruncatedVideo):
        FeatureClassifier(checkpoint, limits=Limits(min_share_seen=0.9)).classify(features)
    prediction = FeatureClassifier(checkpoint, limits=Limits(min_share_seen=0.1)).classify(features)
    assert not prediction.video.complete and prediction.action is not None
