"""What is measured is what `classify` would say: with a lookahead, each frame by the step that names it."""

from pathlib import Path

import numpy as np
import torch

from training.clips import LabelledClip, LabelledSegment
from training.dataset import Dataset
from training.evaluate import evaluate
from training.features import ClipFeatures
from training.fit import fit
from training.scores import score_clips
from training.settings import FitConfig
from vidseq.config import HeadsConfig, ModelConfig, RecurrentConfig, Sampling
from vidseq.labelling import Labelling
from vidseq.model import SequenceModel

LABELS = ("down", "up")
LAG_FRAMES = 3


def told_later(num_clips: int, *, seed: int) -> Dataset:
    """Clips in which each frame's label is drawn by lot, and shown `LAG_FRAMES` frames later and nowhere else."""
    generator = np.random.default_rng(seed)
    clips, features = [], []
    for number in range(num_clips):
        label_T = generator.integers(2, size=48)
        feature_TD = generator.normal(size=(48, 6)).astype(np.float32)
        feature_TD[LAG_FRAMES:, 0] = np.where(label_T[:-LAG_FRAMES], 4, -4)
        seconds_T = np.arange(48) / 8
        marks = tuple(LabelledSegment(s, s + 0.125, LABELS[n]) for s, n in zip(seconds_T, label_T, strict=True))
        clips.append(LabelledClip(Path(f"{number}.mp4"), label=None, group=None, split=None, segments=marks))
        features.append(ClipFeatures(feature_TD, seconds_T))
    return Dataset(tuple(clips), tuple(features), (), frame_labels=LABELS, background=None, failed=())


def a_config(lookahead_seconds: float) -> ModelConfig:
    return ModelConfig(
        sampling=Sampling(frames_per_second=8),
        recurrent=RecurrentConfig(hidden_size=16, projection_size=16, dropout=0.0),
        heads=HeadsConfig(frame_labels=LABELS, lookahead_seconds=lookahead_seconds),
    )


def frame_accuracy(lookahead_seconds: float) -> tuple[float, float]:
    """Of the model and of a second one, as its baseline, on clips that neither has seen."""
    data, unseen = told_later(32, seed=1), told_later(16, seed=2)
    settings = FitConfig(epochs=25, batch_size=8, learning_rate=1e-2, label_smoothing=0.0)
    examples = unseen.examples(range(16))
    fitted = [
        fit(
            data.examples(range(24)),
            data.examples(range(24, 32)),
            config=a_config(seconds),
            settings=settings,
            run_file=None,
            on_epoch=lambda _: None,
        )
        for seconds in (lookahead_seconds, 0.0)
    ]
    scores = [score_clips(one.model, examples) for one in fitted]
    frames = evaluate(unseen, examples, *scores, config=a_config(lookahead_seconds)).frames
    return frames.accuracy, frames.baseline.accuracy


def test_with_a_lookahead_a_model_names_what_only_later_frames_tell_and_without_it_cannot() -> None:
    """But for the last frames of each clip, which nothing tells."""
    with_lookahead, without = frame_accuracy(LAG_FRAMES / 8)
    assert with_lookahead > 0.95
    assert without < 0.6


def test_a_clip_is_scored_as_its_stream_is_labelled() -> None:
    torch.manual_seed(0)
    model = SequenceModel(a_config(LAG_FRAMES / 8), feature_size=6).eval()
    data = told_later(1, seed=3)
    (scored,) = score_clips(model, data.examples([0]))
    labelling, feature_BTD = Labelling.of(model.config), torch.from_numpy(data.features[0].feature_TD)[None]
    with torch.inference_mode():
        scores, _ = model(feature_BTD)
    first, track = labelling.settle(labelling.start(), data.features[0].seconds_T.tolist(), scores)
    told = [*labelling.moments(first), *labelling.moments(labelling.finish(track, end_seconds=6.0))]
    assert [moment.frame.label for moment in told] == [LABELS[best] for best in scored.frame_TL.argmax(axis=1)]
    assert [moment.seconds for moment in told] == data.features[0].seconds_T.tolist()
