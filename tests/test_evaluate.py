"""What is measured is what `classify` would say: with a lookahead, each frame by the step that names it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy_scores import CONFIG, dataset, scores
from training.data.clips import LabelledClip, LabelledSegment
from training.data.dataset import Dataset
from training.loop.fit import fit
from training.measure.evaluate import evaluate
from training.measure.figures import Evaluation
from training.measure.scores import score_clips
from training.settings import FitConfig
from vidseq.config import Calibration, HeadsConfig, ModelConfig, RecurrentConfig, Sampling
from vidseq.features.store import ClipFeatures
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


# All figures of an evaluation, from scores made by hand ----------------------------------------------


def of(
    called: str, truth: str, *, config: ModelConfig = CONFIG, groups: str | None = None, **options: Any
) -> Evaluation:
    """Beside a mean pool that calls `a` for every clip."""
    data = dataset(truth, groups=groups)
    examples = data.examples(range(len(truth)))
    return evaluate(data, examples, scores(called), scores("a" * len(truth)), config=config, **options)


def test_the_figures_of_the_baselines_stand_beside_the_models_own() -> None:
    found = of("abca", "abcb", frame_alone=scores("bbbb", frames="......"))
    assert (found.clips.accuracy, found.clips.baseline.accuracy, found.clips.frame_alone.accuracy) == (0.75, 0.25, 0.5)
    assert (found.frames.accuracy, found.frames.frame_alone.accuracy) == (1.0, pytest.approx(1 / 3))
    assert (found.segments.f1_at_50, found.segments.frame_alone.f1_at_50) == (100, 0)


def test_the_model_is_tested_in_pairs_against_each_baseline() -> None:
    found = of("abcabc", "abcabb", frame_alone=scores("abcabc"))
    pairs = {(pair.unit, pair.figure, pair.against): pair for pair in found.paired}
    lead = pairs["clips", "accuracy", "mean pool"]
    assert lead.difference == pytest.approx(5 / 6 - 2 / 6)
    assert lead.interval[0] <= lead.difference <= lead.interval[1]
    assert pairs["clips", "accuracy", "frame alone"].p == 1, "they say the same"
    assert pairs["frames", "macro_f1", "mean pool"].difference == 0
    assert len(pairs) == 8


def test_intervals_are_by_group_where_clips_have_one() -> None:
    """Two clips of one recording that are right, and two of another that are wrong."""
    grouped, apart = of("abab", "abba", groups="uuvv"), of("abab", "abba")
    assert (grouped.num_groups, apart.num_groups) == (2, 4)
    assert grouped.clips.intervals["accuracy"] == (0, 1)
    assert apart.clips.intervals["accuracy"][0] == 0
    one = of("abab", "abba", groups="uuuu")
    assert one.clips.intervals == {} and one.paired[0].p is None


def test_a_clip_without_an_action_is_measured_by_its_frames_alone() -> None:
    found = of("abca", "ab?a")
    assert (found.clips.num, found.frames.num) == (3, 24)
    assert [(row.truth, row.called, row.right) for row in found.rows][2] == (None, "c", None)


def test_rows_say_what_was_called_of_each_clip() -> None:
    wrong = of("ab", "aa", groups="uv").rows[1]
    assert (wrong.path, wrong.group, wrong.truth, wrong.called, wrong.right) == ("1.mp4", "v", "a", "b", False)
    assert (wrong.num_frames, wrong.frame_accuracy) == (6, 1.0)
    assert wrong.score == pytest.approx(np.exp(3) / (np.exp(3) + 2))


def test_the_models_temperature_makes_its_scores_and_decides_what_is_unknown() -> None:
    heads = CONFIG.heads.model_copy(update={"unknown_below": 0.8})
    plain = CONFIG.model_copy(update={"heads": heads})
    warm = plain.model_copy(update={"calibration": Calibration(elapsed_seconds=(0.0,), temperatures=(3.0,))})
    assert of("ab", "ab", config=plain).clips.share_answered == 1
    found = of("ab", "ab", config=warm)
    assert (found.clips.share_answered, found.clips.accuracy, found.clips.accuracy_answered) == (0, 1, None)
    assert found.rows[0].score == pytest.approx(np.e / (np.e + 2))
    assert found.clips.baseline.share_answered is None, "a threshold is the model's own"
    assert found.calibration.found_on == "the model's own clips"


def test_enough_clips_of_other_groups_calibrate_a_model_that_has_no_temperatures() -> None:
    found = of("abcab" * 4, "abcaa" * 4)
    assert found.calibration.found_on == "the other groups"
    assert found.calibration.after.nll != found.calibration.before.nll


def test_a_bidirectional_model_has_no_running_action_to_be_early_with() -> None:
    recurrent = CONFIG.recurrent.model_copy(update={"bidirectional": True})
    assert of("ab", "ab").earliness.accuracy_seen[0].accuracy == 1
    assert of("ab", "ab", config=CONFIG.model_copy(update={"recurrent": recurrent})).earliness is None


def test_several_actions_of_one_clip_are_each_called_from_their_threshold_on() -> None:
    data = dataset("ab")
    examples = [
        replace(e, action_target_A=torch.tensor(t))
        for e, t in zip(data.examples([0, 1]), [[1.0, 1, 0], [0, 1, 0]], strict=True)
    ]
    said = [
        replace(s, action_A=np.array(p)) for s, p in zip(scores("ab"), [[0.9, 0.7, 0.2], [0.1, 0.9, 0.6]], strict=True)
    ]
    heads = HeadsConfig(action_labels=CONFIG.heads.action_labels, several=True, thresholds=(0.5, 0.5, 0.7))
    found = evaluate(data, examples, said, said, config=ModelConfig(heads=heads))
    assert found.clips.accuracy == 1 and found.clips.mean_average_precision == 1
    assert found.clips.baseline.accuracy == 0.5, "the baseline's thresholds stay at one half"
    assert {pair.difference for pair in found.paired} == {0}, "and so do the model's where the two are compared"
    assert [(row.truth, row.called) for row in found.rows] == [("a|b", "a|b"), ("b", "b")]
    assert found.calibration is None and found.earliness.accuracy_seen == ()


def test_an_evaluation_is_read_back_as_it_was_written() -> None:
    found = of("abcab" * 4, "abcaa" * 4, groups="uvwxy" * 4)
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
